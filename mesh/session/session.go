// Package session makes a net.Conn of carriers: connections that keep their
// contents secret and whole, but may end at any moment without saying whether
// all arrived. A session goes on over the next carrier where the last one broke off;
// its users see a pause (docs/protocol.md sections 6.4 and 6.5). It knows no mesh.
package session

import (
	"context"
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
	// GiveUp is how long a broken session waits for another carrier where
	// Config does not say.
	GiveUp = time.Minute
	// resetTime is how long the peer may take to be told of a Reset.
	resetTime = time.Second
)

// Carrier is a way to the peer. Conn must keep what it carries from being read
// or changed; its Close must end a Read or Write that is under way. One
// goroutine reads and another writes; no deadline is set.
type Carrier struct {
	Conn io.ReadWriteCloser
	Way  string        // for error messages: "via a → b"
	RTT  time.Duration // to the peer and back, about
}

// Config is what a session needs beside its first carrier.
type Config struct {
	Name          string // of the stream, for error messages
	Local, Remote net.Addr
	// Token names the session to the peer. Only the two ends may know it.
	Token [wire.TokenLen]byte
	// Redial makes another carrier. It is nil at the end that was dialled, which
	// gets them by Resume. attempt counts from 0 with each break, cause is why the
	// last carrier was lost or the last attempt failed; an error that
	// wraps ErrLost ends the session. One call is made at a time.
	Redial func(ctx context.Context, attempt int, cause error) (Carrier, error)
	// GiveUp is how long the session waits for a carrier; 0 means GiveUp,
	// less that it does not wait.
	GiveUp time.Duration
	// Budget is shared with other sessions. It must not be nil.
	Budget *Budget
	// Done, where it is not nil, is called once when the session is over.
	Done func()
}

// Conn is a net.Conn with half-close. Its methods may be called from several
// goroutines.
//
//	          carrier ends or stalls
//	attached ───────────────────────► broken ──GiveUp, ErrLost──► over, with an error
//	    ▲                               │
//	    └──Redial (dialler), Resume─────┘
//	attached ──both ends have said over, or Reset──► over
//
// What the machine knows is guarded by mu. The goroutines: receive, one for
// each carrier as long as it lives; send, while there is something to write;
// redial, at the dialling end while there is no carrier. A carrier that was given up leaves
// its goroutines to end by themselves: they find that it is not c.now any more.
// One timer wakes the machine. An idle session is one goroutine and no buffer.
type Conn struct {
	cfg  Config
	gone chan struct{}
	ctx  context.Context // of redial; ends with the session
	stop context.CancelFunc

	mu       sync.Mutex
	m        machine
	now      *carrier // nil while broken and when over
	way      string
	number   uint32 // of the last carrier
	attempt  int    // of redial since the last new break (machine.detach)
	cause    error  // why the last carrier was lost
	err      error  // of Read and Write, once the session has failed
	timer    *time.Timer
	timerAt  time.Time // zero while the timer does not run
	wlimit   limit
	rlimit   limit
	canRead  sync.Cond
	canWrite sync.Cond
}

// New starts a session over its first carrier and owns that from now on.
func New(first Carrier, cfg Config) *Conn {
	if cfg.GiveUp == 0 {
		cfg.GiveUp = GiveUp
	}
	c := &Conn{cfg: cfg, gone: make(chan struct{})}
	c.ctx, c.stop = context.WithCancel(context.Background())
	c.m = machine{
		dialler: cfg.Redial != nil,
		giveUp:  max(0, cfg.GiveUp),
		out:     ring{budget: cfg.Budget, limit: firstWindow},
		in:      inbox{budget: cfg.Budget, window: firstWindow, told: firstWindow},
	}
	c.canWrite.L = &c.mu
	c.canRead.L = &c.mu
	c.mu.Lock()
	defer c.mu.Unlock()
	c.attach(first, nil)
	return c
}

// Read implements net.Conn. It returns io.EOF only after the peer's FIN and
// all that came before it.
func (c *Conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.m.closed:
			return 0, c.opError("read", net.ErrClosed)
		case c.rlimit.passed:
			return 0, c.opError("read", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return 0, nil
		}
		if n := c.m.in.take(p); n > 0 {
			if c.m.in.due() {
				c.m.told = true
				c.startSending()
			}
			return n, nil
		}
		switch {
		case c.m.finGot:
			return 0, io.EOF
		case c.err != nil:
			return 0, c.err
		}
		c.canRead.Wait()
	}
}

// Write implements net.Conn. What it accepted is delivered in the background,
// as far as the peer's window and the budget let it be taken.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	total := 0
	for {
		switch {
		case c.m.finQueued:
			return total, c.opError("write", net.ErrClosed)
		case c.wlimit.passed:
			return total, c.opError("write", os.ErrDeadlineExceeded)
		case c.err != nil:
			return total, c.err
		case c.m.peerClosed:
			return total, c.opError("write", ErrPeerClosed)
		case total == len(p):
			return total, nil
		}
		if n := c.m.out.put(p[total:]); n > 0 {
			total += n
			c.startSending()
			continue
		}
		c.m.stuck()
		c.startSending()
		c.canWrite.Wait()
	}
}

// CloseWrite sends a FIN after what was written; Read goes on.
func (c *Conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m.closed {
		return c.opError("close", net.ErrClosed)
	}
	if !c.m.finQueued && c.err == nil {
		c.m.finQueued = true
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
	if c.m.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.m.finQueued, c.m.closed = true, true
	c.rlimit.stop()
	c.wlimit.stop()
	c.m.in.discard()
	c.canRead.Broadcast()
	c.canWrite.Broadcast()
	c.startSending()
	return nil
}

// Reset ends the stream at once, in both directions, and tells the peer why
// if it can.
func (c *Conn) Reset(code wire.Code, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail(fmt.Errorf("stream %s: reset here: %v: %s", c.name(), code, reason), &wire.Reset{Code: code, Reason: reason})
}

// Gone is closed when the session is over: all is delivered, or lost.
func (c *Conn) Gone() <-chan struct{} { return c.gone }

// Connected reports whether the stream has a carrier now. Without one what is
// written waits for another.
func (c *Conn) Connected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now != nil
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.cfg.Local }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.cfg.Remote }

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
	if c.m.closed {
		return c.opError("set deadline", net.ErrClosed)
	}
	l.set(t, waiters)
	return nil
}

func (c *Conn) opError(op string, err error) error {
	if err == net.ErrClosed || err == os.ErrDeadlineExceeded {
		return err // callers compare these; a wrapper would add nothing
	}
	return fmt.Errorf("%s on stream %s: %w", op, c.name(), err)
}

// name is the stream's, with its present or last way.
func (c *Conn) name() string {
	if c.way == "" {
		return c.cfg.Name
	}
	return c.cfg.Name + " (" + c.way + ")"
}

func (c *Conn) isGone() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}
