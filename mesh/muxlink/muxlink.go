// Package muxlink makes a link of any net.Conn, with yamux. It is the only
// package that knows yamux and the way around its traps.
package muxlink

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/link/pace"
	"github.com/ranvier-mesh/ranvier/mesh/link/records"
)

const (
	// header is the length of yamux's (its specification, "Framing").
	header = records.Plain - records.Framed
	// maxWrite bounds the data of one frame: with the header it takes
	// four records of TLS. A control message waits for the frames that
	// are queued before it, one of each stream that writes: queued bounds their
	// sum; but each may fill two records, or the work for a frame would show.
	maxWrite = 4 * records.Framed
	queued   = 512 << 10

	// Credit for a stream comes back at half a window, so a stream is as fast as
	// window / (2 RTT): far links have larger windows, to carry target bytes a second.
	nearWindow = 1 << 20
	farWindow  = 16 << 20
	target     = 200e6
)

// window is how much a stream may send ahead on a link of this round trip time.
func window(rtt time.Duration) uint32 {
	return uint32(min(max(nearWindow, 2*target*rtt.Seconds()), farWindow))
}

// rtt is the round trip time that TLS has seen in its handshake; 0 while it is not
// over, and where there is no TLS.
func rtt(conn net.Conn) time.Duration {
	if t, ok := conn.(interface{ RTT() time.Duration }); ok {
		return t.RTT()
	}
	return 0
}

// Client returns the link of the end that dialled conn. bucket bounds how fast
// it sends; nil does not.
func Client(conn net.Conn, bucket *pace.Bucket) (link.Link, error) {
	return start(conn, bucket, yamux.Client)
}

// Server returns the link of the end that accepted conn; see Client.
func Server(conn net.Conn, bucket *pace.Bucket) (link.Link, error) {
	return start(conn, bucket, yamux.Server)
}

func start(raw net.Conn, bucket *pace.Bucket, side func(io.ReadWriteCloser, *yamux.Config) (*yamux.Session, error)) (link.Link, error) {
	l := &muxLink{conn: &conn{Conn: raw}, bucket: bucket}
	cfg := config()
	l.conn.heard = func() { cfg.MaxStreamWindowSize = window(rtt(raw)) }
	cfg.MaxStreamWindowSize = window(rtt(raw)) // who dialled knows it by now
	session, err := side(l.conn, cfg)
	if err != nil {
		return nil, fmt.Errorf("start yamux: %w", err)
	}
	l.session = session
	l.over, l.end = context.WithCancel(context.Background())
	if bucket != nil {
		go func() { // for streams that wait for their turn
			<-session.CloseChan()
			l.end()
		}()
	}
	return l, nil
}

// config turns off whatever yamux does by clock: the mesh has its own
// heartbeats, StreamCloseTimeout would turn a half-closed stream into a
// clean-looking end, and the open and write timeouts would end the whole
// session because one stream waits behind bulk.
func config() *yamux.Config {
	return &yamux.Config{
		AcceptBacklog:          256,
		EnableKeepAlive:        false,
		KeepAliveInterval:      time.Hour, // unused, but must be positive
		ConnectionWriteTimeout: 24 * time.Hour,
		MaxStreamWindowSize:    nearWindow,
		StreamOpenTimeout:      0,
		StreamCloseTimeout:     0,
		LogOutput:              io.Discard,
	}
}

type muxLink struct {
	conn    *conn
	session *yamux.Session
	bucket  *pace.Bucket
	over    context.Context // of a link with a bucket: until it is over
	end     context.CancelFunc
	writers atomic.Int32 // that write to a stream now
}

func (l *muxLink) Open(context.Context) (net.Conn, error) {
	l.conn.once.Do(func() {}) // from now on windows stay as they are
	s, err := l.session.OpenStream()
	if err != nil {
		return nil, closed(err)
	}
	return l.stream(s), nil
}

func (l *muxLink) Accept() (net.Conn, error) {
	s, err := l.session.AcceptStream()
	if err != nil {
		return nil, closed(err)
	}
	return l.stream(s), nil
}

func closed(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, yamux.ErrSessionShutdown) {
		return link.ErrClosed
	}
	return fmt.Errorf("%w: %w", link.ErrClosed, err)
}

// Close closes the connection first: yamux would otherwise wait for what is
// being written to a peer that no longer reads.
func (l *muxLink) Close() error {
	l.conn.Close()
	return l.session.Close()
}

// Known implements link.Wary.
func (l *muxLink) Known() { l.conn.gate.known.Store(true) }

func (l *muxLink) Done() <-chan struct{} { return l.session.CloseChan() }

func (l *muxLink) Traffic() (received, sent uint64) {
	return l.conn.received.Load(), l.conn.sent.Load()
}

// PeerCertificates implements link.Authenticated: it finds the TLS among the
// layers below.
func (l *muxLink) PeerCertificates() []*x509.Certificate {
	for conn := l.conn.Conn; conn != nil; {
		if t, ok := conn.(interface{ ConnectionState() tls.ConnectionState }); ok {
			return t.ConnectionState().PeerCertificates
		}
		inner, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		conn = inner.NetConn()
	}
	return nil
}

func (l *muxLink) LocalAddr() net.Addr  { return l.conn.LocalAddr() }
func (l *muxLink) RemoteAddr() net.Addr { return l.conn.RemoteAddr() }

// control is yamux's number of the first stream that the dialler opens. Its
// messages are counted against the rate and not held back.
const control = 1

// stream keeps yamux's frames small, and to the link's rate.
type stream struct {
	*yamux.Stream
	link *muxLink
	turn context.Context // of a Write that waits for its turn
	stop context.CancelFunc
}

func (l *muxLink) stream(s *yamux.Stream) *stream {
	st := &stream{Stream: s, link: l}
	if l.bucket != nil {
		st.turn, st.stop = context.WithCancel(l.over)
	}
	return st
}

func (s *stream) Write(p []byte) (int, error) {
	switch bucket := s.link.bucket; {
	case bucket == nil:
		return s.write(p)
	case s.StreamID() == control:
		bucket.Spend(len(p))
		return s.write(p)
	default:
		return bucket.Write(s.turn, p, s.write)
	}
}

func (s *stream) write(p []byte) (int, error) {
	total := 0
	for {
		n, err := s.Stream.Write(p[total:min(len(p), total+s.link.begin())])
		s.link.writers.Add(-1)
		total += n
		if err != nil || total == len(p) {
			return total, err
		}
	}
}

// Close ends a Write that waits for its turn as well.
func (s *stream) Close() error {
	if s.stop != nil {
		s.stop()
	}
	return s.Stream.Close()
}

// begin counts a writer and tells how much it may write at once.
func (l *muxLink) begin() int {
	fair := queued / int(l.writers.Add(1)) / records.Plain
	return max(2, min(4, fair)) * records.Framed
}
