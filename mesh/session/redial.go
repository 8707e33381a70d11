package session

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/wire"
)

// The pause before an attempt: none before the first two, then a random time
// below a bound that doubles from retryFirst to retryMost.
const (
	retryFirst = 50 * time.Millisecond
	retryMost  = time.Second
)

func retryPause(attempt int) time.Duration {
	if attempt < 2 {
		return 0
	}
	return rand.N(min(retryMost, retryFirst<<min(attempt-2, 10)))
}

// redial looks for a carrier until there is one or the session is over; giving
// up is the timer's.
func (c *Conn) redial() {
	for {
		c.mu.Lock()
		attempt, cause := c.attempt, c.cause
		c.attempt++
		c.mu.Unlock()
		if pause := retryPause(attempt); pause > 0 {
			t := time.NewTimer(pause)
			select {
			case <-t.C:
			case <-c.ctx.Done():
				t.Stop()
				return
			}
		}
		if c.ctx.Err() != nil {
			return
		}
		if k, err := c.cfg.Redial(c.ctx, attempt, cause); c.redialled(k, err) {
			return
		}
	}
}

// redialled takes what Redial returned; false asks for another attempt.
func (c *Conn) redialled(k Carrier, err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isGone() {
		if err == nil {
			k.Conn.Close()
		}
		return true
	}
	if err == nil {
		var first []byte
		if first, err = (wire.Resume{Token: c.cfg.Token[:], Number: c.number}).Append(nil); err == nil {
			c.attach(k, first)
			return true
		}
		k.Conn.Close()
	}
	c.cause = err
	if errors.Is(err, ErrLost) {
		c.fail(&BrokenError{Name: c.name(), Cause: err}, nil)
		return true
	}
	return false
}
