// Package muxlink makes a link of any net.Conn, with the frames of yamux.
package muxlink

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

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

	// firstWindow is how much may be sent on a stream before the other end says
	// more. Credit for a stream comes back at half a window, so a stream is as fast as
	// window / (2 RTT): far links have larger windows, to carry target bytes a second.
	firstWindow = 256 << 10
	nearWindow  = 1 << 20
	farWindow   = 16 << 20
	target      = 200e6
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
	return start(conn, bucket, 1)
}

// Server returns the link of the end that accepted conn; see Client.
func Server(conn net.Conn, bucket *pace.Bucket) (link.Link, error) {
	return start(conn, bucket, 2)
}

func start(raw net.Conn, bucket *pace.Bucket, first uint32) (link.Link, error) {
	l := &muxLink{conn: &conn{Conn: raw}, bucket: bucket}
	l.session = newSession(l.conn, first, sync.OnceValue(func() uint32 { return window(rtt(raw)) }))
	l.over, l.end = context.WithCancel(context.Background())
	if bucket != nil {
		go func() { // for streams that wait for their turn
			<-l.session.done
			l.end()
		}()
	}
	return l, nil
}

var (
	_ link.Wary    = (*muxLink)(nil)
	_ link.Counted = (*muxLink)(nil)
)

type muxLink struct {
	conn    *conn
	session *session
	bucket  *pace.Bucket
	over    context.Context // of a link with a bucket: until it is over
	end     context.CancelFunc
	writers atomic.Int32 // that write to a stream now
}

func (l *muxLink) Open(ctx context.Context) (net.Conn, error) {
	s, err := l.session.open(ctx)
	if err != nil {
		return nil, l.closed(err)
	}
	return l.stream(s), nil
}

func (l *muxLink) Accept() (net.Conn, error) {
	s, err := l.session.accept()
	if err != nil {
		return nil, l.closed(err)
	}
	return l.stream(s), nil
}

func (l *muxLink) closed(err error) error {
	select {
	case <-l.session.done:
	default:
		return err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, link.ErrClosed) {
		return link.ErrClosed
	}
	return fmt.Errorf("%w: %w", link.ErrClosed, err)
}

func (l *muxLink) Close() error {
	l.session.end(link.ErrClosed)
	return nil
}

// Streams implements link.Counted.
func (l *muxLink) Streams() int { return l.session.count() }

// Known implements link.Wary.
func (l *muxLink) Known() { l.conn.known.Store(true) }

func (l *muxLink) Done() <-chan struct{} { return l.session.done }

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
	*muxStream
	link *muxLink
	turn context.Context // of a Write that waits for its turn
	stop context.CancelFunc
}

func (l *muxLink) stream(s *muxStream) *stream {
	st := &stream{muxStream: s, link: l}
	if l.bucket != nil {
		st.turn, st.stop = context.WithCancel(l.over)
	}
	return st
}

func (s *stream) Write(p []byte) (int, error) {
	switch bucket := s.link.bucket; {
	case bucket == nil:
		return s.write(p)
	case s.id == control:
		bucket.Spend(len(p))
		return s.write(p)
	default:
		return bucket.Write(s.turn, p, s.write)
	}
}

func (s *stream) write(p []byte) (int, error) {
	total := 0
	for {
		n, err := s.muxStream.Write(p[total:min(len(p), total+s.link.begin())])
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
	return s.muxStream.Close()
}

// begin counts a writer and tells how much it may write at once.
func (l *muxLink) begin() int {
	fair := queued / int(l.writers.Add(1)) / records.Plain
	return max(2, min(4, fair)) * records.Framed
}
