package link

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"

	"github.com/ranvier-mesh/ranvier/mesh/link/records"
)

// maxUnproven is how many bytes a peer may send until TLS has proved who it
// is: its certificates are most of it. crypto/tls alone would hold a quarter of
// a megabyte; so, with all else of a connection, it is less than 64 KiB.
const maxUnproven = 12 << 10

// Accepted is the server's end of TLS on a connection. The handshake happens in
// the first Read, so that a slow peer holds up nobody, and there a connection
// that is for a service, by its protocol in ALPN, goes to it: cfg's
// GetConfigForClient has to offer that protocol. A service has closed the
// connection when it returns; Read's error then wraps ErrOther.
func Accepted(conn net.Conn, cfg *tls.Config, services map[string]func(*tls.Conn)) net.Conn {
	b := &bounded{Conn: conn, left: maxUnproven}
	return &accepted{Conn: records.Server(b, cfg), raw: b, services: services}
}

type accepted struct {
	*records.Conn
	raw      *bounded
	services map[string]func(*tls.Conn)
	known    bool // owned by Read
}

func (c *accepted) Read(p []byte) (int, error) {
	if !c.known {
		if err := c.Handshake(); err != nil {
			return 0, err
		}
		c.known, c.raw.free = true, true
		if serve := c.services[c.ConnectionState().NegotiatedProtocol]; serve != nil {
			serve(c.Conn.Conn)
			return 0, ErrOther
		}
	}
	return c.Conn.Read(p)
}

// Unproven bounds what comes below TLS until Free is called: for servers that do
// the handshake themselves.
type Unproven struct{ bounded }

// NewUnproven bounds a connection that TLS is spoken on.
func NewUnproven(conn net.Conn) *Unproven {
	return &Unproven{bounded{Conn: conn, left: maxUnproven}}
}

// Free lifts the bound. No Read may be under way.
func (u *Unproven) Free() { u.free = true }

// bounded lets only so much through until it is free, and of that one record of
// TLS at a time: crypto/tls has buffers for as much as a record says that it
// has, and for what came with it. Its Read is called by one goroutine at a time.
type bounded struct {
	net.Conn
	left   int
	free   bool
	header []byte // what was read of the next record's header
	record int    // bytes that are left of the record
}

const recordHeader = 5 // type, version, length (RFC 8446 section 5.1)

func (b *bounded) Read(p []byte) (int, error) {
	if b.free {
		return b.Conn.Read(p)
	}
	most := b.record
	if most == 0 {
		most = recordHeader - len(b.header)
	}
	n, err := b.Conn.Read(p[:min(len(p), most)])
	b.left -= n
	if b.record > 0 {
		b.record -= n
	} else if b.header = append(b.header, p[:n]...); len(b.header) == recordHeader {
		kind := b.header[0]
		b.record, b.header = int(binary.BigEndian.Uint16(b.header[3:])), b.header[:0]
		if kind < 20 || kind > 24 {
			// It is no TLS, which crypto/tls says. The answer to that would be lost
			// if what else has come were not read.
			b.record = 0
			more, _ := b.Conn.Read(p[n:])
			return n + more, err
		}
	}
	if b.left < b.record {
		return 0, fmt.Errorf("the peer sent more than %d bytes and has not proved who it is", maxUnproven)
	}
	return n, err
}
