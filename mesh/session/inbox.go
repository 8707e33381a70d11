package session

import (
	"fmt"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/wire"
)

const (
	// firstWindow is what each end may send before it has heard anything
	// (docs/protocol.md section 6.4).
	firstWindow = 16 << 10
	// nearWindow and maxWindow bound a window, where the other end is nearer
	// than nearRTT and where it is not.
	nearWindow = 2 << 20
	maxWindow  = 16 << 20
	nearRTT    = 2 * time.Millisecond
	// A window up to busyWindow grows where half of it is read within busyTime:
	// many streams that share a link are each slow, and each Progress that a
	// small window takes costs all nodes on the way.
	busyWindow = 256 << 10
	busyTime   = time.Second
	// ackDelay is how long data may wait to be confirmed. Among many streams each
	// gets its turn so seldom that a short one would confirm every frame by itself.
	// Nobody waits for it: a writer that is short of memory asks (machine.stuck).
	ackDelay = 500 * time.Millisecond
)

// inbox holds what came until the user reads it.
//
//	read ≤ got ≤ told, all counted in bytes of data
type inbox struct {
	budget   *Budget
	blocks   []*block
	borrowed int

	read   uint64
	got    uint64
	told   uint64 // the limit that the other end knows
	window uint64
	acked  uint64    // how much of got the other end knows
	since  time.Time // when told was last moved
	rtt    time.Duration
}

// expect checks that n more bytes may come.
func (x *inbox) expect(n int) error {
	if x.told-x.got < uint64(n) {
		return fmt.Errorf("%w: %d bytes at %d, beyond the limit of %d", wire.ErrMalformed, n, x.got, x.told)
	}
	return nil
}

// span is memory that a goroutine fills from a carrier.
type span struct {
	b     *block
	at, n int
	added bool // b is not among the inbox's blocks yet
}

// reserve returns memory for n bytes that are to come: the rest of the last
// block, then a new one.
func (x *inbox) reserve(spans []span, n int) []span {
	if len(x.blocks) > 0 {
		if b := x.blocks[len(x.blocks)-1]; !b.claimed && b.room() > 0 {
			b.claimed = true
			b.refs++
			k := min(n, b.room())
			spans = append(spans, span{b: b, at: b.end, n: k})
			n -= k
		}
	}
	if n > 0 {
		b := newBlock(n)
		if uint64(x.window) > firstWindow {
			b.release()
			b = newBlock(blockLen) // a fast one: more will come
		}
		b.claimed = true
		b.refs++
		spans = append(spans, span{b: b, n: n, added: true})
	}
	return spans
}

// commit makes what was filled readable.
func (x *inbox) commit(spans []span) {
	for _, s := range spans {
		s.b.claimed = false
		s.b.end = s.at + s.n
		if s.added {
			x.blocks = append(x.blocks, s.b)
		}
		s.b.release()
		x.got += uint64(s.n)
	}
}

// abandon gives back what was not filled. Until then the blocks are claimed,
// and a next carrier begins with another one.
func (x *inbox) abandon(spans []span) {
	for _, s := range spans {
		s.b.claimed = false
		if s.added {
			s.b.release()
		}
		s.b.release()
	}
}

// take moves bytes into p.
func (x *inbox) take(p []byte) int {
	total := 0
	for total < len(p) && len(x.blocks) > 0 {
		b := x.blocks[0]
		n := copy(p[total:], b.buf[b.start:b.end])
		total += n
		b.start += n
		if b.start < b.end {
			break
		}
		if len(x.blocks) == 1 && b.claimed {
			break // more is on its way into it
		}
		x.blocks[0] = nil
		x.blocks = x.blocks[1:]
		b.release()
	}
	if len(x.blocks) == 0 {
		x.blocks = nil
	}
	x.read += uint64(total)
	return total
}

// discard throws away what came, as if it had been read.
func (x *inbox) discard() {
	for _, b := range x.blocks {
		b.release()
	}
	x.blocks = nil
	x.read = x.got
}

// due tells whether the other end should hear at once how far this one is: it
// may have to wait otherwise.
func (x *inbox) due() bool {
	return x.got-x.acked >= x.window/2 || x.read+x.window >= x.told+x.window/2
}

// tell is what the other end is told now. A window that the user empties
// faster than it can be renewed grows.
func (x *inbox) tell(now time.Time) (received, limit uint64) {
	x.acked = x.got
	if x.read+x.window > x.told {
		if !x.since.IsZero() && x.read+x.window >= x.told+x.window/2 && now.Sub(x.since) < x.soon() {
			x.grow()
		}
		x.told = x.read + x.window
		x.since = now
	}
	return x.got, x.told
}

// soon is how fast the user has to read half of the window for it to grow.
func (x *inbox) soon() time.Duration {
	soon := 2 * max(x.rtt, nearRTT)
	if x.window < busyWindow {
		soon = max(soon, busyTime)
	}
	return soon
}

func (x *inbox) grow() {
	most := uint64(maxWindow)
	if x.rtt < nearRTT {
		most = nearWindow
	}
	if more := int(x.window); x.window < most && x.budget.take(more, x.borrowed) {
		x.borrowed += more
		x.window *= 2
	}
}

// clear gives back what the budget lent.
func (x *inbox) clear() {
	x.budget.give(x.borrowed)
	x.borrowed = 0
}
