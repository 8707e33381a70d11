package node

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ranvier-mesh/ranvier/internal/identity"
)

// What a node without an identity serves here is on loopback unless the file
// says that it may be elsewhere.
func TestServicesWithoutIdentity(t *testing.T) {
	t.Parallel()
	for head, loopback := range map[string]bool{"": true, ", insecure: true": false} {
		n, err := New(t.Context(), parse(t, fmt.Sprintf("- node: {id: a, datadir: %s%s}\n- local-only:\n- tcp-server: {port: 0, remotenode: b, remoteservice: s}\n", t.TempDir(), head)), Options{})
		if err != nil {
			t.Fatal(err)
		}
		address := n.services.runs[0].bound
		host, _, _ := net.SplitHostPort(address)
		if ip := net.ParseIP(host); ip == nil || ip.IsLoopback() != loopback {
			t.Errorf("node%s: it listens on %s", head, address)
		}
		n.close()
	}
	_, err := New(t.Context(), parse(t, fmt.Sprintf("- node: {id: a, datadir: %s}\n- local-only:\n- udp-server: {port: 0, bindaddr: 0.0.0.0, remotenode: b, remoteservice: s}\n", t.TempDir())), Options{})
	if err == nil || !strings.Contains(err.Error(), "udp-server") || !strings.Contains(err.Error(), "bindaddr: 127.0.0.1") {
		t.Errorf("all addresses, without an identity: %v", err)
	}
}

// A node's identity says who its links lead to, and nothing of who dials its
// control socket: on addresses of other hosts' that one asks for certificates.
func TestControlSocketWithIdentity(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, err := identity.InitCA(filepath.Join(dir, "ca"), "test", "a", identity.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	self, err := identity.Begin(ca, identity.Claims{ID: "a", Role: identity.Router}, filepath.Join(dir, "identity"))
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t)
	s.cert("a", "a")
	for name, tt := range map[string]struct {
		head, items string
		compat      bool
		refused     bool
	}{
		"all addresses":            {items: "- control-service: {tcplisten: 0}\n", refused: true},
		"a certificate of its own": {items: s.item("tls-server", "s", "a", "") + "- control-service: {tcplisten: 0, tcptls: s}\n", refused: true},
		"clients' certificates":    {items: s.item("tls-server", "s", "a", "requireclientcert: true, clientcas: CA") + "- control-service: {tcplisten: 0, tcptls: s}\n"},
		"loopback":                 {items: "- control-service: {tcplisten: '127.0.0.1:0'}\n"},
		"insecure":                 {head: ", insecure: true", items: "- control-service: {tcplisten: 0}\n"},
		"as Receptor":              {items: "- control-service: {tcplisten: 0}\n", compat: true},
	} {
		n, err := New(t.Context(), parse(t, fmt.Sprintf("- node: {id: a, datadir: %s%s}\n- local-only:\n", t.TempDir(), tt.head)+tt.items), Options{Identity: self, Open: tt.compat})
		if err == nil {
			n.close()
		}
		if tt.refused != (err != nil) || tt.refused && !strings.Contains(err.Error(), `key "tcplisten": anyone who reaches 0.0.0.0:0`) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
