package runner

import (
	"context"
	"errors"
	"io"
	"time"
)

const (
	patience = 5 * time.Second        // how long a reader may take nothing once the job is canceled,
	hurried  = 500 * time.Millisecond // or once somebody is in a hurry
	maxWrite = 64 << 10               // bytes that have so long
)

// errUnread says that whoever reads the output has stopped doing so.
var errUnread = errors.New("the job was canceled, and nobody reads what it says")

// outlet writes for somebody who need not wait for ever: a Write that is stuck
// when ctx is done is left behind. It is for one goroutine.
type outlet struct {
	ctx   context.Context
	hurry <-chan struct{} // nil where nobody will be in a hurry
	out   io.Writer
	buf   []byte // what a Write that is left behind has of ours
	left  bool
}

type wrote struct {
	n   int
	err error
}

// Write waits until p is written, which bounds what is on its way.
func (o *outlet) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		var part int
		part, err = o.write(p[:min(len(p), maxWrite)])
		n, p = n+part, p[part:]
	}
	return n, err
}

func (o *outlet) write(p []byte) (int, error) {
	if o.left {
		return 0, errUnread
	}
	o.buf = append(o.buf[:0], p...)
	done := make(chan wrote, 1)
	go func(buf []byte) {
		n, err := o.out.Write(buf)
		done <- wrote{n, err}
	}(o.buf)
	select {
	case w := <-done:
		return w.n, w.err
	case <-o.ctx.Done():
	}
	over, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	select {
	case w := <-done:
		return w.n, w.err
	case <-over.Done():
	case <-o.hurry:
		select {
		case w := <-done:
			return w.n, w.err
		case <-over.Done():
		case <-time.After(hurried):
		}
	}
	o.left = true
	return 0, errUnread
}
