// Package session makes a net.Conn of a carrier: any connection that may end
// without saying whether all arrived. The session has its own FIN and RESET
// (docs/protocol.md section 6.4), so a carrier that breaks is an error at both
// ends and never a clean end. It knows no mesh.
package session

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/wire"
)

const (
	// maxChunks bounds what a Conn holds in each direction, in chunks of 32 KiB.
	maxChunks = 4
	// lingerTime is how long a closed Conn goes on delivering what was
	// written to a peer that does not read.
	lingerTime = time.Hour
)

// ErrPeerClosed is returned by Write when the peer has closed its end.
var ErrPeerClosed = errors.New("the peer closed the stream")

// BrokenError is returned by Read and Write when the way to the peer broke:
// what was not read yet is lost, and nobody knows how much of what was written
// has arrived.
type BrokenError struct {
	Name  string // of the stream, as given to New
	Cause error  // may be nil
}

// Error names the stream and the cause.
func (e *BrokenError) Error() string {
	if e.Cause == nil || e.Cause == io.EOF {
		return fmt.Sprintf("stream %s: the way broke (it ended without a FIN)", e.Name)
	}
	return fmt.Sprintf("stream %s: the way broke: %v", e.Name, e.Cause)
}

// Unwrap returns the cause. An end without a FIN is io.ErrUnexpectedEOF, so that
// nobody who asks errors.Is takes it for the end of what was sent.
func (e *BrokenError) Unwrap() error {
	if e.Cause == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return e.Cause
}

// ResetError is returned by Read and Write when the peer ended the stream at once.
type ResetError struct {
	Name string
	wire.Reset
}

// Error names the stream and the peer's reason.
func (e *ResetError) Error() string {
	s := fmt.Sprintf("stream %s: reset by the peer: %v", e.Name, e.Code)
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	return s
}

// Conn is a net.Conn with half-close. Its methods may be called from several
// goroutines.
//
// One goroutine (receive) reads the carrier for the Conn's whole life; another
// (send) writes to it while there is something to write. Both take what they
// share from under mu.
//
// A direction goes: open -> fin queued -> fin sent, and open -> fin received;
// when both have ended, the carrier is closed. Whatever else ends the carrier
// first breaks the Conn (fail).
type Conn struct {
	carrier net.Conn
	name    string
	done    func()
	gone    chan struct{}

	mu     sync.Mutex
	closed bool        // Close was called
	err    error       // set by fail, once
	linger *time.Timer // runs after Close

	canWrite sync.Cond
	out      []*chunk // the last one takes more until send takes it
	sending  bool     // the goroutine send runs
	written  uint64   // bytes accepted by Write
	finOwed  bool     // a Fin must be sent once out is empty
	finOut   bool     // no more may be written
	finSent  bool
	finGot   bool // the peer will send no more
	peerGone bool // the peer will not read any more
	wlimit   limit

	canRead sync.Cond
	in      []*chunk
	rlimit  limit
}

// New starts a session over carrier and owns it from now on. name is for error
// messages. done, where it is not nil, is called once when the carrier has been
// closed.
func New(carrier net.Conn, name string, done func()) *Conn {
	c := &Conn{carrier: carrier, name: name, done: done, gone: make(chan struct{})}
	c.canWrite.L = &c.mu
	c.canRead.L = &c.mu
	go c.receive()
	return c
}

// Read implements net.Conn. It returns io.EOF only after the peer's FIN and
// all that came before it.
func (c *Conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, c.opError("read", net.ErrClosed)
		case c.rlimit.passed:
			return 0, c.opError("read", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return 0, nil
		case len(c.in) > 0:
			return c.take(p), nil
		case c.finGot:
			return 0, io.EOF
		case c.err != nil:
			return 0, c.err
		}
		c.canRead.Wait()
	}
}

// take moves bytes of the chunks that came into p.
func (c *Conn) take(p []byte) int {
	total := 0
	for total < len(p) && len(c.in) > 0 {
		first := c.in[0]
		n := copy(p[total:], first.unread())
		total += n
		if first.start += n; first.start == first.end {
			c.in[0] = nil
			c.in = c.in[1:]
			first.free()
			c.canRead.Broadcast() // the receiver waits for room
		}
	}
	return total
}

