// Package tcplink carries links over TCP.
package tcplink

import (
	"context"
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/muxlink"
)

// Transport implements link.Transport over TCP; addresses are host:port.
// Names are resolved at every Dial.
type Transport struct{}

// Dial implements link.Transport.
func (Transport) Dial(ctx context.Context, addr string) (link.Link, error) {
	d := net.Dialer{Control: tune, KeepAlive: -1} // the mesh's heartbeats are the keepalive
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return muxlink.Client(conn)
}

// Listen implements link.Transport.
func (Transport) Listen(ctx context.Context, addr string) (link.Listener, error) {
	lc := net.ListenConfig{Control: tune, KeepAlive: -1}
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &listener{l}, nil
}

type listener struct{ net.Listener }

func (l *listener) Accept() (link.Link, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return muxlink.Server(conn)
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
