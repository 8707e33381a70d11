package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ranvier-mesh/ranvier/internal/config"
	"github.com/ranvier-mesh/ranvier/internal/control"
	"github.com/ranvier-mesh/ranvier/internal/identity"
)

// A reload takes the certificate that is on disk, and no identity but the
// node's own; links stay up.
func TestReloadOfTheIdentity(t *testing.T) {
	dir := t.TempDir()
	ca, err := identity.InitCA(filepath.Join(dir, "ca"), "test", "a", identity.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(dir, "identity")
	self, err := identity.Begin(ca, identity.Claims{ID: "a", Role: identity.Router}, home)
	if err != nil {
		t.Fatal(err)
	}
	file, socket := filepath.Join(dir, "r.yml"), filepath.Join(dir, "s")
	text := fmt.Sprintf("- node: {id: a, datadir: %s}\n- tcp-listener: {port: 0, bindaddr: 127.0.0.1}\n- control-service: {filename: %s}\n", dir, socket)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	n, err := New(t.Context(), cfg, Options{Transports: secured(self), Identity: self})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	over, ready := make(chan error, 1), make(chan struct{})
	go func() { over <- n.Run(ctx, func([]string) { close(ready) }) }()
	<-ready
	defer func() { stop(); <-over }()
	reload := func() error {
		t.Helper()
		c, err := control.Dial(t.Context(), socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.Reload(t.Context())
	}

	// Another process renews what is on disk.
	other, err := identity.Load(home, nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := other.Trust().VerifyRaw(other.Certificate().Certificate, identity.AsSigner)
	if err != nil {
		t.Fatal(err)
	}
	g, err := ca.Renew(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Renewed(g); err != nil {
		t.Fatal(err)
	}
	fresh := other.Certificate().Leaf.SerialNumber
	if self.Certificate().Leaf.SerialNumber.Cmp(fresh) == 0 {
		t.Fatal("the node has the new certificate by itself")
	}
	if err := reload(); err != nil {
		t.Fatal(err)
	}
	if self.Certificate().Leaf.SerialNumber.Cmp(fresh) != 0 {
		t.Error("the node still shows the old certificate")
	}

	// Another's identity is not taken, and nothing else of the file either.
	foreign := filepath.Join(dir, "foreign")
	if _, err := identity.Begin(ca, identity.Claims{ID: "b", Role: identity.Router}, foreign); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(home, home+".away"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{foreign: "is another one now: restart the node", "": "there is no identity"} {
		if name != "" {
			if err := os.Symlink(name, home); err != nil {
				t.Fatal(err)
			}
		}
		if err := reload(); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "ERRORCODE 4") {
			t.Errorf("reload: %v, want %s", err, want)
		}
		os.Remove(home)
	}
	if self.ID != "a" || self.Certificate().Leaf.SerialNumber.Cmp(fresh) != 0 {
		t.Error("a reload that failed has changed the identity")
	}
}
