package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// The job of a user: over two links, seen while it runs, with all that it
// leaves.
func TestJobOverTwoLinks(t *testing.T) {
	t.Parallel()
	m := startLine(t)
	g := newGate(t)
	p := newProject(t, "- debug: {msg: before the gate}\n"+g.task()+
		"- set_fact: {colour: vermilion, cacheable: true}\n"+
		"- debug: {msg: behind the gate}\n")
	run := p.run(m.a, "c")

	// The play cannot have ended: nobody has opened the gate yet.
	run.await(run.stdout, `before the gate`)
	if out := run.stdout.String(); strings.Contains(out, "behind the gate") || strings.Contains(out, "RECAP") {
		t.Errorf("the play did not wait: %s", out)
	}
	g.open()
	run.exits(0)

	out := run.stdout.String()
	for _, want := range []string{"\x1b[0;32mok: [here]", "\x1b[0;33mchanged: [here]", "behind the gate", "PLAY RECAP"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in the output: %s", want, out)
		}
	}
	lines := strings.Split(strings.TrimSuffix(run.stderr.String(), "\n"), "\n")
	if len(lines) != 2 || !regexp.MustCompile(`^via a → b → c, round trip [0-9.]+(µs|ms|s)$`).MatchString(lines[0]) ||
		lines[1] != "artifacts in "+filepath.Join(p.dir, "artifacts", "job") {
		t.Errorf("standard error: %q", lines)
	}

	p.status("successful", "0")
	p.wants("playbook_on_start", "playbook_on_play_start", "runner_on_ok", "playbook_on_stats")
	if !strings.Contains(plain(p.artifact("stdout")), "behind the gate") {
		t.Errorf("artifacts/job/stdout: %q", p.artifact("stdout"))
	}
	if !strings.Contains(p.artifact("command"), "ansible-playbook") {
		t.Errorf("artifacts/job/command: %q", p.artifact("command"))
	}
	if !strings.Contains(p.artifact("fact_cache/here"), "vermilion") {
		t.Errorf("artifacts/job/fact_cache/here: %q", p.artifact("fact_cache/here"))
	}
	m.c.leftNothing()
}

// released checks that nothing of its jobs is kept or runs on a node. The program
// has the answer to its release of the unit before it ends.
func (n *node) released() {
	n.t.Helper()
	n.lacks("data/units/*", "data/units/.*")
	if left := relatives(n.t, n.mark, "ansible"); len(left) > 0 {
		n.t.Errorf("still running on node %s: %v", n.id, left)
	}
}

// leftNothing is released for jobs that had the time to clear up.
func (n *node) leftNothing() {
	n.t.Helper()
	n.released()
	n.lacks("tmp/*", "home/.ansible/tmp/*")
}

func (n *node) lacks(patterns ...string) {
	n.t.Helper()
	for _, pattern := range patterns {
		left, err := filepath.Glob(filepath.Join(n.dir, pattern))
		if err != nil || len(left) > 0 {
			n.t.Errorf("node %s still has %q (%v)", n.id, left, err)
		}
	}
}

