package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// localhost is an inventory whose one host needs no connection, and no search
// for its Python.
const localhost = "here ansible_connection=local ansible_python_interpreter=/usr/bin/python3\n"

// project is a private data directory.
type project struct {
	t   *testing.T
	dir string
}

// newProject makes a private data directory with a play. A line of tasks
// begins with a dash.
func newProject(t *testing.T, tasks string) *project {
	t.Helper()
	p := &project{t, t.TempDir()}
	p.write("inventory/hosts", localhost)
	p.write("env/settings", "idle_timeout: 600\n")
	p.play(tasks)
	return p
}

func (p *project) write(name, text string) {
	p.t.Helper()
	write(p.t, filepath.Join(p.dir, name), text)
}

func (p *project) play(tasks string) {
	p.t.Helper()
	indented := strings.ReplaceAll(strings.TrimSuffix("\n"+tasks, "\n"), "\n", "\n    ")
	p.write("project/test.yml", "- hosts: all\n  gather_facts: false\n  tasks:"+indented+"\n")
}

// run sends the project's play to a node by way of another.
func (p *project) run(via *node, target string, more ...string) *process {
	p.t.Helper()
	args := append([]string{"run", p.dir, "-p", "test.yml", "--ident", "job", "--via-receptor", target, "--receptor-peer", via.addr}, more...)
	return start(p.t, []string{"ANSIBLE_FORCE_COLOR="}, args...)
}

// artifact reads an artifact of the run.
func (p *project) artifact(name string) string {
	p.t.Helper()
	return read(p.t, filepath.Join(p.dir, "artifacts", "job", name))
}

// status checks what the artifacts say of the end.
func (p *project) status(status, rc string) {
	p.t.Helper()
	if got := strings.TrimSpace(p.artifact("status")); got != status {
		p.t.Errorf("status %q, want %q", got, status)
	}
	if got := strings.TrimSpace(p.artifact("rc")); got != rc {
		p.t.Errorf("rc %q, want %q", got, rc)
	}
}

// events are the kinds of the events on disk, in the order of their counters,
// of which none may be missing.
func (p *project) events() []string {
	p.t.Helper()
	files, err := filepath.Glob(filepath.Join(p.dir, "artifacts", "job", "job_events", "*.json"))
	if err != nil {
		p.t.Fatal(err)
	}
	kinds := make([]string, len(files))
	for _, f := range files {
		var event struct {
			Counter int
			Event   string
			Stdout  string
		}
		if err := json.Unmarshal([]byte(read(p.t, f)), &event); err != nil {
			p.t.Errorf("%s: %v", f, err)
			continue
		}
		if event.Counter < 1 || event.Counter > len(files) || kinds[event.Counter-1] != "" {
			p.t.Errorf("%s: counter %d among %d events", f, event.Counter, len(files))
			continue
		}
		kinds[event.Counter-1] = event.Event
	}
	return kinds
}

// wants checks that events of certain kinds are there.
func (p *project) wants(kinds ...string) {
	p.t.Helper()
	events := p.events()
	for _, k := range kinds {
		if !slices.Contains(events, k) {
			p.t.Errorf("no event %s among %q", k, events)
		}
	}
}

// gate is a named pipe that holds a play up.
type gate struct {
	t    *testing.T
	path string
}

func newGate(t *testing.T) *gate {
	t.Helper()
	g := &gate{t, filepath.Join(t.TempDir(), "gate")}
	if err := syscall.Mkfifo(g.path, 0o600); err != nil {
		t.Fatal(err)
	}
	return g
}

// task waits at the gate.
func (g *gate) task() string { return "- command: head -c 1 " + g.path + "\n" }

// open lets one task through. It returns when the task has come.
func (g *gate) open() {
	g.t.Helper()
	g.arrived().Close()
}

// arrived waits until a task is at the gate; closing what it returns lets the
// task go on.
func (g *gate) arrived() *os.File {
	g.t.Helper()
	type opened struct {
		f   *os.File
		err error
	}
	done := make(chan opened, 1)
	go func() {
		f, err := os.OpenFile(g.path, os.O_WRONLY, 0) // waits for a reader
		done <- opened{f, err}
	}()
	select {
	case o := <-done:
		if o.err != nil {
			g.t.Fatal(o.err)
		}
		return o.f
	case <-time.After(patience):
		g.t.Fatalf("no task came to the gate in %v", patience)
		return nil
	}
}

// plain is a text without colours.
func plain(text string) string {
	return regexp.MustCompile(`\x1b\[[0-9;]*m`).ReplaceAllString(text, "")
}
