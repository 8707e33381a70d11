// Package records has what TLS makes of one Write leave in one write of the
// connection below, where crypto/tls makes one for each record of 16 KiB.
package records

import (
	"crypto/tls"
	"net"
	"sync"
	"time"
)

const (
	// Plain is how much plain text one record holds (RFC 8446 section 5.1).
	Plain = 16 << 10
	// Overhead is what a record adds to it: header, content type and tag
	// (section 5.2).
	Overhead = 5 + 1 + 16
	// Framed is how much a frame of yamux, whose header is 12 bytes, carries in one
	// record. Whoever writes to a stream writes multiples of it where there is much,
	// so that nothing is left over for a small frame wherever it is cut.
	Framed = Plain - 12
	// Gathered is how many bytes leave at once: four full records.
	Gathered = 4 * (Plain + Overhead)
)

// Sealed is how long plain text of this length is in records.
func Sealed(plain int) int { return plain + (plain+Plain-1)/Plain*Overhead }

// pool has the memory of what is held back.
var pool = sync.Pool{New: func() any { return new([Gathered]byte) }}

// Gather is the connection below a tls.Conn. Beside the user of that, crypto/tls
// may write of its own accord.
type Gather struct {
	net.Conn

	mu   sync.Mutex
	held *[Gathered]byte // nil while nothing is held back
	n    int

	// From the first write, which is one of the handshake's as is the read after
	// it, to the answer.
	wrote time.Time
	rtt   time.Duration
}

// WriteTo writes p to t, which stands on g: as few writes as there can be.
// One goroutine calls it at a time.
func (g *Gather) WriteTo(t *tls.Conn, p []byte) (int, error) {
	if len(p) <= Plain {
		return t.Write(p)
	}
	g.hold()
	n, err := t.Write(p)
	if flushed := g.release(); err == nil {
		err = flushed
	}
	return n, err
}

func (g *Gather) hold() {
	g.mu.Lock()
	g.held = pool.Get().(*[Gathered]byte)
	g.mu.Unlock()
}

func (g *Gather) release() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := g.flush()
	pool.Put(g.held)
	g.held = nil
	return err
}

func (g *Gather) flush() error {
	if g.n == 0 {
		return nil
	}
	_, err := g.Conn.Write(g.held[:g.n])
	g.n = 0
	return err
}

// Write implements net.Conn.
func (g *Gather) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.wrote.IsZero() {
		g.wrote = time.Now()
	}
	if g.held == nil {
		return g.Conn.Write(p)
	}
	if g.n+len(p) > len(g.held) {
		if err := g.flush(); err != nil {
			return 0, err
		}
	}
	if len(p) > len(g.held) {
		return g.Conn.Write(p)
	}
	g.n += copy(g.held[g.n:], p)
	return len(p), nil
}

// Read implements net.Conn.
func (g *Gather) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if g.rtt == 0 && !g.wrote.IsZero() {
		g.rtt = time.Since(g.wrote)
	}
	return n, err
}

// NetConn returns what is below.
func (g *Gather) NetConn() net.Conn { return g.Conn }

// Conn is a tls.Conn whose Writes leave at once.
type Conn struct {
	*tls.Conn
	below *Gather
}

// Client is tls.Client on conn.
func Client(conn net.Conn, cfg *tls.Config) *Conn {
	g := &Gather{Conn: conn}
	return &Conn{tls.Client(g, cfg), g}
}

// Server is tls.Server on conn.
func Server(conn net.Conn, cfg *tls.Config) *Conn {
	g := &Gather{Conn: conn}
	return &Conn{tls.Server(g, cfg), g}
}

// RTT is how long the other end took to answer during the handshake, its
// cryptography included. It may be asked when that is over.
func (c *Conn) RTT() time.Duration { return c.below.rtt }

// Write implements net.Conn. One goroutine writes at a time.
func (c *Conn) Write(p []byte) (int, error) { return c.below.WriteTo(c.Conn, p) }
