package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Two jobs of one user at the same time are two nodes below his id: one's end
// is not the other's.
func TestTwoRunsOfOneUser(t *testing.T) {
	t.Parallel()
	h := startHub(t, "")
	alice, self := h.member("alice", "client", "ansible-runner")
	if self.ID != "alice" {
		t.Fatalf("she is %s", self.ID)
	}
	var runs [2]*process
	var gates [2]*os.File
	for i, word := range []string{"first", "second"} {
		g := newGate(t)
		p := newProject(t, "- debug: {msg: begin of the "+word+"}\n"+g.task()+"- debug: {msg: end of the "+word+"}\n")
		runs[i] = alice.start("run", p.dir, "-p", "test.yml", "-i", "job", "--via-receptor", "hub", "--receptor-peer", h.addr)
		runs[i].await(runs[i].stdout, "begin of the "+word)
		gates[i] = g.arrived()
		defer gates[i].Close()
	}
	alice.ok("ping", "hub", "-n", "1", "--receptor-peer", h.addr) // a third node of hers
	runs[0].signal(syscall.SIGINT)
	runs[0].exits(254)
	if !runs[1].running() {
		t.Fatalf("the second has ended with the first: %s", runs[1].stderr)
	}
	gates[1].Close()
	runs[1].exits(0)
	if out := runs[1].stdout.String(); !strings.Contains(out, "end of the second") || strings.Contains(out, "the first") {
		t.Errorf("output: %s", out)
	}
}

// What is done with a CA in its years, with the program and while nodes run: the
// root's key is kept elsewhere, the issuer is renewed, the CA's directory is
// lost and restored, the root is replaced by another.
func TestCAOverYears(t *testing.T) {
	t.Parallel()
	h := startHub(t, "")
	ca := func(args ...string) []string { return append(append([]string{"ca"}, args...), "--dir", h.dir) }
	reaches := func(id string) {
		t.Helper()
		h.ok("ping", id, "--socket", h.socket(), "-n", "1", "--wait", patience.String())
	}
	leaf := func(id string) {
		t.Helper()
		m := newHost(t)
		dir := filepath.Join(m.home, "data")
		m.ok("join", h.token("--role", "leaf", "--id", id), "--dir", dir)
		m.node(dir)
		reaches(id)
	}
	refused := func(want string, args ...string) {
		t.Helper()
		p := h.start(args...)
		p.exits(1)
		if !strings.Contains(p.stderr.String(), want) {
			t.Errorf("ranvier %v: %s, want %q", args, p.stderr, want)
		}
	}
	leaf("early")

	// The root's key is moved away: the issuer goes on.
	rootKey, away := filepath.Join(h.dir, "ca", "root.key"), filepath.Join(t.TempDir(), "usb.key")
	if err := os.Rename(rootKey, away); err != nil {
		t.Fatal(err)
	}
	leaf("offline")
	h.member("gone", "client", "")
	h.ok(ca("revoke", "gone")...)
	refused("--root-key", ca("issuer")...)
	refused("--root-key", ca("rollover")...)
	h.ok(ca("issuer", "--root-key", away)...)
	leaf("new-issuer")
	reaches("early")

	// The CA's directory is lost; the backup has it.
	pass, file := filepath.Join(t.TempDir(), "pass"), filepath.Join(t.TempDir(), "backup")
	write(t, pass, "correct horse\n")
	h.ok(ca("backup", file, "--passphrase-file", pass)...)
	leaf("after")
	dropped, _ := h.member("dropped", "client", "")
	pings := func() bool { return dropped.start("ping", "early", "--receptor-peer", h.addr, "-n", "1").wait() == 0 }
	h.ok(ca("revoke", "dropped")...)
	for pings() { // until the node has heard of it
	}
	h.node.signal(syscall.SIGTERM)
	<-h.node.done
	if err := os.RemoveAll(filepath.Join(h.dir, "ca")); err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(t.TempDir(), "wrong")
	write(t, wrong, "battery staple\n")
	refused("passphrase", ca("restore", file, "--passphrase-file", wrong)...)
	h.ok(ca("restore", file, "--passphrase-file", pass)...)
	h.node = h.host.node(h.dir)
	reaches("early")
	leaf("restored")

	// The node and the members know what came after the backup.
	reaches("after")
	refused("after: the id belongs to another node", ca("token", "--role", "leaf", "--id", "after")...)
	h.ok(ca("revoke", "after")...)
	if pings() {
		t.Error("a restored CA believes whom it had revoked")
	}

	// The whole host is lost: the backup makes its node again, with another key.
	h.ok(ca("backup", file+".2", "--passphrase-file", pass)...)
	h.node.signal(syscall.SIGTERM)
	<-h.node.done
	if err := os.RemoveAll(h.dir); err != nil {
		t.Fatal(err)
	}
	h.ok(ca("restore", file+".2", "--passphrase-file", pass, "--listen", h.addr)...)
	h.node = h.host.node(h.dir)
	reaches("early")
	leaf("anew")
	h.ok(ca("renew")...)
	h.ok("reload", "--socket", h.socket())
	reaches("anew")

	// A new root beside the old one, and then in its place.
	h.ok(ca("rollover", "--root-key", away)...)
	reaches("early") // it knows the old root alone
	leaf("overlap")
	refused("have not renewed", ca("rollover", "--finish")...)
	h.ok(ca("rollover", "--finish", "--force")...)
	reaches("overlap")
	leaf("late")
	gone := h.start("ping", "early", "--socket", h.socket(), "-n", "1")
	if code := gone.wait(); code == 0 {
		t.Error("a member of the old root alone is still reached")
	}
	refused("not the key of this CA's root", ca("issuer", "--root-key", away)...)
	if !h.node.running() {
		t.Error("the node has ended")
	}
}
