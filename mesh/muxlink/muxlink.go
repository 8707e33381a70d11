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
	"github.com/ranvier-mesh/ranvier/mesh/link/records"
)

const (
	// header is the length of yamux's (its specification, "Framing").
	header = 12
	// maxWrite bounds the data of one frame: with the header it
	// fills four records of TLS. A control message waits for the frames that
	// are queued before it, one of each stream that writes: queued bounds their
	// sum; but each may fill a record.
	maxWrite = 4*records.Plain - header
	queued   = 512 << 10
)

// Client returns the link of the end that dialled conn. A conn with a method
// MaxWrite() int gets no larger writes of a stream's data than that.
func Client(conn net.Conn) (link.Link, error) { return start(conn, yamux.Client) }

// Server returns the link of the end that accepted conn; see Client.
func Server(conn net.Conn) (link.Link, error) { return start(conn, yamux.Server) }

func start(raw net.Conn, side func(io.ReadWriteCloser, *yamux.Config) (*yamux.Session, error)) (link.Link, error) {
	l := &muxLink{conn: &conn{Conn: raw}, maxWrite: maxWrite}
	if paced, ok := raw.(interface{ MaxWrite() int }); ok {
		l.maxWrite = min(l.maxWrite, paced.MaxWrite()-header)
	}
	session, err := side(l.conn, config())
	if err != nil {
		return nil, fmt.Errorf("start yamux: %w", err)
	}
	l.session = session
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
		MaxStreamWindowSize:    1 << 20,
		StreamOpenTimeout:      0,
		StreamCloseTimeout:     0,
		LogOutput:              io.Discard,
	}
}

type muxLink struct {
	conn     *conn
	session  *yamux.Session
	maxWrite int
	writers  atomic.Int32 // that write to a stream now
}

func (l *muxLink) Open(context.Context) (net.Conn, error) {
	s, err := l.session.OpenStream()
	if err != nil {
		return nil, closed(err)
	}
	return &stream{s, l}, nil
}

func (l *muxLink) Accept() (net.Conn, error) {
	s, err := l.session.AcceptStream()
	if err != nil {
		return nil, closed(err)
	}
	return &stream{s, l}, nil
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

// stream keeps yamux's frames small.
type stream struct {
	*yamux.Stream
	link *muxLink
}

func (s *stream) Write(p []byte) (int, error) {
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

// begin counts a writer and tells how much it may write at once.
func (l *muxLink) begin() int {
	fair := queued / int(l.writers.Add(1)) / records.Plain
	return min(l.maxWrite, max(1, min(4, fair))*records.Plain-header)
}
