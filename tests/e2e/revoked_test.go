package e2e

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A revoked user's run ends with the reason, and so does what he tries next. His
// job goes on until the target's operator ends it. A revoked node says so in its log.
func TestRevokedUserAndNode(t *testing.T) {
	t.Parallel()
	hub, edge, alice := newHost(t), newHost(t), newHost(t)
	hubDir, edgeDir := filepath.Join(hub.home, "data"), filepath.Join(edge.home, "data")
	addr := freePort(t)
	hub.ok("ca", "init", "--mesh", "example", "--id", "hub", "--dir", hubDir, "--listen", addr)
	hub.node(hubDir)
	token := func(args ...string) string {
		t.Helper()
		return strings.TrimSpace(hub.ok(append([]string{"ca", "token", "--dir", hubDir}, args...)...))
	}
	edge.ok("join", token("--role", "leaf", "--id", "edge"), "--id", "edge", "--dir", edgeDir)
	leaf := edge.node(edgeDir)
	socket := filepath.Join(edgeDir, "control.sock")
	hub.ok("ping", "edge", "--socket", filepath.Join(hubDir, "control.sock"), "-n", "1", "--wait", patience.String())
	alice.ok("join", token("--role", "client", "--id", "alice", "--work", "ansible-runner"))

	g := newGate(t)
	p := newProject(t, g.task())
	run := alice.start("run", p.dir, "-p", "test.yml", "-i", "job", "--via-receptor", "edge", "--receptor-peer", addr)
	defer g.arrived().Close()
	list := edge.ok("work", "list", "edge", "--socket", socket, "--json")
	unit := regexp.MustCompile(`[0-9A-HJKMNP-TV-Z]{26}`).FindString(list)
	if unit == "" {
		t.Fatalf("work list: %s", list)
	}

	hub.ok("ca", "revoke", "alice", "--dir", hubDir)
	run.exits(75)
	run.await(run.stderr, "alice is no member of mesh example any more: the CA has revoked this key")
	next := alice.start("ping", "edge", "-n", "100", "--receptor-peer", addr)
	next.exits(69)
	next.await(next.stderr, "alice is no member of mesh example any more")
	if status := edge.ok("work", "status", "edge/"+unit, "--socket", socket); !strings.Contains(status, "Running") {
		t.Errorf("the job of who was revoked: %s", status)
	}
	edge.ok("work", "cancel", "edge/"+unit, "--socket", socket)

	hub.ok("ca", "revoke", "edge", "--dir", hubDir)
	leaf.await(leaf.stderr, "this node is cut off.*edge is no member of mesh example any more")
}