// A play's failures are its exit code, and lose nothing.
func TestPlaysThatFail(t *testing.T) {
	t.Parallel()
	n := startNode(t, "n", listener)
	for name, test := range map[string]struct {
		inventory, tasks, playbook string
		code                       int
		events                     []string
		output                     string
	}{
		"a task fails": {
			tasks: "- debug: {msg: so far so good}\n- fail: {msg: no further}\n",
			code:  2, events: []string{"runner_on_ok", "runner_on_failed", "playbook_on_stats"}, output: "no further",
		},
		"a host is unreachable": {
			// What ssh says where nobody listens, without a need for ssh.
			inventory: "far ansible_host=127.0.0.1 ansible_port=1 ansible_ssh_executable={{dir}}/ssh\n",
			tasks:     "- ping:\n",
			code:      4, events: []string{"runner_on_unreachable", "playbook_on_stats"}, output: "Connection refused",
		},
		"there is no such playbook": {
			playbook: "absent.yml", code: 1, output: "the playbook: absent.yml could not be found",
		},
		"the playbook is no YAML": {
			tasks: "- debug: {msg: [}\n", code: 4, output: "Syntax Error while loading YAML",
		},
		"the play has no such module": {
			tasks: "- no_such_module:\n", code: 4, output: "couldn't resolve module/action 'no_such_module'",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProject(t, test.tasks)
			if test.inventory != "" {
				p.write("inventory/hosts", strings.ReplaceAll(test.inventory, "{{dir}}", p.dir))
				p.write("ssh", "#!/bin/sh\necho 'ssh: connect to host 127.0.0.1 port 1: Connection refused' >&2\nexit 255\n")
				if err := os.Chmod(filepath.Join(p.dir, "ssh"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			run := p.run(n, "n", "-p", cmp.Or(test.playbook, "test.yml"))
			run.exits(test.code)
			run.says(fmt.Sprintf(`the job on node n ended with exit code %d \(failed\)`, test.code))
			p.status("failed", strconv.Itoa(test.code))
			p.wants(test.events...)
			if !strings.Contains(plain(run.stdout.String()), test.output) || !strings.Contains(plain(p.artifact("stdout")), test.output) {
				t.Errorf("no %q in the output %q or in the artifact %q", test.output, run.stdout, p.artifact("stdout"))
			}
		})
	}
	t.Cleanup(n.leftNothing)
}

// The submitter is told which time limit of the worker's is over.
func TestTimeLimitsAreToldApart(t *testing.T) {
	t.Parallel()
	n := startNode(t, "n", listener)
	for setting, want := range map[string]string{
		"idle_timeout: 3": `the job said nothing for 3 s \(idle_timeout\)`,
		"job_timeout: 2":  `the job took longer than its limit of 2 s \(timeout or job_timeout\)`,
	} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			p := newProject(t, "- command: sleep 600\n")
			p.write("env/settings", setting+"\n")
			run := p.run(n, "n")
			run.exits(254)
			run.says(`the job on node n ended with exit code 254 \(timeout\): ` + want)
			p.status("timeout", "254")
		})
	}
	t.Cleanup(n.leftNothing)
}

// What a play prints comes as it was printed.
func TestOutputIsUntouched(t *testing.T) {
	t.Parallel()
	n := startNode(t, "n", listener)
	p := newProject(t, "- debug: {msg: 'Grüße, 東京 \U0001F9E0 '}\n"+
		`- command: printf 'bytes \\x00\\x01\\xff\\xfe end, Grüße aus der Röhre'`+"\n"+
		"  register: raw\n- debug: {var: raw.stdout}\n"+
		`- debug: {msg: "escaped \x1b[31m and \t tab"}`+"\n")
	run := p.run(n, "n")
	run.exits(0)
	out := run.stdout.String()
	for _, want := range []string{"Grüße, 東京", "Grüße aus der Röhre", "end"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in the output: %q", want, out)
		}
	}
	if got := p.artifact("stdout"); !utf8.ValidString(got) || strings.ReplaceAll(got, "\r", "") != strings.ReplaceAll(out, "\r", "") {
		t.Errorf("artifacts/job/stdout is %q, standard output was %q", got, out)
	}
	p.wants("playbook_on_stats")
	n.leftNothing()
}

// Nothing, or events as JSON, in place of the play's output.
func TestOutputModes(t *testing.T) {
	t.Parallel()
	n := startNode(t, "n", listener)
	p := newProject(t, "- debug: {msg: hello}\n")
	quiet := p.run(n, "n", "--quiet")
	quiet.exits(0)
	if out := quiet.stdout.String(); out != "" {
		t.Errorf("--quiet prints %q", out)
	}
	if !strings.Contains(p.artifact("stdout"), "hello") {
		t.Errorf("artifacts/job/stdout: %q", p.artifact("stdout"))
	}
	kinds := len(p.events())

	p = newProject(t, "- debug: {msg: hello}\n")
	events := p.run(n, "n", "--json")
	events.exits(0)
	lines := strings.Split(strings.TrimSpace(events.stdout.String()), "\n")
	for _, line := range lines {
		var event struct{ UUID, Event string }
		if err := json.Unmarshal([]byte(line), &event); err != nil || event.UUID == "" || event.Event == "" {
			t.Errorf("--json prints %q (%v)", line, err)
		}
	}
	if len(lines) != kinds {
		t.Errorf("--json prints %d events, there are %d", len(lines), kinds)
	}
}
