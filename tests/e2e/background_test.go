package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// background is a job that was started in the background, and is in its middle.
func background(t *testing.T) (n *node, p *project, pid string) {
	t.Helper()
	n = startNode(t, "n", listener)
	g := newGate(t)
	p = newProject(t, "- debug: {msg: before the end}\n"+g.task())
	begun := ranvier(t, "start", p.dir, "-p", "test.yml", "--ident", "job", "--via-receptor", "n", "--receptor-peer", n.addr)
	begun.exits(0)
	if said := begun.stdout.String() + begun.stderr.String(); said != "" {
		t.Errorf("start says %q", said)
	}
	t.Cleanup(func() { ranvier(t, "stop", p.dir) })
	came := g.arrived()
	t.Cleanup(func() { came.Close() })
	pid, _, _ = strings.Cut(read(t, filepath.Join(p.dir, "pid")), "\n")
	return n, p, pid
}

// A job in the background is told apart from none, is alone, is not cleaned up,
// and ends when it is told to, with all that it started.
func TestBackground(t *testing.T) {
	t.Parallel()
	n, p, pid := background(t)
	ranvier(t, "is-alive", p.dir).exits(0)
	second := ranvier(t, "start", p.dir, "-p", "test.yml", "--via-receptor", "n", "--receptor-peer", n.addr)
	second.exits(1)
	second.says(`start: .*: a job is running there \(process ` + pid + `\)`)
	clean := ranvier(t, "worker", "cleanup", "--file-pattern", p.dir, "--grace-period", "0")
	clean.exits(0)
	clean.await(clean.stdout, `Excluding running project .*\n\(changed: False\)\n$`)

	stop := ranvier(t, "stop", p.dir)
	stop.exits(0)
	stop.says("")
	p.status("canceled", "254")
	if left := relatives(t, n.mark, "ansible"); len(left) > 0 {
		t.Errorf("still running on node n: %v", left)
	}
	ranvier(t, "is-alive", p.dir).exits(1)
	again := ranvier(t, "stop", p.dir)
	again.exits(1)
	again.says("stop: no job is running in the background in .*")
	if _, err := os.Stat(filepath.Join(p.dir, "pid")); err == nil {
		t.Error("the pid file is still there")
	}
	log := filepath.Join(p.dir, "daemon.log")
	if info, err := os.Stat(log); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if text := read(t, log); !strings.Contains(text, "ranvier: the job on node n was canceled\n") {
		t.Errorf("daemon.log: %q", text)
	}
	clean = ranvier(t, "worker", "cleanup", "--file-pattern", p.dir, "--grace-period", "0")
	clean.await(clean.stdout, `\(changed: True\)\n$`)
	if _, err := os.Stat(p.dir); err == nil {
		t.Error("the directory is still there")
	}
}

// A job that hangs is killed, and its end is written for it.
func TestStopOfAJobThatHangs(t *testing.T) {
	t.Parallel()
	n, p, pid := background(t)
	n.jobsGoOn = true // who cannot be asked to does not cancel its job
	var number int
	if _, err := fmt.Sscan(pid, &number); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(number, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ranvier(t, "stop", p.dir, "--timeout", "500ms").exits(0)
	p.status("canceled", "254")
	ranvier(t, "is-alive", p.dir).exits(1)
}

// What is wrong with the command line is told before anything goes to the
// background, and a job that was killed is in nobody's way.
func TestStartAfterTrouble(t *testing.T) {
	t.Parallel()
	n := startNode(t, "n", listener)
	p := newProject(t, "- debug:\n")
	ranvier(t, "start", p.dir, "--via-receptor", "n").exits(2)
	ranvier(t, "start", filepath.Join(p.dir, "gone"), "-p", "test.yml", "--via-receptor", "n").exits(1)
	if entries, err := os.ReadDir(p.dir); err != nil || len(entries) != 3 {
		t.Errorf("left: %v, %v", entries, err)
	}
	p.write("pid", "4194304\n/nowhere\n")
	ranvier(t, "is-alive", p.dir).exits(1)
	ranvier(t, "stop", p.dir).exits(1)
	gate := newGate(t)
	p.play(gate.task())
	ranvier(t, "start", p.dir, "-p", "test.yml", "--ident", "job", "--via-receptor", "n", "--receptor-peer", n.addr).exits(0)
	gate.open()
	n.await(n.stderr, "work unit released")
	ranvier(t, "stop", p.dir).wait() // it may be gone already; when this returns it is
	p.status("successful", "0")
}

// A job of this machine's ends as one of another node does, at once, and under
// the Python tool's name as well.
func TestBackgroundHere(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	p := newProject(t, g.task())
	link := filepath.Join(t.TempDir(), "ansible-runner")
	if err := os.Symlink(program(t), link); err != nil {
		t.Fatal(err)
	}
	run := func(want int, args ...string) {
		t.Helper()
		cmd := exec.Command(link, args...)
		cmd.Env = append(os.Environ(), markName+"="+p.dir)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != want || want == 0 && len(out) > 0 {
			t.Errorf("ansible-runner %q: exit code %d, want %d: %s", args, code, want, out)
		}
	}
	run(0, "start", p.dir, "-p", "test.yml", "-i", "job")
	defer g.arrived().Close()
	if plays := relatives(t, p.dir, "ansible-playbook"); len(plays) == 0 {
		t.Error("no ansible-playbook: the test cannot see it")
	}
	run(0, "is-alive", p.dir)
	run(1, "start", p.dir, "-p", "test.yml")
	run(0, "stop", p.dir)
	if left := relatives(t, p.dir, ""); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
	p.status("canceled", "254")
	run(1, "is-alive", p.dir)
	run(1, "stop", p.dir)
}
