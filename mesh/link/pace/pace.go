// Package pace bounds how fast a link sends, for sites that share an uplink.
package pace

import (
	"context"
	"net"
	"time"

	"golang.org/x/time/rate"

	"github.com/ranvier-mesh/ranvier/mesh/link/records"
)

const (
	// slice is how much time's worth of bytes is sent at once: what is sent
	// next waits no longer for it. burst is how much may be saved up.
	slice = 10 * time.Millisecond
	burst = 50 * time.Millisecond

	minChunk = 1200 // one packet of most networks
	maxChunk = 2 * records.Framed
	// small is up to how long a message need not wait for its turn: opens,
	// answers, keys that somebody has typed. Such messages have half of the rate
	// to themselves, and may save up saved bytes if that is more than burst.
	small = 1024
	saved = 4 << 10
)

// A Bucket is a token bucket that the streams of one link share. Its methods
// may be called from several goroutines; a nil Bucket bounds nothing.
type Bucket struct {
	limiter *rate.Limiter
	express *rate.Limiter // for small messages; they count in limiter too
	chunk   int
}

// New returns a bucket that lets bytesPerSecond pass; nil if that is 0.
func New(bytesPerSecond int64) *Bucket {
	if bytesPerSecond <= 0 {
		return nil
	}
	in := func(d time.Duration) int { return int(float64(bytesPerSecond) * d.Seconds()) }
	chunk := min(max(in(slice), minChunk), maxChunk)
	return &Bucket{
		limiter: rate.NewLimiter(rate.Limit(bytesPerSecond), max(in(burst), chunk)),
		express: rate.NewLimiter(rate.Limit(bytesPerSecond)/2, max(in(burst), saved)),
		chunk:   chunk,
	}
}

// Write has write send p in pieces, each when its turn has come. It returns
// how much was sent, and the error of write, or net.ErrClosed when ctx ended.
// A small message goes at once: it is counted, and what comes later waits for
// it. Those that would take more than half of the rate wait as all others do.
func (b *Bucket) Write(ctx context.Context, p []byte, write func([]byte) (int, error)) (int, error) {
	if b == nil {
		return write(p)
	}
	if len(p) <= small && b.express.AllowN(time.Now(), len(p)) {
		b.Spend(len(p))
		return write(p)
	}
	sent := 0
	for {
		piece := p[sent:min(len(p), sent+b.chunk)]
		if err := b.limiter.WaitN(ctx, len(piece)); err != nil {
			return sent, net.ErrClosed
		}
		n, err := write(piece)
		if sent += n; err != nil || sent == len(p) {
			return sent, err
		}
	}
}

// Spend counts n bytes that go at once: what comes later waits for them.
func (b *Bucket) Spend(n int) {
	if b == nil {
		return
	}
	for now := time.Now(); n > 0; n -= b.chunk {
		b.limiter.ReserveN(now, min(n, b.chunk))
	}
}
