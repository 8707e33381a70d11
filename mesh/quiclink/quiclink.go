// Package quiclink carries links over QUIC; a stream of the link is a stream
// of QUIC (docs/protocol.md section 4.1). It is the only package that knows
// quic-go.
package quiclink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/link/pace"
)

const (
	// alpn is the protocol's name in TLS.
	alpn = "ranvier/1"
	// idle is longer than the mesh bears with a silent link, which it notices
	// by its own heartbeats.
	idle = 90 * time.Second
	// maxStreams is more than the mesh admits on a link.
	maxStreams = 1 << 15
	// A stream begins with a small window, which grows while its reader keeps
	// up: the memory that streams take whose readers do not is what counts.
	// connWindow bounds their sum on one link. It is far above what one stream
	// may take, since it holds up the control stream too.
	firstWindow  = 64 << 10
	streamWindow = 12 << 20
	connWindow   = 256 << 20
	// unproven is how many connections a second may begin without a proof
	// that their address is not forged; more than those cost a round trip.
	unproven = 50
	// maxHandshakes is how many peers of one listener may have begun and not be
	// accepted yet. From a quarter of that on each has to prove its address, so
	// that nobody takes places in the names of others.
	maxHandshakes = 256
	proofFrom     = maxHandshakes / 4
)

// errCrowded refuses a connection; the peer is told no more than that.
var errCrowded = errors.New("too many peers connect at once")

// Config has what a Transport needs beside addresses.
type Config struct {
	// TLSServer and TLSClient are the settings of the two ends; their
	// NextProtos and MinVersion are not looked at. Where one is nil, a key that
	// was made for this process stands in: that stops a recorder, not a man in
	// the middle.
	TLSServer, TLSClient *tls.Config
	// Resolver looks names up; nil for the system's.
	Resolver *net.Resolver
	// Log gets a warning when the system's UDP buffers are small; nil for none.
	Log *slog.Logger
}

// Transport implements link.Configurable over QUIC; addresses are host:port.
// Names are resolved at every Dial, and their addresses tried in turn.
type Transport struct {
	server, client *tls.Config
	resolver       *net.Resolver
	log            *slog.Logger
	warned         *sync.Once
	options        link.Options
}

// New returns a transport. The error is that of making a key.
func New(c Config) (*Transport, error) {
	t := &Transport{resolver: c.Resolver, log: c.Log, warned: new(sync.Once)}
	if t.resolver == nil {
		t.resolver = net.DefaultResolver
	}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	own := &tls.Config{InsecureSkipVerify: true} // there is no identity to check yet
	if c.TLSServer == nil || c.TLSClient == nil {
		cert, err := selfMade()
		if err != nil {
			return nil, fmt.Errorf("make a key for QUIC: %w", err)
		}
		own.Certificates = []tls.Certificate{cert}
	}
	t.server, t.client = strict(c.TLSServer, own), strict(c.TLSClient, own)
	return t, nil
}

func strict(c, own *tls.Config) *tls.Config {
	if c == nil {
		c = own
	}
	c = c.Clone()
	c.MinVersion = tls.VersionTLS13
	c.NextProtos = []string{alpn}
	return c
}

// With implements link.Configurable. The rate bounds the data of streams;
// QUIC's own headers, and what it sends again after a loss, come on top.
func (t *Transport) With(o link.Options) link.Transport {
	with := *t
	with.options = o
	if o.ServerTLS != nil {
		with.server = strict(o.ServerTLS, nil)
	}
	return &with
}

func config() *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:           5 * time.Second,
		MaxIdleTimeout:                 idle,
		InitialStreamReceiveWindow:     firstWindow,
		MaxStreamReceiveWindow:         streamWindow,
		InitialConnectionReceiveWindow: connWindow,
		MaxConnectionReceiveWindow:     connWindow,
		MaxIncomingStreams:             maxStreams,
		MaxIncomingUniStreams:          -1,
	}
}

