package e2e

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/freeport"
)

// host is where somebody uses the program: a home of its own.
type host struct {
	t    *testing.T
	home string
	bin  string   // the program, where it is another one than all use
	env  []string // and further environment of its own
}

func newHost(t *testing.T) *host { return &host{t: t, home: t.TempDir()} }

func (h *host) start(args ...string) *process {
	h.t.Helper()
	env := append([]string{"HOME=" + h.home, "XDG_CONFIG_HOME=" + filepath.Join(h.home, ".config"), markName + "=" + h.home}, h.env...)
	bin := h.bin
	if bin == "" {
		bin = program(h.t)
	}
	return startProgram(h.t, bin, env, args...)
}

func (h *host) ok(args ...string) string {
	h.t.Helper()
	p := h.start(args...)
	p.exits(0)
	return p.stdout.String()
}

func (h *host) node(dir string) *process {
	h.t.Helper()
	p := h.start("node", "-c", filepath.Join(dir, "ranvier.yml"))
	h.t.Cleanup(func() {
		if p.running() {
			p.signal(syscall.SIGTERM)
		}
		<-p.done
	})
	p.await(p.stderr, "node is up")
	return p
}

func freePort(t *testing.T) string {
	t.Helper()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(freeport.Pick(t)))
}

// A mesh with identities, from nothing to a job, with the commands that the
// program itself says come next.
func TestIdentities(t *testing.T) {
	t.Parallel()
	hub, edge, alice, bob := newHost(t), newHost(t), newHost(t), newHost(t)
	hubDir, edgeDir := filepath.Join(hub.home, "data"), filepath.Join(edge.home, "data")
	addr := freePort(t)

	program(t) // which builds it, the first time
	begin := time.Now()
	hub.ok("ca", "init", "--mesh", "example", "--id", "hub", "--dir", hubDir, "--listen", addr)
	hub.node(hubDir)
	token := func(args ...string) string {
		t.Helper()
		return strings.TrimSpace(hub.ok(append([]string{"ca", "token", "--dir", hubDir}, args...)...))
	}
	edgeToken := token("--role", "leaf", "--id", "edge-*")
	if out := edge.ok("join", edgeToken, "--id", "edge-1", "--dir", edgeDir); !strings.Contains(out, "ranvier node -c "+filepath.Join(edgeDir, "ranvier.yml")) {
		t.Errorf("join does not say what comes next: %s", out)
	}
	edge.node(edgeDir)
	hub.ok("ping", "edge-1", "--socket", filepath.Join(hubDir, "control.sock"), "-n", "1", "--wait", patience.String())
	t.Logf("from nothing to a second node that answers: %v", time.Since(begin))

	again := edge.start("join", edgeToken, "--id", "edge-2", "--dir", filepath.Join(edge.home, "other"))
	again.exits(1)
	again.says("the CA refused: the token was used already: each lets one node join")

	alice.ok("join", token("--role", "client", "--id", "alice", "--work", "ansible-runner"))
	bob.ok("join", token("--role", "client", "--id", "bob"))
	p := newProject(t, "- debug: {msg: it is alice}\n")
	run := alice.start("run", p.dir, "-p", "test.yml", "-i", "job", "--via-receptor", "edge-1", "--receptor-peer", addr)
	run.exits(0)
	if !strings.Contains(run.stdout.String(), "it is alice") {
		t.Errorf("output: %s", run.stdout)
	}
	refused := bob.start("run", p.dir, "-p", "test.yml", "-i", "other", "--via-receptor", "edge-1", "--receptor-peer", addr)
	refused.exits(69)
	if !strings.Contains(refused.stderr.String(), "the certificate of bob is for work of the types []") {
		t.Errorf("refusal: %s", refused.stderr)
	}
	nobody := bob.start("ping", "hub", "-n", "1", "--receptor-peer", addr, "--identity", "none")
	nobody.exits(69)

	hub.ok("ca", "revoke", "alice", "--dir", hubDir)
	gone := alice.start("ping", "hub", "-n", "1", "--receptor-peer", addr)
	gone.exits(69)
	if !strings.Contains(gone.stderr.String(), "does it accept this node's certificate") && !strings.Contains(gone.stderr.String(), "revoked") {
		t.Errorf("a revoked user is told: %s", gone.stderr)
	}
	if list := hub.ok("ca", "list", "--dir", hubDir); strings.Contains(list, "alice") || !strings.Contains(list, "edge-1") {
		t.Errorf("members: %s", fmt.Sprint(list))
	}
}
