// Package wslink carries links over WebSocket, for sites that have only an
// HTTP(S) proxy to the outside, or a web server in front
// (docs/protocol.md section 4.1).
package wslink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http/httpproxy"

	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/link/pace"
	"github.com/ranvier-mesh/ranvier/mesh/link/records"
	"github.com/ranvier-mesh/ranvier/mesh/muxlink"
)

// subprotocol is the protocol's name in the WebSocket handshake.
const subprotocol = "ranvier.1"

// Transport implements link.Configurable over WebSocket; addresses are
// host:port/path, where no path means "/". Names are resolved at every Dial,
// by the proxy where there is one.
type Transport struct {
	// Secure says wss: TLS below HTTP.
	Secure bool
	// ServerTLS must be set to listen where Secure is. ClientTLS, where it is
	// nil, checks the peer's name against the system's authorities.
	ServerTLS, ClientTLS *tls.Config
	// LinkServerTLS and LinkClientTLS, where they are not nil, put TLS 1.3
	// within the WebSocket: a proxy may end the TLS below it, and then only this
	// one is between the nodes.
	LinkServerTLS, LinkClientTLS *tls.Config
	// Proxy says which proxy a URL (http or https) is reached through; nil
	// asks the environment at every Dial: HTTP_PROXY, HTTPS_PROXY, NO_PROXY.
	// Through http and https proxies it tunnels with CONNECT, for ws too.
	Proxy    func(*url.URL) (*url.URL, error)
	Resolver *net.Resolver // looks names up; nil for the system's
	Options  link.Options
}

// With implements link.Configurable.
func (t Transport) With(o link.Options) link.Transport {
	t.Options = o
	if o.ServerTLS != nil { // it says itself who is let in
		t.Secure, t.ServerTLS, t.LinkServerTLS = true, o.ServerTLS, nil
	}
	if o.ClientTLS != nil {
		t.LinkClientTLS = nil
	}
	return t
}

// Dial implements link.Transport. A proxy that refuses and a server that
// answers other than with a WebSocket are told in the error.
func (t Transport) Dial(ctx context.Context, addr string) (link.Link, error) {
	hostPort, _ := splitPath(addr)
	if host, _, _ := net.SplitHostPort(hostPort); t.Options.ClientTLS != nil {
		t.ClientTLS = t.Options.ClientTLS(host)
	}
	u := "ws://" + addr
	if t.Secure {
		u = "wss://" + addr
	}
	conn, err := t.dial(ctx, u)
	if err != nil {
		return nil, err
	}
	if t.LinkClientTLS != nil {
		secured := records.Client(conn, t.LinkClientTLS)
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		err := secured.Handshake()
		if !stop() || err != nil {
			conn.Close()
			return nil, &net.OpError{Op: "dial", Net: "ws", Err: err}
		}
		conn = secured
	}
	return muxlink.Client(conn, pace.New(t.Options.Rate))
}

func (t Transport) dial(ctx context.Context, u string) (net.Conn, error) {
	var raw net.Conn
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, hostPort string) (net.Conn, error) {
			var err error
			raw, err = t.connect(ctx, hostPort)
			return raw, err
		},
		TLSClientConfig:   t.clientTLS(),
		DisableKeepAlives: true, // nothing is left behind when the answer is no WebSocket
		Protocols:         new(http.Protocols),
	}
	transport.Protocols.SetHTTP1(true)
	ws, answer, err := websocket.Dial(ctx, u, &websocket.DialOptions{
		HTTPClient:   &http.Client{Transport: transport},
		HTTPHeader:   t.Options.Header,
		Subprotocols: []string{subprotocol},
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, &net.OpError{Op: "dial", Net: "ws", Err: context.Cause(ctx)}
	case err != nil && answer != nil && answer.StatusCode != http.StatusSwitchingProtocols:
		return nil, &net.OpError{Op: "dial", Net: "ws", Err: fmt.Errorf("the server answers %q to %s in place of a WebSocket: is the path right?", answer.Status, u)}
	case err != nil:
		return nil, networkError(err)
	case ws.Subprotocol() != subprotocol:
		ws.CloseNow()
		return nil, &net.OpError{Op: "dial", Net: "ws", Err: fmt.Errorf("the WebSocket at %s is no Ranvier node's", u)}
	}
	return newConn(ws, raw, answer.TLS), nil
}

// networkError finds the cause in what HTTP wraps around it.
func networkError(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return &net.OpError{Op: "dial", Net: "ws", Err: err}
}

func (t Transport) clientTLS() *tls.Config {
	if t.ClientTLS == nil {
		return nil
	}
	c := t.ClientTLS.Clone()
	c.NextProtos = nil // ours is for links without HTTP
	return c
}

// connect opens the connection that the WebSocket is asked for on: to the
// server, or to where a proxy has connected to it.
func (t Transport) connect(ctx context.Context, hostPort string) (net.Conn, error) {
	proxyOf := t.Proxy
	if proxyOf == nil {
		proxyOf = httpproxy.FromEnvironment().ProxyFunc()
	}
	target := &url.URL{Scheme: "http", Host: hostPort}
	if t.Secure {
		target.Scheme = "https"
	}
	proxy, err := proxyOf(target)
	if err != nil {
		return nil, fmt.Errorf("proxy for %s (see HTTP_PROXY and HTTPS_PROXY): %w", hostPort, err)
	}
	d := &net.Dialer{Control: tune, KeepAlive: -1, Resolver: t.Resolver} // the mesh's heartbeats are the keepalive
	if proxy == nil {
		return d.DialContext(ctx, "tcp", hostPort)
	}
	conn, err := through(ctx, d, proxy, hostPort)
	if err != nil {
		return nil, fmt.Errorf("proxy %s: %w", proxy.Redacted(), err)
	}
	return conn, nil
}

// Listen implements link.Transport.
func (t Transport) Listen(ctx context.Context, addr string) (link.Listener, error) {
	hostPort, path := splitPath(addr)
	if t.Secure && t.ServerTLS == nil {
		return nil, fmt.Errorf("listen on wss://%s: there is no certificate", addr)
	}
	lc := net.ListenConfig{Control: tune, KeepAlive: -1}
	tcp, err := lc.Listen(ctx, "tcp", hostPort)
	if err != nil {
		return nil, err
	}
	var inner net.Listener = tcp
	if t.Secure {
		c := t.ServerTLS.Clone()
		c.NextProtos = []string{"http/1.1"}
		inner = &tlsListener{tcp, c}
	}
	return serve(inner, path, t.LinkServerTLS, t.Options), nil
}

// splitPath splits host:port/path; the path begins with a slash.
func splitPath(addr string) (hostPort, path string) {
	hostPort, path, _ = strings.Cut(addr, "/")
	return hostPort, "/" + path
}

// handshakeTime bounds how long a client may take to ask for a WebSocket.
const handshakeTime = 5 * time.Second
