// Package deadline is the read or write deadline of a net.Conn that waits on
// channels.
package deadline

import (
	"sync"
	"time"
)

// Deadline is a moment that can be moved. Its zero value is not usable; make
// one with New. Its methods may be called from several goroutines.
type Deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	done  chan struct{}
}

// New returns a deadline that never passes until it is set.
func New() *Deadline { return &Deadline{done: make(chan struct{})} }

// Set moves the deadline to t; the zero time means never.
func (d *Deadline) Set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fired := d.timer != nil && !d.timer.Stop()
	d.timer = nil
	if fired {
		<-d.done // the timer's function closes it; wait so that it closes none of ours
	}
	passed := d.passed()
	if t.IsZero() || time.Until(t) > 0 {
		if passed {
			d.done = make(chan struct{})
		}
		if !t.IsZero() {
			done := d.done
			d.timer = time.AfterFunc(time.Until(t), func() { close(done) })
		}
		return
	}
	if !passed {
		close(d.done)
	}
}

// Done returns a channel that is closed when the deadline has passed. A later
// Set may put another channel in its place, so ask anew for every wait.
func (d *Deadline) Done() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done
}

// Passed tells whether the deadline has passed.
func (d *Deadline) Passed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.passed()
}

func (d *Deadline) passed() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}
