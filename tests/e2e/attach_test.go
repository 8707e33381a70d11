package e2e

import (
	"strings"
	"syscall"
	"testing"
)

// A job is left, found again by several, and shown as if nobody had been away.
func TestDetachAndAttach(t *testing.T) {
	t.Parallel()
	m := startLine(t)
	g := newGate(t)
	p := newProject(t, "- debug: {msg: before the end}\n"+g.task()+"- debug: {msg: after all}\n- fail: {msg: no further}\n")
	left := p.run(m.a, "c", "--detach")
	left.exits(0)
	unit := strings.TrimSpace(left.stdout.String())
	gate := g.arrived()

	list := ranvierOK(t, "work", "list", "c", "--receptor-peer", m.a.addr)
	if !strings.Contains(list, unit) || !strings.Contains(list, "Running") {
		t.Errorf("work list: %s, want %s", list, unit)
	}
	one := start(t, nil, "attach", unit, "--receptor-peer", m.a.addr, "--private-data-dir", p.dir, "--ident", "job")
	two := start(t, nil, "attach", unit, "--socket", m.c.socket)
	one.await(one.stdout, "before the end")
	two.await(two.stdout, "before the end")
	gate.Close()
	for _, w := range []*process{one, two} {
		w.exits(2)
		w.await(w.stdout, "(?s)before the end.*after all.*no further")
	}
	p.wants("playbook_on_start", "runner_on_ok", "runner_on_failed", "playbook_on_stats")
	late := ranvier(t, "attach", unit, "--receptor-peer", m.a.addr)
	late.exits(2)
	if late.stdout.String() != two.stdout.String() {
		t.Errorf("a late one sees\n%s\nanother saw\n%s", late.stdout, two.stdout)
	}
	other := ranvier(t, "work", "status", unit, "--socket", m.a.socket)
	other.exits(1)
	other.await(other.stderr, "belongs to somebody else")
	ranvierOK(t, "work", "release", unit, "--receptor-peer", m.a.addr)
	gone := start(t, nil, "attach", unit, "--receptor-peer", m.a.addr)
	gone.exits(1)
	gone.await(gone.stderr, "no such work unit")
	m.c.leftNothing()
}

// A unit is stored at one node and done by another.
func TestWorkCommands(t *testing.T) {
	t.Parallel()
	b := startNode(t, "b", listener+"- work-command: {worktype: cat, command: cat}\n- work-command: {worktype: sleep, command: sleep, params: '600'}\n")
	a := startNode(t, "a", b.peer())
	a.reaches("b")
	write(t, a.dir+"/in", "what comes back\n")
	if out := ranvierOK(t, "work", "submit", "b", "cat", "--payload", a.dir+"/in", "--socket", a.socket); out != "what comes back\n" {
		t.Errorf("stored: %q", out)
	}
	if out := ranvierOK(t, "work", "submit", "b", "cat", "--payload", a.dir+"/in", "--receptor-peer", b.addr); out != "what comes back\n" {
		t.Errorf("straight: %q", out)
	}
	unit := strings.TrimSpace(ranvierOK(t, "work", "submit", "b", "sleep", "--detach", "--receptor-peer", b.addr))
	ranvierOK(t, "work", "cancel", unit, "--receptor-peer", b.addr)
	results := ranvier(t, "work", "results", unit, "--receptor-peer", b.addr)
	results.exits(254)
	if out := ranvierOK(t, "work", "status", unit, "--json", "--receptor-peer", b.addr); !strings.Contains(out, `"State":"Canceled"`) {
		t.Errorf("status: %s", out)
	}
	ranvierOK(t, "work", "release", unit, "--receptor-peer", b.addr)
	none := start(t, nil, "work", "submit", "b", "none", "--receptor-peer", b.addr)
	none.exits(69)
	none.await(none.stderr, "it has cat, sleep")
	ranvier(t, "work", "status", "b/../..", "--receptor-peer", b.addr).exits(2)
	b.released()
	a.released()
}

// Who does not wait for a node that is away learns what becomes of the unit; one whose
// time is over before it began says so. The socket of the environment is for run as well.
func TestUnitsThatWait(t *testing.T) {
	t.Parallel()
	a := startNode(t, "a", listener)
	waits := start(t, nil, "work", "submit", "away", "cat", "--socket", a.socket)
	for !strings.Contains(ranvierOK(t, "work", "list", "a", "--socket", a.socket), "Waiting for node away") {
	}
	waits.signal(syscall.SIGINT)
	waits.exits(254)
	unit := waits.await(waits.stderr, `left unit (a/\S+), which goes on`)[1]
	ranvierOK(t, "work", "cancel", unit, "--socket", a.socket)

	socket := []string{"RANVIER_SOCKET=" + a.socket}
	left := start(t, socket, "run", newProject(t, "").dir, "-p", "play.yml", "--via-receptor", "away", "--ttl", "100ms", "--detach")
	left.exits(0)
	late := start(t, socket, "attach", strings.TrimSpace(left.stdout.String()))
	late.exits(75)
	late.await(late.stderr, "ended as Failed: expired")
	for _, command := range [][]string{{"work", "submit", "away", "cat"}, {"run", t.TempDir(), "-p", "play.yml", "--via-receptor", "away"}} {
		for _, ttl := range []string{"0s", "-1s"} {
			p := ranvier(t, append(command, "--socket", a.socket, "--ttl="+ttl)...)
			p.exits(2)
			p.says("--ttl " + ttl + ": give a time above zero.*")
		}
	}
}
