package node

import (
	"context"
	"fmt"
	"math/big"
	"path/filepath"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/routing"
)

// aged makes an identity that its CA granted a while ago.
func aged(t *testing.T, ca *identity.CA, id routing.NodeID, role identity.Role) *identity.Self {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "identity")
	if _, err := identity.Begin(ca, identity.Claims{ID: id, Role: role}, dir); err != nil {
		t.Fatal(err)
	}
	self, err := identity.Load(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return self
}

// Nodes that run renew their certificates by themselves once half their life is
// over: the CA's own node, and others over the mesh.
func TestRunningNodesRenew(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ca")
	before := func() time.Time { return time.Now().Add(-5 * 24 * time.Hour) }
	old, err := identity.InitCA(dir, "test", "hub", identity.CAOptions{Now: before})
	if err != nil {
		t.Fatal(err)
	}
	hubSelf, leafSelf := aged(t, old, "hub", identity.Router), aged(t, old, "leaf", identity.Leaf)
	type cert struct {
		self   *identity.Self
		serial *big.Int
	}
	var certs []cert
	for _, self := range []*identity.Self{hubSelf, leafSelf} {
		if due := time.Until(self.RenewAt()); due > 0 {
			t.Fatalf("the certificate of %s is due only in %v", self.ID, due)
		}
		certs = append(certs, cert{self, self.Certificate().Leaf.SerialNumber})
	}
	ca, err := identity.OpenCA(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	start := func(text string, o Options) *Node {
		t.Helper()
		n, err := New(t.Context(), parse(t, text), o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		over, ready := make(chan error, 1), make(chan struct{})
		go func() { over <- n.Run(ctx, func([]string) { close(ready) }) }()
		t.Cleanup(func() { stop(); <-over })
		<-ready
		return n
	}
	hub := start(fmt.Sprintf("- node: {id: hub, datadir: %s}\n- tcp-listener: {port: 0, bindaddr: 127.0.0.1}\n", t.TempDir()),
		Options{Transports: secured(hubSelf), Identity: hubSelf, CA: ca})
	start(fmt.Sprintf("- node: {id: leaf, datadir: %s, leaf: true}\n- tcp-peer: {address: '%s'}\n", t.TempDir(), hub.Addrs()[0]),
		Options{Transports: secured(leafSelf), Identity: leafSelf})

	limit, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for _, c := range certs {
		for c.self.Certificate().Leaf.SerialNumber.Cmp(c.serial) == 0 {
			select {
			case <-look.C:
			case <-limit.Done():
				t.Fatalf("node %s has not renewed its certificate, which ends at %v", c.self.ID, c.self.Certificate().Leaf.NotAfter)
			}
		}
		if due := time.Until(c.self.RenewAt()); due <= 0 {
			t.Errorf("the new certificate of %s is due already: %v", c.self.ID, due)
		}
	}
}
