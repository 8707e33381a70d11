package muxlink

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
)

// maxUnknown is how many bytes a peer may send until it is known: a list of
// revocations and a Hello fit.
const maxUnknown = 96 << 10

var errUnknown = errors.New("the peer sends too much and is not known yet")

// conn counts what comes and goes.
type conn struct {
	net.Conn
	received, sent atomic.Uint64
	known          atomic.Bool // the peer
}

// frame is the header and the data of one: they leave at once, which under TLS
// spares a record as well.
type frame [header + maxWrite]byte

var frames = sync.Pool{New: func() any { return new(frame) }}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.received.Add(uint64(n)) > maxUnknown && !c.known.Load() {
		return 0, errUnknown
	}
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.sent.Add(uint64(n))
	return n, err
}
