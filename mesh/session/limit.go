package session

import (
	"sync"
	"time"
)

// limit is a deadline under the Conn's mutex.
type limit struct {
	timer  *time.Timer
	passed bool
}

func (l *limit) stop() {
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
}

// set moves the deadline to t and wakes who waits when it has passed.
func (l *limit) set(t time.Time, waiters *sync.Cond) {
	l.stop()
	wait := time.Until(t)
	l.passed = !t.IsZero() && wait <= 0
	if l.passed {
		waiters.Broadcast()
		return
	}
	if t.IsZero() {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		waiters.L.Lock()
		defer waiters.L.Unlock()
		if l.timer == timer { // else it was moved meanwhile
			l.passed = true
			waiters.Broadcast()
		}
	})
	l.timer = timer
}
