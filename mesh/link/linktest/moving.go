package linktest

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/mesh/link"
)

// RunNames tests that a transport asks for a name's addresses at every dial,
// and tries all of them. The transport must use the resolver of names; address
// makes an address to dial of a host and a listener's address.
func RunNames(t *testing.T, transport link.Transport, names *Names, address func(host string, l net.Addr) string) {
	names.Set("hub.test", "127.0.0.1")
	for _, at := range []struct {
		listen string
		addrs  []string
	}{
		{"127.0.0.1:0", []string{"127.0.0.1"}},
		{"127.0.0.2:0", []string{"127.0.0.2"}},              // it has moved
		{"[::1]:0", []string{"::1"}},                        // and again
		{"[::1]:0", []string{"127.0.0.1", "::1"}},           // one of two answers
		{"127.0.0.3:0", []string{"127.0.0.1", "127.0.0.3"}}, // the second of one family
	} {
		names.Set("hub.test", at.addrs...)
		l, err := transport.Listen(t.Context(), at.listen)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if k, err := l.Accept(); err == nil {
				k.Accept()
				k.Close()
			}
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		k, err := transport.Dial(ctx, address("hub.test", l.Addr()))
		cancel()
		if err != nil {
			t.Errorf("hub.test at %v, listening on %s: %v", at.addrs, at.listen, err)
		} else {
			k.Close()
		}
		l.Close()
	}
	if _, err := transport.Dial(t.Context(), "nowhere.test:1"); err == nil {
		t.Error("dialled a name that does not exist")
	}
}

// SamePort is an address function for RunNames: host and the listener's port.
func SamePort(host string, l net.Addr) string {
	_, port, _ := net.SplitHostPort(l.String())
	return net.JoinHostPort(host, port)
}