// Listen implements link.Transport.
func (t *Transport) Listen(ctx context.Context, addr string) (link.Listener, error) {
	var lc net.ListenConfig
	pc, err := lc.ListenPacket(ctx, "udp", addr)
	if err != nil {
		return nil, err
	}
	e := newEntrance(t.log)
	s := &socket{
		transport: &quic.Transport{Conn: pc, VerifySourceAddress: e.prove, ConnContext: e.enter},
		conn:      pc, users: 1,
	}
	l, err := s.transport.Listen(t.server, config())
	if err != nil {
		s.release()
		return nil, fmt.Errorf("listen on UDP %s: %w", addr, err)
	}
	t.checkBuffers(pc)
	return &listener{quic: l, socket: s, options: t.options}, nil
}

type listener struct {
	quic    *quic.Listener
	socket  *socket
	options link.Options
	once    sync.Once
}

func (l *listener) Accept() (link.Link, error) {
	conn, err := l.quic.Accept(context.Background())
	if errors.Is(err, quic.ErrServerClosed) {
		return nil, fmt.Errorf("%w: %w", net.ErrClosed, err)
	}
	if err != nil {
		return nil, err
	}
	leave(conn)
	return newLink(conn, l.socket.share(), l.options), nil
}

// Close leaves the socket open for as long as links use it.
func (l *listener) Close() error {
	var err error
	l.once.Do(func() {
		err = l.quic.Close()
		l.socket.release()
	})
	return err
}

func (l *listener) Addr() net.Addr { return l.quic.Addr() }

// Dial implements link.Transport. When it returns, the peer has proved who it
// is; the name to prove is TLSClient.ServerName, or addr's host.
func (t *Transport) Dial(ctx context.Context, addr string) (link.Link, error) {
	failed := func(to net.Addr, err error) error {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return &net.OpError{Op: "dial", Net: "udp", Addr: to, Err: err}
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, failed(nil, err)
	}
	number, err := t.resolver.LookupPort(ctx, "udp", port)
	if err != nil {
		return nil, failed(nil, err)
	}
	ips, err := t.resolver.LookupIPAddr(ctx, host)
	if err != nil {
		return nil, failed(nil, err)
	}
	config := t.client.Clone()
	if t.options.ClientTLS != nil {
		config = strict(t.options.ClientTLS(host), nil)
	}
	if config.ServerName == "" {
		config.ServerName = host
	}
	for i, ip := range ips {
		to := &net.UDPAddr{IP: ip.IP, Zone: ip.Zone, Port: number}
		var k link.Link
		if k, err = t.dialOne(ctx, to, config, len(ips)-i); err == nil {
			return k, nil
		}
		if err = failed(to, err); ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// dialOne dials the first of several addresses, so it takes its part of the
// time that ctx leaves.
func (t *Transport) dialOne(ctx context.Context, to *net.UDPAddr, config *tls.Config, several int) (link.Link, error) {
	if deadline, ok := ctx.Deadline(); ok && several > 1 {
		part, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(several))
		defer cancel()
		ctx = part
	}
	udp, err := net.DialUDP("udp", nil, to)
	if err != nil {
		return nil, err
	}
	pc := connected{udp}
	s := &socket{transport: &quic.Transport{Conn: pc}, conn: pc, users: 1}
	conn, err := s.transport.Dial(ctx, to, config, configOf(ctx))
	if err != nil {
		s.release()
		return nil, err
	}
	t.checkBuffers(udp)
	return newLink(conn, s, t.options), nil
}

// configOf bounds the handshake by ctx alone where it has a deadline.
func configOf(ctx context.Context) *quic.Config {
	c := config()
	if deadline, ok := ctx.Deadline(); ok {
		c.HandshakeIdleTimeout = max(time.Until(deadline), time.Millisecond)
	}
	return c
}

// newLink makes a link of a connection and takes over one use of the socket.
func newLink(conn *quic.Conn, s *socket, o link.Options) *quicLink {
	l := &quicLink{conn: conn, socket: s, bucket: pace.New(o.Rate)}
	context.AfterFunc(conn.Context(), func() {
		// Close waits until the connection has said good-bye, whoever began.
		conn.CloseWithError(0, "")
		s.release()
	})
	return l
}
