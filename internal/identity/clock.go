package identity

import (
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// MaxLife is how long a node's certificate lives at most.
const MaxLife = 7 * 24 * time.Hour

// skew is how far clocks may be apart: certificates begin that much earlier.
const skew = 10 * time.Minute

// firstRelease is a time that has passed for whoever has this program.
var firstRelease = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// BuildTime is when the program was built, as far as it knows.
func BuildTime() time.Time {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if t, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil && t.After(firstRelease) {
				return t
			}
		}
	}
	return firstRelease
}

// Clock is the time that certificates are judged by: the system's, but never
// before what is known to have passed (the build, what the CA has signed). So a
// host without a clock of its own can take part. It may be used from several
// goroutines.
type Clock struct {
	system func() time.Time

	mu    sync.Mutex
	floor time.Time
	since time.Time // when floor was set, by a clock that only measures
}

// NewClock returns a clock that is not before floor; system nil is time.Now.
func NewClock(system func() time.Time, floor time.Time) *Clock {
	if system == nil {
		system = time.Now
	}
	if built := BuildTime(); floor.Before(built) {
		floor = built
	}
	return &Clock{system: system, floor: floor, since: time.Now()}
}

// Now returns the later of the system's time and what is known to have passed.
func (c *Clock) Now() time.Time {
	now := c.system()
	c.mu.Lock()
	defer c.mu.Unlock()
	if passed := c.passed(); now.Before(passed) {
		return passed
	}
	return now
}

// passed goes on from the newest time that was observed, so that certificates
// come due where the system's clock is wrong.
func (c *Clock) passed() time.Time { return c.floor.Add(time.Since(c.since)) }

// Behind tells whether the system's clock is before a time that has passed.
func (c *Clock) Behind() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.system().Before(c.passed())
}

// Observe notes a time that the CA has signed. It is given only what was
// verified.
func (c *Clock) Observe(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.After(c.passed()) {
		c.floor, c.since = t, time.Now()
	}
}

// Floor returns the newest time that is known to have passed, to be kept on disk.
func (c *Clock) Floor() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.passed()
}

// ClockError says that a certificate is out of its time, and that this may be
// the clock's fault.
type ClockError struct {
	What                string // "the certificate of node a"
	Now                 time.Time
	NotBefore, NotAfter time.Time
	Own                 bool // it is this node's own
}

// Error is one line that names the clock.
func (e *ClockError) Error() string {
	const day = "2006-01-02 15:04:05"
	what := "is not valid yet: it begins at " + e.NotBefore.UTC().Format(day)
	if e.Now.After(e.NotAfter) {
		what = "has expired: it ended at " + e.NotAfter.UTC().Format(day)
	}
	hint := "is the clock right at both ends?"
	if e.Own {
		hint = "set the clock if that is wrong, else join the mesh again"
	}
	return fmt.Sprintf("%s %s UTC, and this host's clock says %s UTC (%s)", e.What, what, e.Now.UTC().Format(day), hint)
}
