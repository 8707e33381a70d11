// Package pace bounds how fast a link sends, for sites that share an uplink.
package pace

import (
	"context"
	"net"
	"time"

	"golang.org/x/time/rate"

	"github.com/ranvier-mesh/ranvier/mesh/link"
)

const (
	// slice is how much time's worth of bytes is sent at once: what is sent
	// next waits no longer for it. burst is how much may be saved up.
	slice = 10 * time.Millisecond
	burst = 50 * time.Millisecond

	minChunk = 1200     // one packet of most networks
	maxChunk = 32 << 10 // as the largest frame of a link
)

// A Bucket is a token bucket that the streams of one link share. Its methods
// may be called from several goroutines; a nil Bucket bounds nothing.
type Bucket struct {
	limiter *rate.Limiter
	chunk   int
}

// New returns a bucket that lets bytesPerSecond pass; nil if that is 0.
func New(bytesPerSecond int64) *Bucket {
	if bytesPerSecond <= 0 {
		return nil
	}
	in := func(d time.Duration) int { return int(float64(bytesPerSecond) * d.Seconds()) }
	chunk := min(max(in(slice), minChunk), maxChunk)
	return &Bucket{limiter: rate.NewLimiter(rate.Limit(bytesPerSecond), max(in(burst), chunk)), chunk: chunk}
}

// Write has write send p in pieces, each when its turn has come. It returns
// how much was sent, and the error of write, or net.ErrClosed when ctx ended.
func (b *Bucket) Write(ctx context.Context, p []byte, write func([]byte) (int, error)) (int, error) {
	if b == nil {
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

// Conn returns conn with its writes bounded by o.Rate, or conn itself where
// there is no rate.
func Conn(conn net.Conn, o link.Options) net.Conn {
	b := New(o.Rate)
	if b == nil {
		return conn
	}
	ctx, stop := context.WithCancel(context.Background())
	return &paced{Conn: conn, bucket: b, ctx: ctx, stop: stop}
}

type paced struct {
	net.Conn
	bucket *Bucket
	ctx    context.Context // until Close
	stop   context.CancelFunc
}

func (c *paced) Write(p []byte) (int, error) { return c.bucket.Write(c.ctx, p, c.Conn.Write) }

func (c *paced) Close() error {
	c.stop()
	return c.Conn.Close()
}

// NetConn returns what is paced.
func (c *paced) NetConn() net.Conn { return c.Conn }

// MaxWrite tells what writes on top of the connection how much to send at once,
// so that a control message does not wait behind seconds of bulk.
func (c *paced) MaxWrite() int { return c.bucket.chunk }
