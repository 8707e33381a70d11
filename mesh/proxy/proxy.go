// Package proxy joins other programs with services of the mesh: sockets of this
// host whose connections go to a service of a node, and services whose streams
// go to an address or to a command (docs/config.md "Services").
//
// A half-closed connection stays half-closed at the other end, one that breaks
// is reset there, and one that is not read stops its own sender and nobody else.
package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"golang.org/x/time/rate"

	"github.com/ranvier-mesh/ranvier/internal/wire"
)

const (
	// maxConns is how many connections one item may have at a time.
	maxConns = 4096
	// dialTime is how long the other side may take to be there, and a TLS
	// handshake to be done.
	dialTime = 10 * time.Second
)

// resetCode is told to the other end where this one's connection broke.
const resetCode = wire.CodeLinkDown

// Stream is a stream of the mesh; *mesh.Conn is one.
type Stream interface {
	net.Conn
	// CloseWrite ends this direction; the other one goes on.
	CloseWrite() error
	// Reset ends the stream at once and tells the other end why.
	Reset(code wire.Code, reason string)
	// Gone is closed when the stream is over at both ends.
	Gone() <-chan struct{}
}

// Dial opens a stream to the service of the mesh that an item leads to.
type Dial func(ctx context.Context) (Stream, error)

// errBusy is told where an item has as many connections as it may have.
var errBusy = fmt.Errorf("there are %d connections already", maxConns)

// slots bounds how much goes on at a time.
type slots chan struct{}

func (s slots) take() bool {
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s slots) give() { <-s }

// meshSide is a stream as one side of a bridge, with TLS of its own within where
// the file asks for it.
func meshSide(s Stream, c *tls.Conn) side {
	return side{
		halves: halvesOf(s, c), mesh: true, close: func() { s.Close() },
		abort: func(why error) { s.Reset(resetCode, why.Error()) },
	}
}

// hostSide is a connection of this host as one side of a bridge.
func hostSide(conn net.Conn, c *tls.Conn) side {
	return side{halves: halvesOf(conn, c), close: func() { conn.Close() }, abort: func(error) {
		if t, ok := conn.(*net.TCPConn); ok {
			t.SetLinger(0) // the program at its other end is to see a reset
		}
		conn.Close()
	}}
}

// halvesOf is the connection, or the TLS within it where there is one.
func halvesOf(conn net.Conn, c *tls.Conn) halves {
	if c != nil {
		return c
	}
	if h, ok := conn.(halves); ok {
		return h
	}
	return noHalves{conn}
}

// noHalves is a connection that cannot be half-closed: it is closed.
type noHalves struct{ net.Conn }

func (n noHalves) CloseWrite() error { return n.Close() }

// shake does a TLS handshake, in its time.
func shake(ctx context.Context, c *tls.Conn) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return c, nil
}

func server(ctx context.Context, conn net.Conn, cfg *tls.Config) (*tls.Conn, error) {
	if cfg == nil {
		return nil, nil
	}
	return shake(ctx, tls.Server(conn, cfg))
}

func client(ctx context.Context, conn net.Conn, cfg *tls.Config) (*tls.Conn, error) {
	if cfg == nil {
		return nil, nil
	}
	return shake(ctx, tls.Client(conn, cfg))
}

// tellEnd logs how a bridge has ended. What happens at this host's side is the
// programs' own business.
func tellEnd(log *slog.Logger, err error) {
	broken := (*sideError)(nil)
	switch {
	case err == nil:
	case errors.As(err, &broken) && broken.mesh && !errors.Is(err, context.Canceled):
		log.Warn("a connection broke", "err", err)
	default:
		log.Debug("a connection was cut", "err", err)
	}
}

// sparingly is a logger's companion: what clients can repeat at will is told
// no more than once a second.
func sparingly() *rate.Sometimes { return &rate.Sometimes{First: 5, Interval: time.Second} }

// halves is a connection whose ends can be closed one by one.
type halves interface {
	io.ReadWriter
	CloseWrite() error
}