// Write implements net.Conn. What it accepted is delivered in the background.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	total := 0
	for {
		switch {
		case c.closed || c.finOut:
			return total, c.opError("write", net.ErrClosed)
		case c.wlimit.passed:
			return total, c.opError("write", os.ErrDeadlineExceeded)
		case c.err != nil:
			return total, c.err
		case c.peerGone:
			return total, c.opError("write", ErrPeerClosed)
		case total == len(p):
			return total, nil
		}
		if n := c.put(p[total:]); n > 0 {
			total += n
			continue
		}
		c.canWrite.Wait()
	}
}

// put copies what fits of p into the chunks to send.
func (c *Conn) put(p []byte) int {
	if len(c.out) == 0 || c.out[len(c.out)-1].full() {
		if len(c.out) == maxChunks {
			return 0
		}
		c.out = append(c.out, newChunk())
	}
	n := c.out[len(c.out)-1].fill(p)
	c.written += uint64(n)
	c.startSending()
	return n
}

// CloseWrite sends a FIN after what was written; Read goes on.
func (c *Conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	if !c.finOut && c.err == nil {
		c.finOut, c.finOwed = true, true
		c.canWrite.Broadcast()
		c.startSending()
	}
	return nil
}

// Close implements net.Conn. What was written before is still delivered, in
// the background; what the peer sends from now on is thrown away.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.closed = true
	c.rlimit.stop()
	c.wlimit.stop()
	c.dropInput()
	c.canRead.Broadcast()
	c.canWrite.Broadcast()
	if c.err == nil && !c.isGone() {
		c.finOut, c.finOwed = true, true
		c.linger = time.AfterFunc(lingerTime, func() { c.Reset(wire.CodeTimeout, "the peer did not read") })
		c.startSending()
	}
	return nil
}

// Reset ends the stream at once, in both directions, and tells the peer why.
func (c *Conn) Reset(code wire.Code, reason string) {
	frame, err := (wire.Reset{Code: code, Reason: reason}).Append(nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	idle := !c.sending
	c.failLocked(fmt.Errorf("stream %s: reset here: %v: %s", c.name, code, reason))
	if err == nil && idle {
		c.sending = true // nobody else writes to the carrier any more
		go func() {
			c.carrier.SetWriteDeadline(time.Now().Add(time.Second))
			c.carrier.Write(frame)
			c.closeCarrier()
		}()
		return
	}
	go c.closeCarrier()
}

// Gone is closed when the carrier has been closed: all is delivered, or lost.
func (c *Conn) Gone() <-chan struct{} { return c.gone }

// LocalAddr implements net.Conn with the carrier's address.
func (c *Conn) LocalAddr() net.Addr { return c.carrier.LocalAddr() }

// RemoteAddr implements net.Conn with the carrier's address.
func (c *Conn) RemoteAddr() net.Addr { return c.carrier.RemoteAddr() }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setLimit(&c.rlimit, &c.canRead, t) }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setLimit(&c.wlimit, &c.canWrite, t) }

func (c *Conn) setLimit(l *limit, waiters *sync.Cond, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("set deadline", net.ErrClosed)
	}
	l.set(t, waiters)
	return nil
}

func (c *Conn) opError(op string, err error) error {
	if err == net.ErrClosed || err == os.ErrDeadlineExceeded {
		return err // callers compare these; a wrapper would add nothing
	}
	return fmt.Errorf("%s on stream %s: %w", op, c.name, err)
}

// fail breaks the Conn, unless both directions have ended already.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	c.failLocked(err)
	c.mu.Unlock()
	c.closeCarrier()
}

func (c *Conn) failLocked(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	for _, k := range c.out {
		k.free()
	}
	c.out, c.finOwed = nil, false
	c.canRead.Broadcast()
	c.canWrite.Broadcast()
}

func (c *Conn) dropInput() {
	for _, k := range c.in {
		k.free()
	}
	c.in = nil
}

// closeCarrier ends the Conn's life.
func (c *Conn) closeCarrier() {
	c.mu.Lock()
	if c.linger != nil {
		c.linger.Stop()
	}
	first := !c.isGone()
	if first {
		close(c.gone)
	}
	c.mu.Unlock()
	if !first {
		return
	}
	c.carrier.Close()
	if c.done != nil {
		c.done()
	}
}

func (c *Conn) isGone() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}
