package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/control"
	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/tcplink"
	"github.com/ranvier-mesh/ranvier/routing"
	"github.com/ranvier-mesh/ranvier/worktypes"
	"github.com/ranvier-mesh/ranvier/worktypes/remote"
)

func begin(t *testing.T, ca *identity.CA, id routing.NodeID, role identity.Role, work ...string) *identity.Self {
	t.Helper()
	self, err := identity.Begin(ca, identity.Claims{ID: id, Role: role, Work: work}, filepath.Join(t.TempDir(), "identity"))
	if err != nil {
		t.Fatal(err)
	}
	return self
}

func secured(self *identity.Self) map[string]link.Transport {
	return map[string]link.Transport{"tcp": tcplink.Transport{ServerTLS: self.ServerTLS(), ClientTLS: self.ClientTLS()}}
}

// TestPolicy has members do what their certificates allow and what not.
func TestPolicy(t *testing.T) {
	dir := t.TempDir()
	ca, err := identity.InitCA(filepath.Join(dir, "ca"), "test", "a", identity.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	self := begin(t, ca, "a", identity.Router, "*")
	cfg := parse(t, fmt.Sprintf("- node: {id: a, datadir: %s}\n- tcp-listener: {port: 0, bindaddr: 127.0.0.1}\n"+
		"- control-service: {service: control}\n- work-command: {worktype: cat, command: cat}\n- work-command: {worktype: id, command: id}\n", dir))
	n, err := New(t.Context(), cfg, Options{Transports: secured(self), Identity: self, CA: ca})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	over, ready := make(chan error, 1), make(chan struct{})
	go func() { over <- n.Run(ctx, func([]string) { close(ready) }) }()
	<-ready
	defer func() { stop(); <-over }()

	attach := func(who *identity.Self) *mesh.Attachment {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		m, err := mesh.Attach(ctx, mesh.Config{Self: who, Transports: secured(who), Peers: []mesh.PeerConfig{{Address: n.Addrs()[0]}}})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	client := func(m *mesh.Attachment) *remote.Client {
		return &remote.Client{Node: "a", Keep: true, Dial: func(ctx context.Context) (net.Conn, error) { return m.Dial(ctx, "a", remote.ServiceName) }}
	}
	alice, bob := begin(t, ca, "alice", identity.Client, "cat"), begin(t, ca, "bob", identity.Client, "cat")
	one, two, other := attach(alice), attach(alice), attach(bob)
	defer one.Close()
	defer two.Close()
	defer other.Close()

	limit, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	spec := worktypes.Spec{ID: worktypes.NewID(), Type: "cat"}
	job, err := client(one).Submit(limit, spec, strings.NewReader("payload"))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := io.ReadAll(job.Results); err != nil || string(out) != "payload" {
		t.Fatalf("results %q, %v", out, err)
	}
	if st, err := client(two).Status(limit, spec.ID); err != nil || st.Owner != "alice" {
		t.Errorf("alice from another node of hers: %+v, %v", st, err)
	}
	_, submitID := client(one).Submit(limit, worktypes.Spec{ID: worktypes.NewID(), Type: "id"}, nil)
	_, bobReads := client(other).Follow(limit, spec.ID, 0)
	_, bobCancels := client(other).Cancel(limit, spec.ID)
	for name, err := range map[string]error{
		"a work type that her certificate does not name": submitID,
		"bob reads alice's unit":                         bobReads,
		"bob cancels alice's unit":                       bobCancels,
		"bob releases alice's unit":                      client(other).Release(limit, spec.ID),
	} {
		if whose := strings.HasPrefix(name, "bob"); !errors.Is(err, worktypes.ErrForbidden) || strings.Contains(err.Error(), "belongs to somebody else") != whose {
			t.Errorf("%s: %v", name, err)
		}
	}

	// The control service over the mesh lets members look and no more.
	conn, err := one.Dial(limit, "a", "control")
	if err != nil {
		t.Fatal(err)
	}
	c, err := control.NewClient(limit, conn)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Status(limit); err != nil {
		t.Error(err)
	}
	before := statusOf(t, n).Refused
	for command, args := range map[string]map[string]any{
		"reload":  {},
		"connect": {"node": "a", "service": "work"},
		"drain":   {},
		"work":    {"subcommand": "submit", "node": "elsewhere", "worktype": "cat"}, // under this node's name
	} {
		args["command"] = command
		if err := c.Call(limit, args, nil); err == nil || !strings.Contains(err.Error(), "alice may not") {
			t.Errorf("%s over the mesh: %v", command, err)
		}
	}
	if got := statusOf(t, n).Refused.Commands - before.Commands; got != 4 {
		t.Errorf("%d refused commands are counted", got)
	}

	// A user renews, and one who was revoked on the CA's host is gone.
	serial := bob.Certificate().Leaf.SerialNumber
	if err := RenewOver(limit, other.Mesh, bob); err != nil || bob.Certificate().Leaf.SerialNumber.Cmp(serial) == 0 {
		t.Errorf("renewal: %v", err)
	}
	if _, err := ca.Revoke("bob"); err != nil {
		t.Fatal(err)
	}
	for limit.Err() == nil {
		if _, _, err := other.Ping(limit, "a"); err != nil {
			break
		}
	}
	if limit.Err() != nil {
		t.Error("bob was revoked and still reaches the node")
	}
}
