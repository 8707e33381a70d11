package e2e

import (
	"strings"
	"syscall"
	"testing"
)

// A job is handed to a running node, which has it done when its node is there,
// whatever becomes of that node and of itself meanwhile.
func TestRunThroughBroker(t *testing.T) {
	t.Parallel()
	m := startLine(t)
	g := newGate(t)
	p := newProject(t, g.task()+"- debug: {msg: it is done}\n- fail: {msg: no further}\n")
	m.c.stop()
	run := start(t, nil, "run", p.dir, "-p", "test.yml", "--ident", "job", "--via-receptor", "c", "--socket", m.a.socket)
	m.a.await(m.a.stderr, "work unit accepted")
	m.c.restart()
	gate := g.arrived()
	m.a.process.signal(syscall.SIGKILL)
	m.a.restart()
	gate.Close()
	run.exits(2)
	run.await(run.stdout, "(?s)it is done.*no further")
	p.status("failed", "2")
	p.wants("playbook_on_start", "runner_on_ok", "runner_on_failed", "playbook_on_stats")
	m.a.released()
	m.c.await(m.c.stderr, "work unit released")
	m.c.released()

	left := start(t, nil, "run", p.dir, "-p", "test.yml", "--ident", "left", "--via-receptor", "c", "--socket", m.a.socket, "--detach")
	left.exits(0)
	unit := strings.TrimSpace(left.stdout.String())
	if !strings.HasPrefix(unit, "a/") {
		t.Errorf("left: %q", unit)
	}
	g.arrived().Close()
	again := start(t, nil, "attach", unit, "--socket", m.a.socket)
	again.exits(2)
	again.await(again.stdout, "(?s)it is done.*no further")
	ranvierOK(t, "work", "release", unit, "--socket", m.a.socket)
	m.a.released()
}
