package node

import (
	"fmt"
	"net"
	"strings"
	"testing"
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
