package e2e

import (
	"net"
	"os/signal"
	"strings"
	"syscall"
	"testing"
)

// The runner over there is killed in the middle of a play.
func TestWorkerKilled(t *testing.T) {
	t.Parallel()
	n := startNode(t, "n", listener)
	g := newGate(t)
	p := newProject(t, "- debug: {msg: before the end}\n"+g.task())
	run := p.run(n, "n")
	run.await(run.stdout, "before the end")
	defer g.arrived().Close()

	workers := relatives(t, n.mark, "ranvier worker")
	if len(workers) != 1 {
		t.Fatalf("workers: %v", workers)
	}
	if err := syscall.Kill(workers[0].pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	run.exits(75)
	run.says(`the job on node n ended as Failed: ranvier worker was killed by signal 9 \(killed\).*`)
	p.wants("playbook_on_start", "playbook_on_play_start", "runner_on_ok")
	p.brokeOff("before the end")
	n.released()
	n.serves()
}

// brokeOff checks the artifacts of a job whose end nobody knows.
func (p *project) brokeOff(said string) {
	p.t.Helper()
	if status := p.artifact("status"); status != "error" {
		p.t.Errorf("artifacts/job/status: %q", status)
	}
	if !strings.Contains(p.artifact("stdout"), said) {
		p.t.Errorf("artifacts/job/stdout: %q", p.artifact("stdout"))
	}
}

// serves checks that a node does jobs.
func (n *node) serves() {
	n.t.Helper()
	p := newProject(n.t, "- debug: {msg: still here}\n")
	run := p.run(n, n.id)
	run.exits(0)
	p.status("successful", "0")
}

// A relay on the only way is killed in the middle of a play, and who watches does
// not want to wait for it. The play goes on.
func TestRelayKilled(t *testing.T) {
	t.Parallel()
	b := startNode(t, "b", listener)
	m := line{startNode(t, "a", listener+b.peer()), b, startNode(t, "c", listener+b.peer())}
	m.b.jobsGoOn, m.c.jobsGoOn = true, true
	m.a.reaches("c")
	g := newGate(t)
	p := newProject(t, "- debug: {msg: before the end}\n"+g.task())
	run := p.run(m.a, "c", "--reattach-time", "0")
	run.await(run.stdout, "before the end")
	defer g.arrived().Close()

	m.b.signal(syscall.SIGKILL)
	run.exits(75)
	run.says(`the link to the worker was lost after \d+ events: the connection to node c broke .*; the job may still run on node c, as unit \w+`)
	p.wants("playbook_on_start", "runner_on_ok")
	p.brokeOff("before the end")
	m.a.await(m.a.stderr, `link down" node=b`)
	late := p.run(m.a, "c")
	late.exits(69)
	late.says(`stream to c: node a refused: no route to node c: known are a.*`)
	m.c.serves()
}

// The only relay and the node that runs the play are killed, and started again:
// the play does not notice, and who watches sees all of it.
func TestEveryNodeIsKilledMidPlay(t *testing.T) {
	t.Parallel()
	b := startNode(t, "b", listener)
	m := line{startNode(t, "a", listener+b.peer()), b, startNode(t, "c", listener+b.peer())}
	m.a.reaches("c")
	g := newGate(t)
	p := newProject(t, "- debug: {msg: before the end}\n"+g.task()+"- debug: {msg: after all}\n")
	run := p.run(m.a, "c")
	run.await(run.stdout, "before the end")
	gate := g.arrived()

	m.b.signal(syscall.SIGKILL)
	m.b.restart()
	m.c.signal(syscall.SIGKILL)
	m.c.restart()
	m.a.signal(syscall.SIGTERM)
	m.a.restart()
	gate.Close()
	run.exits(0)
	p.wants("playbook_on_start", "runner_on_ok", "playbook_on_stats")
	if n := strings.Count(run.stdout.String(), "before the end"); n != 1 {
		t.Errorf("%d times before the end:\n%s", n, run.stdout.String())
	}
	run.await(run.stdout, "after all")
	m.c.leftNothing()
}

// Ctrl-C ends the play over there, and brings what there is of it.
func TestCancel(t *testing.T) {
	t.Parallel()
	m := startLine(t)
	g := newGate(t)
	p := newProject(t, "- debug: {msg: before the end}\n"+g.task()+"- debug: {msg: too far}\n")
	run := p.run(m.a, "c")
	run.await(run.stdout, "before the end")
	defer g.arrived().Close()
	if plays := relatives(t, m.c.mark, "ansible-playbook"); len(plays) == 0 {
		t.Error("no ansible-playbook on node c: the test cannot see it")
	}

	run.signal(syscall.SIGINT)
	run.await(run.stderr, `ranvier: canceling the job on node c \(press Ctrl-C again to leave without waiting\)\n`)
	run.exits(254)
	run.await(run.stderr, `ranvier: the job on node c was canceled\n$`)
	if strings.Contains(run.stdout.String(), "too far") {
		t.Error("the play went on")
	}
	if plays := relatives(t, m.c.mark, "ansible"); len(plays) > 0 {
		t.Errorf("still running on node c: %v", plays)
	}
	p.status("canceled", "254")
	p.wants("playbook_on_start", "runner_on_ok")
	if !strings.Contains(p.artifact("stdout"), "before the end") {
		t.Errorf("artifacts/job/stdout: %q", p.artifact("stdout"))
	}
	m.c.released()
}

// Who closes the terminal cancels as well.
func TestHangupCancels(t *testing.T) {
	t.Parallel()
	if signal.Ignored(syscall.SIGHUP) {
		t.Skip("SIGHUP is ignored here, and so by what this starts")
	}
	n := startNode(t, "n", listener)
	g := newGate(t)
	p := newProject(t, "- debug: {msg: before the end}\n"+g.task())
	run := p.run(n, "n")
	run.await(run.stdout, "before the end")
	defer g.arrived().Close()
	run.signal(syscall.SIGHUP)
	run.exits(254)
	run.await(run.stderr, `ranvier: the job on node n was canceled\n$`)
	p.status("canceled", "254")
	n.released()
}

// A program that is missing is missing on a node, which people know by its id.
func TestMissingProgramNamesTheNode(t *testing.T) {
	t.Parallel()
	n := startNode(t, "edge7", listener)
	p := newProject(t, "- debug: {msg: never}\n")
	p.write("env/envvars", "PATH: /nowhere\n")
	run := p.run(n, "edge7")
	run.await(run.stderr, `ansible-playbook not found on node edge7: install ansible-core`)
}

// Who presses Ctrl-C twice does not wait.
func TestCancelTwice(t *testing.T) {
	t.Parallel()
	n := startNode(t, "n", listener)
	g := newGate(t)
	p := newProject(t, g.task())
	run := p.run(n, "n")
	defer g.arrived().Close()

	run.signal(syscall.SIGINT)
	run.await(run.stderr, "canceling the job")
	n.await(n.stderr, "work unit is being canceled")
	run.signal(syscall.SIGINT)
	run.exits(254)
	n.await(n.stderr, `work unit ended.*state=Canceled`) // over there it is over as well
}

// Ctrl-C while the first peer has yet to answer.
func TestCancelWhileConnecting(t *testing.T) {
	t.Parallel()
	came := make(chan struct{}, 1)
	peer := serve(t, func(c net.Conn) {
		came <- struct{}{}
		hold(c)
	})
	run := start(t, nil, "run", newProject(t, "- debug:\n").dir, "-p", "test.yml", "--via-receptor", "n", "--receptor-peer", peer)
	<-came
	run.signal(syscall.SIGINT)
	run.exits(254)
	run.says(`.*canceled.*`)
}

// Ctrl-C while the job is on its way: it never starts.
func TestCancelWhileSending(t *testing.T) {
	t.Parallel()
	n := startNode(t, "n", listener)
	p := newProject(t, "- debug:\n")
	p.big(60 << 20)
	run := p.run(n, "n")
	n.await(n.stderr, "work unit accepted")
	run.signal(syscall.SIGINT)
	run.exits(254)
	run.await(run.stderr, `ranvier: the job on node n was canceled\n$`)
	n.await(n.stderr, "work unit ended")
	if strings.Contains(n.stderr.String(), "work unit started") {
		t.Error("a job that had not come whole was started")
	}
	n.released()
}
