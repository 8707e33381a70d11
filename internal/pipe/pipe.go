// Package pipe is a connection in memory: a pair of net.Conn with a bounded
// buffer in each direction, so that a writer does not wait for every read.
package pipe

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/deadline"
)

// Size is how many bytes one direction holds.
const Size = 64 << 10

// ErrBroken is what both ends get after Break with a nil cause.
var ErrBroken = errors.New("connection broken")

// New returns the two ends of a connection. Close of one end lets the other
// read what was written before and then io.EOF. The ends may be used from
// several goroutines.
func New(a, b net.Addr) (*Conn, *Conn) {
	ab, ba := newHalf(), newHalf()
	return &Conn{in: ba, out: ab, local: a, remote: b, rd: deadline.New(), wd: deadline.New()},
		&Conn{in: ab, out: ba, local: b, remote: a, rd: deadline.New(), wd: deadline.New()}
}

// Conn is one end.
type Conn struct {
	in, out       *half
	local, remote net.Addr
	rd, wd        *deadline.Deadline
}

// Read implements net.Conn. After the end's own Close it returns net.ErrClosed.
func (c *Conn) Read(p []byte) (int, error) {
	for {
		if c.rd.Passed() {
			return 0, os.ErrDeadlineExceeded
		}
		n, wait, err := c.in.read(p)
		if wait == nil {
			return n, err
		}
		select {
		case <-wait:
		case <-c.rd.Done():
		}
	}
}

// Write implements net.Conn. It returns io.ErrClosedPipe after the other end closed.
func (c *Conn) Write(p []byte) (int, error) {
	total := 0
	for {
		if c.wd.Passed() {
			return total, os.ErrDeadlineExceeded
		}
		n, wait, err := c.out.write(p[total:])
		total += n
		if err != nil || total == len(p) {
			return total, err
		}
		select {
		case <-wait:
		case <-c.wd.Done():
		}
	}
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.out.closeWrite()
	c.in.closeRead()
	return nil
}

// Break ends the connection at once, as a cut cable does: unread bytes are
// lost and both ends get cause (ErrBroken where it is nil).
func (c *Conn) Break(cause error) {
	if cause == nil {
		cause = ErrBroken
	}
	c.in.fail(cause)
	c.out.fail(cause)
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error { c.rd.Set(t); c.wd.Set(t); return nil }

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { c.rd.Set(t); return nil }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { c.wd.Set(t); return nil }

// half is one direction. changed is closed and replaced whenever a waiter
// should look again.
type half struct {
	mu          sync.Mutex
	buf         []byte // ring of at most Size bytes, allocated at first use
	start, n    int
	writeClosed bool
	readClosed  bool
	err         error
	changed     chan struct{}
}

func newHalf() *half { return &half{changed: make(chan struct{})} }

func (h *half) wake() {
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *half) read(p []byte) (int, <-chan struct{}, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.err != nil:
		return 0, nil, h.err
	case h.readClosed:
		return 0, nil, net.ErrClosed
	case len(p) == 0:
		return 0, nil, nil
	case h.n == 0 && h.writeClosed:
		return 0, nil, io.EOF
	case h.n == 0:
		return 0, h.changed, nil
	}
	total := 0
	for h.n > 0 && total < len(p) {
		end := min(h.start+h.n, len(h.buf))
		k := copy(p[total:], h.buf[h.start:end])
		total += k
		h.n -= k
		if h.start += k; h.start == len(h.buf) {
			h.start = 0
		}
	}
	h.wake()
	return total, nil, nil
}

func (h *half) write(p []byte) (int, <-chan struct{}, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.err != nil:
		return 0, nil, h.err
	case h.writeClosed:
		return 0, nil, net.ErrClosed
	case h.readClosed:
		return 0, nil, io.ErrClosedPipe
	case len(p) == 0:
		return 0, nil, nil
	case h.n == Size:
		return 0, h.changed, nil
	}
	if h.buf == nil {
		h.buf = make([]byte, Size)
	}
	total := 0
	for h.n < Size && total < len(p) {
		at := (h.start + h.n) % Size
		k := copy(h.buf[at:min(Size, at+Size-h.n)], p[total:])
		total += k
		h.n += k
	}
	h.wake()
	return total, h.changed, nil
}

func (h *half) closeWrite() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writeClosed = true
	h.wake()
}

func (h *half) closeRead() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.readClosed = true
	h.buf, h.n = nil, 0
	h.wake()
}

func (h *half) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		h.err = err
		h.buf, h.n = nil, 0
		h.wake()
	}
}
