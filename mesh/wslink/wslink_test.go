package wslink

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/link/linktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) { linktest.Run(t, Transport{}, "127.0.0.1:0") }

func TestConformanceWithAPath(t *testing.T) { linktest.Run(t, Transport{}, "[::1]:0/mesh/east") }

func TestConformanceWithTLS(t *testing.T) {
	server, client := linktest.Certificates(t)
	linktest.Run(t, Transport{Secure: true, ServerTLS: server, ClientTLS: client}, "127.0.0.1:0")
}

func TestConformanceWithARate(t *testing.T) {
	linktest.Run(t, Transport{}.With(link.Options{Rate: 20 << 20}), "127.0.0.1:0")
}

func TestNames(t *testing.T) {
	names := new(linktest.Names)
	linktest.RunNames(t, Transport{Resolver: names.Resolver()}, names, linktest.SamePort)
}

// accepting returns the address of a listener that takes every link.
func accepting(t *testing.T, tr Transport, addr string) string {
	t.Helper()
	l, err := tr.Listen(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			k, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				k.Accept()
				k.Close()
			}()
		}
	}()
	return l.Addr().String()
}

func TestErrorsSayWhatIsWrong(t *testing.T) {
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ws, err := websocket.Accept(w, r, nil); err == nil {
			ws.CloseNow()
		}
	}))
	defer stranger.Close()
	server, _ := linktest.Certificates(t)
	_, other := linktest.Certificates(t)
	node := accepting(t, Transport{}, "127.0.0.1:0/mesh")
	secure := accepting(t, Transport{Secure: true, ServerTLS: server}, "127.0.0.1:0")
	proxy := func(u string) func(*url.URL) (*url.URL, error) {
		return func(*url.URL) (*url.URL, error) { return url.Parse(u) }
	}
	for name, tt := range map[string]struct {
		tr   Transport
		addr string
		want string
	}{
		"no node":            {Transport{}, web.Listener.Addr().String(), `the server answers "404 Not Found" to ws://` + web.Listener.Addr().String() + ` in place of a WebSocket: is the path right?`},
		"another path":       {Transport{}, strings.TrimSuffix(node, "mesh") + "west", `"404 Not Found"`},
		"another WebSocket":  {Transport{}, stranger.Listener.Addr().String(), "no Ranvier node's"},
		"nobody":             {Transport{}, "127.0.0.1:1", "connection refused"},
		"unknown authority":  {Transport{Secure: true, ClientTLS: other}, secure, "certificate"},
		"plain HTTP":         {Transport{Secure: true, ClientTLS: other}, node, "HTTP response to HTTPS client"},
		"proxy scheme":       {Transport{Proxy: proxy("ftp://127.0.0.1:1")}, "hub:1", `proxy ftp://127.0.0.1:1: scheme "ftp" is not http, https or socks5`},
		"no proxy":           {Transport{Proxy: proxy("http://u:secret@127.0.0.1:1")}, "hub:1", "connection refused"},
		"proxy is no proxy":  {Transport{Proxy: proxy(web.URL)}, "hub:1", "it refused to connect to hub:1: 404 Not Found"},
		"proxy is no HTTP":   {Transport{Proxy: proxy("http://" + secure)}, "hub:1", "proxy http://" + secure},
		"no socks there":     {Transport{Proxy: proxy("socks5://127.0.0.1:1")}, "hub:1", "connection refused"},
		"no certificate set": {Transport{Secure: true, ServerTLS: nil}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.addr == "" {
				if _, err := tt.tr.Listen(t.Context(), "127.0.0.1:0"); err == nil {
					t.Error("listens without a certificate")
				}
				return
			}
			_, err := tt.tr.Dial(t.Context(), tt.addr)
			var op *net.OpError
			if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.As(err, &op) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the password is told: %v", err)
			}
		})
	}
	if _, err := (Transport{}).Dial(t.Context(), "127.0.0.1:1"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("no ECONNREFUSED: %v", err)
	}
}

func TestHeaderIsSent(t *testing.T) {
	var got http.Header
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got = r.Header }))
	defer web.Close()
	tr := Transport{}.With(link.Options{Header: http.Header{"X-Site": {"east"}}})
	if _, err := tr.Dial(t.Context(), web.Listener.Addr().String()); err == nil {
		t.Fatal("dialled a web server")
	}
	if got.Get("X-Site") != "east" || got.Get("Sec-WebSocket-Protocol") != "ranvier.1" {
		t.Errorf("header %v", got)
	}
}

func TestConnectionsThatAskForNothingAreBounded(t *testing.T) {
	addr := accepting(t, Transport{}, "127.0.0.1:0")
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range maxWaiting + 1 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	first := conns[0]
	first.SetReadDeadline(time.Now().Add(3 * time.Second)) // before the time of any is over
	if _, err := first.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		t.Errorf("the one that had to make room got %v", err)
	}
	for _, c := range conns {
		c.Close()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for { // until the server has seen that the others are gone
		k, err := Transport{}.Dial(ctx, addr)
		if err == nil {
			k.Close()
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func TestTextIsNoData(t *testing.T) {
	l, err := Transport{}.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ws, _, err := websocket.Dial(t.Context(), "ws://"+l.Addr().String(), &websocket.DialOptions{Subprotocols: []string{subprotocol}})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	k, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	ws.Write(t.Context(), websocket.MessageText, []byte("hello"))
	if _, err := k.Accept(); !errors.Is(err, link.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
}

func TestAnOldTLSIsTakenFromAProxyOnly(t *testing.T) {
	// Below HTTP the TLS is the site's: version 1.2 of an older web server will do.
	server, client := linktest.Certificates(t)
	server.MaxVersion = tls.VersionTLS12
	addr := accepting(t, Transport{Secure: true, ServerTLS: server}, "127.0.0.1:0")
	k, err := Transport{Secure: true, ClientTLS: client}.Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	k.Close()
}
