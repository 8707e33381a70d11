package link

import (
	"crypto/tls"
	"fmt"
	"net"
)

// maxUnproven is how many bytes a peer may send until TLS has proved who it
// is; crypto/tls alone would hold a quarter of a megabyte of certificates.
const maxUnproven = 48 << 10

// Accepted is the server's end of TLS on a connection. The handshake happens in
// the first Read, so that a slow peer holds up nobody, and there a connection
// that is for a service, by its protocol in ALPN, goes to it: cfg's
// GetConfigForClient has to offer that protocol. A service has closed the
// connection when it returns; Read's error then wraps ErrOther.
func Accepted(conn net.Conn, cfg *tls.Config, services map[string]func(*tls.Conn)) net.Conn {
	b := &bounded{Conn: conn, left: maxUnproven}
	return &accepted{Conn: tls.Server(b, cfg), raw: b, services: services}
}

type accepted struct {
	*tls.Conn
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
			serve(c.Conn)
			return 0, ErrOther
		}
	}
	return c.Conn.Read(p)
}

// bounded lets only so much through until it is free. Its Read is called by
// one goroutine at a time.
type bounded struct {
	net.Conn
	left int
	free bool
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.free {
		return b.Conn.Read(p)
	}
	if b.left <= 0 {
		return 0, fmt.Errorf("the peer sent %d bytes and has not proved who it is", maxUnproven)
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
