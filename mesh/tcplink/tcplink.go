// Package tcplink carries links over TCP, with TLS 1.3 or without
// (docs/protocol.md section 4.1).
package tcplink

import (
	"cmp"
	"context"
	"crypto/tls"
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/link/pace"
	"github.com/ranvier-mesh/ranvier/mesh/link/records"
	"github.com/ranvier-mesh/ranvier/mesh/muxlink"
)

// Transport implements link.Configurable over TCP; addresses are host:port.
// Names are resolved at every Dial.
type Transport struct {
	// ServerTLS and ClientTLS, where they are not nil, put TLS 1.3 on the
	// links that are accepted and dialled; their NextProtos are not looked at, and
	// their MinVersion is 1.3 where it says nothing. A nil one means plain TCP.
	ServerTLS, ClientTLS *tls.Config
	// Services are other protocols on the same listeners; see link.Accepted.
	Services map[string]func(*tls.Conn)
	Resolver *net.Resolver // looks names up; nil for the system's
	Options  link.Options
}

// alpn is the protocol's name in TLS.
const alpn = "ranvier/1"

// With implements link.Configurable.
func (t Transport) With(o link.Options) link.Transport {
	t.Options = o
	if o.ServerTLS != nil {
		t.ServerTLS, t.Services = o.ServerTLS, nil
	}
	return t
}

// Dial implements link.Transport. With TLS the peer has proved who it is when
// it returns; the name to prove is ClientTLS.ServerName, or addr's host.
func (t Transport) Dial(ctx context.Context, addr string) (link.Link, error) {
	d := net.Dialer{Resolver: t.Resolver, Control: tune, KeepAlive: -1} // the mesh's heartbeats are the keepalive
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if cfg := t.clientConfig(addr); cfg != nil {
		secured := records.Client(conn, cfg)
		if err := secured.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: conn.RemoteAddr(), Err: err}
		}
		conn = secured
	}
	return muxlink.Client(conn, pace.New(t.Options.Rate))
}

// Listen implements link.Transport.
func (t Transport) Listen(ctx context.Context, addr string) (link.Listener, error) {
	lc := net.ListenConfig{Control: tune, KeepAlive: -1}
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &listener{Listener: l, tls: strict(t.ServerTLS), services: t.Services, options: t.Options}, nil
}

type listener struct {
	net.Listener
	tls      *tls.Config // nil: none
	services map[string]func(*tls.Conn)
	options  link.Options
}

// Accept leaves the TLS handshake to the link's first read, so that a slow
// peer holds up nobody.
func (l *listener) Accept() (link.Link, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if l.tls != nil {
		conn = link.Accepted(conn, l.tls, l.services)
	}
	return muxlink.Server(conn, pace.New(l.options.Rate))
}

// clientConfig returns the settings of a link to addr; nil for plain TCP.
func (t Transport) clientConfig(addr string) *tls.Config {
	host, _, _ := net.SplitHostPort(addr)
	if t.Options.ClientTLS != nil {
		return strict(t.Options.ClientTLS(host))
	}
	c := strict(t.ClientTLS)
	if c != nil && c.ServerName == "" {
		c.ServerName = host
	}
	return c
}

// strict is c for links alone; nil of nil.
func strict(c *tls.Config) *tls.Config {
	if c == nil {
		return nil
	}
	c = c.Clone()
	c.MinVersion = cmp.Or(c.MinVersion, tls.VersionTLS13)
	c.NextProtos = []string{alpn}
	c.DynamicRecordSizingDisabled = true // small records cost, and help browsers only
	return c
}

// notSentLowat bounds what waits unsent in the kernel: without it a control
// message stands behind seconds of bulk on a slow uplink.
const notSentLowat = 64 << 10

func tune(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		// A kernel without the option only loses the shorter queue.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSentLowat)
	})
}
