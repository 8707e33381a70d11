package mesh

import (
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/ranvier-mesh/ranvier/mesh/session"
	"github.com/ranvier-mesh/ranvier/routing"
)

// This file bounds what one identity may use of this node (docs/security.md
// section 6). Whoever goes beyond is refused, and nobody else notices.

const (
	// maxOwn is how many streams to this node one identity may have, and ownRate and
	// ownBurst how many it may open in a second, and at once.
	maxOwn   = 4096
	ownRate  = 1000
	ownBurst = 8192
	// The adverts of one origin that a link may bring: advertRate a second, and
	// advertBurst at once, which is twice what an origin can have.
	advertRate  = 20
	advertBurst = 2048
	// maxTallies bounds of whom is remembered that he did something a while ago.
	maxTallies = 4096
	// limitedEvery is how often it is logged that somebody is beyond a limit.
	limitedEvery = time.Minute
)

// bucket is a token bucket that is filled at first; the zero value has never been
// taken from.
type bucket struct {
	level float64 // at last
	last  time.Time
}

// take takes one of burst, which come back at rate a second.
func (b *bucket) take(now time.Time, rate, burst float64) bool {
	b.fill(now, rate, burst)
	if b.level < 1 {
		return false
	}
	b.level--
	return true
}

// fill reports whether the bucket is full, so that nothing is lost where it is forgotten.
func (b *bucket) fill(now time.Time, rate, burst float64) bool {
	if b.last.IsZero() {
		b.level = burst
	}
	b.level = min(burst, b.level+rate*max(0, now.Sub(b.last).Seconds()))
	b.last = now
	return b.level >= burst
}

// Limited is how often an identity was refused because it was beyond a limit.
type Limited struct{ Streams, Adverts uint64 }

// limits are those of all identities.
type limits struct {
	log   *slog.Logger
	total int64   // bytes of streams' memory, of all together
	own   int     // maxOwn
	burst float64 // advertBurst; not changed once the mesh runs

	mu    sync.Mutex
	by    map[routing.NodeID]*tally
	count Limited
	told  map[string]time.Time // by what is told, less than limitedEvery ago
}

// tally is what one identity uses.
type tally struct {
	open   int
	begun  bucket
	budget *session.Budget
}

func newLimits(log *slog.Logger, total int64) *limits {
	return &limits{log: log, total: total, own: maxOwn, burst: advertBurst, by: map[routing.NodeID]*tally{}, told: map[string]time.Time{}}
}

// limitError is the refusal of a stream.
type limitError struct{ reason string }

func (e *limitError) Error() string { return e.reason }

// enter counts a stream of an identity, and returns the memory that it may share
// with that one's others: half of all. The error is a *limitError. leave is called
// for each enter without an error.
func (l *limits) enter(now time.Time, id routing.NodeID, all *session.Budget) (*session.Budget, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.by[id]
	if t == nil {
		if len(l.by) >= maxTallies {
			l.forget(now)
		}
		t = &tally{budget: all.Share(l.total / 2)}
		l.by[id] = t
	}
	why := ""
	switch {
	case t.open >= l.own:
		why = fmt.Sprintf("%s has %d streams to this node already", id, l.own)
	case !t.begun.take(now, ownRate, ownBurst):
		why = fmt.Sprintf("%s opens more than %d streams a second", id, ownRate)
	default:
		t.open++
		return t.budget, nil
	}
	l.count.Streams++
	l.tell(now, "streams", id, why)
	return nil, &limitError{why}
}

func (l *limits) leave(id routing.NodeID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.by[id].open--
}

// forget makes room: who has no stream and has not opened one lately begins anew.
// The caller holds mu.
func (l *limits) forget(now time.Time) {
	for id, t := range l.by {
		if t.open == 0 && t.begun.fill(now, ownRate, ownBurst) {
			delete(l.by, id)
		}
	}
}

// advert counts one that is dropped.
func (l *limits) advert(now time.Time, origin, from routing.NodeID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count.Adverts++
	l.tell(now, "adverts", origin, fmt.Sprintf("more than %d adverts a second of %s come from %s", advertRate, origin, from))
}

// tell logs once in a while that an identity is beyond a limit. The caller holds mu.
func (l *limits) tell(now time.Time, what string, id routing.NodeID, why string) {
	key := what + " " + string(id)
	if last, ok := l.told[key]; ok && now.Sub(last) < limitedEvery {
		return
	}
	for k, last := range l.told {
		if now.Sub(last) >= limitedEvery {
			delete(l.told, k)
		}
	}
	if len(l.told) >= maxTallies {
		return // it is counted all the same
	}
	l.told[key] = now
	l.log.Warn("beyond a limit: refused, and counted in the status", "what", what, "who", id, "why", why, "refused so far", l.count)
}

func (l *limits) counted() Limited {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// adverts bounds those of each origin that a link brings. It belongs to the
// link's reader. Where many come at once there may be a tally of each member for a
// while.
type adverts struct {
	by    map[routing.NodeID]*bucket
	swept time.Time
}

func (a *adverts) take(now time.Time, origin routing.NodeID, burst float64) bool {
	if len(a.by) >= maxTallies && now.Sub(a.swept) >= time.Second {
		a.swept = now
		maps.DeleteFunc(a.by, func(_ routing.NodeID, b *bucket) bool { return b.fill(now, advertRate, burst) })
	}
	b := a.by[origin]
	if b == nil {
		if a.by == nil {
			a.by = map[routing.NodeID]*bucket{}
		}
		b = &bucket{}
		a.by[origin] = b
	}
	return b.take(now, advertRate, burst)
}
