package muxlink

import (
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"
)

// conn is what yamux writes to and reads from. It counts, and it joins what
// yamux writes in two: the header of a frame and its data leave at once, which under
// TLS spares a record as well.
type conn struct {
	net.Conn
	received, sent atomic.Uint64
	gate           gate // of Read, which one goroutine calls

	frame *frame // a header that waits for its data; owned by yamux's one writer

	// heard is called once when the first bytes have come, and with them TLS's
	// handshake is over; not when a stream has been opened before.
	once  sync.Once
	heard func()
}

type frame [header + maxWrite]byte

var frames = sync.Pool{New: func() any { return new(frame) }}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.once.Do(c.heard)
	c.received.Add(uint64(n))
	if bad := c.gate.pass(p[:n]); bad != nil {
		return 0, bad
	}
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	if c.frame == nil {
		if !announcesData(p) {
			return c.send(p)
		}
		c.frame = frames.Get().(*frame)
		return copy(c.frame[:], p), nil
	}
	n := header + copy(c.frame[header:], p)
	_, err := c.send(c.frame[:n])
	frames.Put(c.frame)
	c.frame = nil
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// announcesData tells whether p is a header that is followed by as much data
// as fits a frame.
func announcesData(p []byte) bool {
	if len(p) != header || p[1] != typeData {
		return false
	}
	n := binary.BigEndian.Uint32(p[8:])
	return n > 0 && n <= maxWrite
}

func (c *conn) send(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.sent.Add(uint64(n))
	return n, err
}
