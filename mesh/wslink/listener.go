package wslink

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"sync"

	"github.com/coder/websocket"

	"github.com/ranvier-mesh/ranvier/internal/admission"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/link/pace"
	"github.com/ranvier-mesh/ranvier/mesh/muxlink"
)

// maxWaiting is how many connections may be no WebSockets yet; who comes beyond
// has the place of the oldest of the host that has the most.
const maxWaiting = 256

// listener is a web server that has one thing to offer.
type listener struct {
	inner   net.Listener
	path    string
	tls     *tls.Config // within the WebSocket; nil: none
	options link.Options
	links   chan link.Link
	done    chan struct{}
	once    sync.Once
	server  *http.Server
	waiting *admission.Places
	places  sync.Map // net.Conn to *admission.Place, of those that wait
}

// tlsListener puts TLS on what comes, and bounds what is held for it until it is a
// WebSocket.
type tlsListener struct {
	net.Listener
	cfg *tls.Config
}

// Accept implements net.Listener; what it returns is a *tls.Conn, which package http
// looks for.
func (l *tlsListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return tls.Server(link.NewUnproven(conn), l.cfg), nil
}

// free lifts the bound of a connection that is the WebSocket's alone.
func free(conn net.Conn) {
	if u, ok := below(conn).(*link.Unproven); ok {
		u.Free()
	}
}

// below is the connection that TLS is spoken on, or conn itself.
func below(conn net.Conn) net.Conn {
	if secured, ok := conn.(*tls.Conn); ok {
		return secured.NetConn()
	}
	return conn
}

// connKey finds the connection below a request.
type connKey struct{}

func serve(inner net.Listener, path string, within *tls.Config, o link.Options) *listener {
	l := &listener{inner: inner, path: path, tls: within, options: o, links: make(chan link.Link), done: make(chan struct{}), waiting: admission.New(maxWaiting, maxWaiting)}
	l.server = &http.Server{
		Handler:           http.HandlerFunc(l.upgrade),
		ReadHeaderTimeout: handshakeTime,
		IdleTimeout:       handshakeTime,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          log.New(io.Discard, "", 0), // strangers' mistakes
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		ConnState:         l.count,
	}
	go func() {
		l.server.Serve(inner) // until Close; what accept fails with it tries again itself
		l.Close()
	}()
	return l
}

// count keeps the number of connections that are no links bounded.
func (l *listener) count(c net.Conn, s http.ConnState) {
	switch s {
	case http.StateNew:
		l.places.Store(c, l.waiting.Enter(c.RemoteAddr(), func() { below(c).Close() }))
	case http.StateHijacked, http.StateClosed:
		if place, ok := l.places.LoadAndDelete(c); ok {
			l.waiting.Leave(place.(*admission.Place))
		}
	}
}

func (l *listener) upgrade(w http.ResponseWriter, r *http.Request) {
	raw := r.Context().Value(connKey{}).(net.Conn)
	if r.URL.Path != l.path {
		http.NotFound(w, r)
		return
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{subprotocol}})
	if err != nil {
		return // the client has been told
	}
	free(raw)
	if ws.Subprotocol() != subprotocol {
		ws.Close(websocket.StatusPolicyViolation, "the subprotocol is "+subprotocol)
		return
	}
	var conn net.Conn = newConn(ws, raw, r.TLS)
	if l.tls != nil {
		conn = link.Accepted(conn, l.tls, nil)
	}
	k, err := muxlink.Server(conn, pace.New(l.options.Rate))
	if err != nil {
		raw.Close()
		return
	}
	select {
	case l.links <- k:
	case <-l.done:
		k.Close()
	}
}

func (l *listener) Accept() (link.Link, error) {
	select {
	case k := <-l.links:
		return k, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close leaves the links alone: a hijacked connection is no longer the server's.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.server.Close()
}

// Addr includes the path, so that it can be dialled.
func (l *listener) Addr() net.Addr { return addr{l.inner.Addr(), l.path} }

type addr struct {
	net.Addr
	path string
}

func (a addr) String() string {
	if a.path == "/" {
		return a.Addr.String()
	}
	return a.Addr.String() + a.path
}
