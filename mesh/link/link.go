// Package link is what the mesh needs of a connection to a peer: many streams
// over one, whatever carries them. linktest holds every transport to it.
package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
)

// Link is a multiplexed connection to a peer. Its methods may be called from
// several goroutines.
//
// A stream of a link is a net.Conn with three things to know: Close ends both
// directions and lets the peer read what was written before; an io.EOF from
// Read only says that the stream is over, not that all arrived; an error from
// Write leaves open how much was sent, so the stream is of no further use.
type Link interface {
	// Open opens a stream. It does not wait for the peer to accept it.
	// The error wraps ErrClosed when the link is over, ErrBusy when the peer takes
	// no more streams for now.
	Open(ctx context.Context) (net.Conn, error)
	// Accept waits for a stream that the peer opens. The error wraps
	// ErrClosed when the link is over, and then names the cause where it is known.
	Accept() (net.Conn, error)
	// Close ends the link and all its streams at once.
	Close() error
	// Done is closed when the link is over, from either end.
	Done() <-chan struct{}
	// Traffic returns how many bytes have come and gone on the transport so
	// far. A link on which nothing comes any more is dead.
	Traffic() (received, sent uint64)
	// LocalAddr is the transport's address of this end.
	LocalAddr() net.Addr
	// RemoteAddr is the transport's address of the peer.
	RemoteAddr() net.Addr
}

// Listener accepts links.
type Listener interface {
	// Accept waits for the next peer. What the peer must do before its link
	// is usable happens later, so that a slow one does not hold up others.
	Accept() (Link, error)
	// Close stops listening and wakes Accept; links that were accepted go on.
	Close() error
	// Addr is the address that it is bound to.
	Addr() net.Addr
}

// Transport makes links. Addresses are of the transport's own form, without
// the scheme.
type Transport interface {
	// Dial connects to a listener. Errors are those of the network (net.OpError).
	Dial(ctx context.Context, addr string) (Link, error)
	// Listen binds an address; ctx counts for the binding only.
	Listen(ctx context.Context, addr string) (Listener, error)
}

// Options are what a configuration may say of the links of one listener or
// peer. The zero value says nothing.
type Options struct {
	// Rate is how many bytes a second a link may send; 0 for no bound. What
	// comes in is the other end's to bound.
	Rate int64
	// Header is sent with the request that makes a WebSocket; other
	// transports do not look at it.
	Header http.Header
	// ServerTLS and ClientTLS, where they are not nil, take the place of the
	// transport's own settings on the links that are accepted and dialled; of a
	// WebSocket they are those below HTTP, so that its links are wss. ClientTLS is
	// asked at each attempt for the settings towards a host. Their NextProtos are
	// not looked at; their MinVersion is, but QUIC has TLS 1.3 only.
	ServerTLS *tls.Config
	ClientTLS func(host string) *tls.Config
}

// Zero tells whether the options say nothing.
func (o Options) Zero() bool {
	return o.Rate == 0 && len(o.Header) == 0 && o.ServerTLS == nil && o.ClientTLS == nil
}

// Configurable is a Transport that knows Options.
type Configurable interface {
	Transport
	// With returns a transport with these options in place of its own.
	With(Options) Transport
}

// Authenticated is a Link whose peer may have shown a certificate.
type Authenticated interface {
	Link
	// PeerCertificates returns the chain that the peer has shown and whose key
	// it has proved to have, its own certificate first; nil where there is no
	// TLS, or its handshake is not over. Whom the chain is to be believed is the
	// caller's to decide.
	PeerCertificates() []*x509.Certificate
}

// Wary is a Link that lets its peer do little until it is known: open one stream,
// and say a few kilobytes on it.
type Wary interface {
	// Known says that the peer has said who it is.
	Known()
}

// Counted is a Link that knows of streams for longer than who has closed them.
type Counted interface {
	// Streams is how many are not over at both ends.
	Streams() int
}

// Known tells a link that its peer is known.
func Known(l Link) {
	if w, ok := l.(Wary); ok {
		w.Known()
	}
}

// ErrOther is wrapped by the errors of a connection that was for another
// protocol on the same listener, and has been dealt with.
var ErrOther = errors.New("the connection was for another protocol")

// ErrBusy is wrapped by the errors of a link that has no room for one more stream.
var ErrBusy = errors.New("the peer takes no more streams")

// ErrClosed is wrapped by the errors of a link that is over.
var ErrClosed = errors.New("link closed")
