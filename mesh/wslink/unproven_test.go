package wslink

import (
	"crypto/tls"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/mesh/link/linktest"
)

// A listener with the site's TLS holds little for who is no WebSocket yet: neither
// in the handshake of TLS nor in the request after it.
func TestWhatIsHeldForStrangers(t *testing.T) {
	// Not parallel: it measures this process.
	server, client := linktest.Certificates(t)
	addr := accepting(t, Transport{Secure: true, ServerTLS: server}, "127.0.0.1:0")
	const n = maxWaiting / 2
	conns := make([]net.Conn, 0, n)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	// A ClientHello of 64 KiB, as it says, of which as much is sent as it may be.
	flood := append([]byte{22, 3, 1, 16, 0, 1, 0, 255, 255}, make([]byte, 4092)...)
	flood = append(append(flood, 22, 3, 1, 31, 0), make([]byte, 7930)...)
	before := held()
	for range n {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		c.Write(flood)
	}
	if per := (held() - before) / n; per > 64<<10 {
		t.Errorf("%d KiB are held for a connection that has not authenticated", per>>10)
	}

	secured, err := tls.Dial("tcp", addr, client)
	if err != nil {
		t.Fatal(err)
	}
	defer secured.Close()
	secured.SetDeadline(time.Now().Add(30 * time.Second))
	secured.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 14<<10)))
	answer := make([]byte, 1<<10)
	if got, err := secured.Read(answer); err == nil && strings.HasPrefix(string(answer[:got]), "HTTP/1.1 101") || isTimeout(err) {
		t.Errorf("a request of 14 KiB before anybody is known: %q, %v", answer[:got], err)
	}

	k, err := Transport{Secure: true, ClientTLS: client}.Dial(t.Context(), addr)
	if err != nil {
		t.Fatalf("one that asks for a WebSocket: %v", err)
	}
	k.Close()
}

// Who holds connections that are no WebSockets crowds out himself.
func TestManyThatAreNoWebSockets(t *testing.T) {
	server, client := linktest.Certificates(t)
	for name, tr := range map[string]Transport{"ws": {}, "wss": {Secure: true, ServerTLS: server, ClientTLS: client}} {
		t.Run(name, func(t *testing.T) {
			addr := accepting(t, tr, "127.0.0.1:0")
			from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}, Timeout: 30 * time.Second}
			var first net.Conn
			for range maxWaiting + 1 {
				c, err := from.DialContext(t.Context(), "tcp", addr)
				if err != nil {
					t.Skipf("this host has no 127.0.0.2: %v", err)
				}
				defer c.Close()
				if first == nil {
					first = c
				}
			}
			k, err := tr.Dial(t.Context(), addr)
			if err != nil {
				t.Fatalf("another host: %v", err)
			}
			k.Close()
			first.SetReadDeadline(time.Now().Add(30 * time.Second))
			if _, err := first.Read(make([]byte, 1)); err == nil || isTimeout(err) {
				t.Errorf("the oldest of them is still there: %v", err)
			}
		})
	}
}

// held is what is on the heap and on stacks after a collection.
func held() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}
