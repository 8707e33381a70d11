package sim

import (
	"time"

	"github.com/ranvier-mesh/ranvier/routing"
)

// event is something that is going to happen: do, or the arrival of a message
// at an end of a connection. Of those of one moment the first scheduled is first.
type event struct {
	at   time.Duration
	n    uint64
	do   func()
	conn *conn
	end  int
	msg  routing.Message
}

func (e *event) before(o *event) bool { return e.at < o.at || e.at == o.at && e.n < o.n }

// queue is a heap of events with four children a node.
type queue []event

func (q *queue) push(e event) {
	*q = append(*q, e)
	h := *q
	i := len(h) - 1
	for i > 0 {
		parent := (i - 1) / 4
		if !e.before(&h[parent]) {
			break
		}
		h[i] = h[parent]
		i = parent
	}
	h[i] = e
}

func (q *queue) pop() event {
	h := *q
	top, last := h[0], h[len(h)-1]
	h[len(h)-1] = event{}
	h = h[:len(h)-1]
	*q = h
	if len(h) == 0 {
		return top
	}
	i := 0
	for {
		least := -1
		for c := 4*i + 1; c < min(4*i+5, len(h)); c++ {
			if least < 0 || h[c].before(&h[least]) {
				least = c
			}
		}
		if least < 0 || !h[least].before(&last) {
			break
		}
		h[i] = h[least]
		i = least
	}
	h[i] = last
	return top
}

// after schedules do; what is due already happens next.
func (w *world) after(d time.Duration, do func()) {
	w.count++
	w.queue.push(event{at: w.now + max(d, 0), n: w.count, do: do})
}

// run lets d pass.
func (w *world) run(d time.Duration) {
	end := w.now + d
	w.runUntil(end, func() bool { return false })
	w.now = end
}

// runUntil lets time pass until done or, at the latest, end. It tells whether it
// was done.
func (w *world) runUntil(end time.Duration, done func() bool) bool {
	for !done() {
		if len(w.queue) == 0 || w.queue[0].at > end {
			return false
		}
		e := w.queue.pop()
		w.now = e.at
		if e.do != nil {
			e.do()
		} else {
			w.receive(e.conn, e.end, e.msg)
		}
	}
	return true
}
