package mesh

import (
	"context"
	"time"

	"github.com/ranvier-mesh/ranvier/mesh/link"
)

// headStart is what a way gets before the next one is tried beside it: a way
// that is blocked often says nothing at all.
const headStart = 500 * time.Millisecond

// race tries the ways to a peer one after the other: each when the one before
// has failed, or has used up its head start. One goroutine calls its methods.
type race struct {
	ctx     context.Context
	cancel  context.CancelFunc
	left    []way // not yet tried
	running int   // tried without an outcome
	over    chan attempt
	timer   *time.Timer // until the next of left
}

// attempt is the outcome of trying a way.
type attempt struct {
	way  way
	link link.Link
	err  error
}

func startRace(ctx context.Context, ways []way) *race {
	r := &race{left: ways, over: make(chan attempt, len(ways)), timer: time.NewTimer(headStart)}
	r.ctx, r.cancel = context.WithCancel(ctx)
	r.start()
	return r
}

func (r *race) start() {
	if len(r.left) == 0 {
		return
	}
	w := r.left[0]
	r.left = r.left[1:]
	r.running++
	r.timer.Reset(headStart)
	go func() {
		l, err := w.transport.Dial(r.ctx, w.addr)
		r.over <- attempt{w, l, err}
	}()
}

// next returns the next outcome; false when there is none any more.
func (r *race) next() (attempt, bool) {
	if r.running == 0 {
		r.start() // the link before was no good
	}
	for r.running > 0 {
		select {
		case <-r.timer.C:
			r.start()
		case a := <-r.over:
			r.running--
			return a, true
		}
	}
	return attempt{}, false
}

// more tells whether there may be another outcome.
func (r *race) more() bool { return r.running > 0 || len(r.left) > 0 }

// end gives up what has not been returned.
func (r *race) end() {
	r.cancel()
	r.timer.Stop()
	for ; r.running > 0; r.running-- {
		if a := <-r.over; a.err == nil {
			a.link.Close()
		}
	}
}
