package quiclink

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/link/pace"
)

// quicLink is a connection of QUIC.
type quicLink struct {
	conn   *quic.Conn
	socket *socket
	bucket *pace.Bucket
}

// Open implements link.Link. The peer hears of the stream with its first bytes.
func (l *quicLink) Open(context.Context) (net.Conn, error) {
	s, err := l.conn.OpenStream()
	if errors.Is(err, &quic.StreamLimitReachedError{}) {
		return nil, fmt.Errorf("%w: %w", link.ErrBusy, err)
	}
	if err != nil {
		return nil, l.closed(err)
	}
	return l.stream(s), nil
}

// Accept implements link.Link.
func (l *quicLink) Accept() (net.Conn, error) {
	s, err := l.conn.AcceptStream(context.Background())
	if err != nil {
		return nil, l.closed(err)
	}
	return l.stream(s), nil
}

func (l *quicLink) stream(s *quic.Stream) *stream {
	// The dialler's first stream is the control stream: its messages go before
	// all other data, and are counted against the rate but not held back.
	control := s.StreamID() == 0
	if control {
		s.SetPriority(0, false)
	}
	st := &stream{quic: s, link: l, control: control, turn: context.Background(), stop: func() {}}
	if l.bucket != nil {
		st.turn, st.stop = context.WithCancel(s.Context())
	}
	return st
}

func (l *quicLink) closed(err error) error {
	var app *quic.ApplicationError
	if errors.As(err, &app) && app.ErrorCode == 0 {
		return link.ErrClosed
	}
	return fmt.Errorf("%w: %w", link.ErrClosed, err)
}

// Close implements link.Link; the peer is told.
func (l *quicLink) Close() error { return l.conn.CloseWithError(0, "") }

// Done implements link.Link.
func (l *quicLink) Done() <-chan struct{} { return l.conn.Context().Done() }

// Traffic implements link.Link.
func (l *quicLink) Traffic() (received, sent uint64) {
	stats := l.conn.ConnectionStats()
	return stats.BytesReceived, stats.BytesSent
}

// PeerCertificates implements link.Authenticated.
func (l *quicLink) PeerCertificates() []*x509.Certificate {
	return l.conn.ConnectionState().TLS.PeerCertificates
}

// LocalAddr implements link.Link.
func (l *quicLink) LocalAddr() net.Addr { return l.conn.LocalAddr() }

// RemoteAddr implements link.Link.
func (l *quicLink) RemoteAddr() net.Addr { return l.conn.RemoteAddr() }

// stream is a stream of QUIC as a net.Conn.
type stream struct {
	quic    *quic.Stream
	link    *quicLink
	control bool
	turn    context.Context // of a Write that waits for its turn under a rate
	stop    context.CancelFunc

	writing sync.Mutex // held by Write, and by Close in the end
	over    atomic.Bool
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.quic.Read(p)
	return n, s.own(err)
}

func (s *stream) Write(p []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.over.Load() {
		return 0, net.ErrClosed
	}
	var n int
	var err error
	if s.control {
		s.link.bucket.Spend(len(p))
		n, err = s.quic.Write(p)
	} else {
		n, err = s.link.bucket.Write(s.turn, p, s.quic.Write)
	}
	return n, s.own(err)
}

// own gives errors that follow from a Close at this end their usual name.
func (s *stream) own(err error) error {
	if err != nil && s.over.Load() {
		return net.ErrClosed
	}
	return err
}

// Close ends both directions. The peer reads what has been written; a Write
// that still waits fails, for QUIC does not allow to close under it.
func (s *stream) Close() error {
	if s.over.Swap(true) {
		return nil
	}
	s.stop()
	s.quic.CancelRead(0)
	s.quic.SetWriteDeadline(time.Unix(1, 0))
	s.writing.Lock()
	defer s.writing.Unlock()
	s.quic.Close() // its only error is that the peer had ended the stream already
	return nil
}

func (s *stream) LocalAddr() net.Addr                { return s.link.LocalAddr() }
func (s *stream) RemoteAddr() net.Addr               { return s.link.RemoteAddr() }
func (s *stream) SetDeadline(t time.Time) error      { return s.quic.SetDeadline(t) }
func (s *stream) SetReadDeadline(t time.Time) error  { return s.quic.SetReadDeadline(t) }
func (s *stream) SetWriteDeadline(t time.Time) error { return s.quic.SetWriteDeadline(t) }
