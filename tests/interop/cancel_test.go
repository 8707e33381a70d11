package interop

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/newansible"
)

// TestInterrupted ends both workers in the middle of a play. The events up to
// there are the same, and what is on the stream then leads both tools' process
// to the same.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	t.Run("installed", func(t *testing.T) {
		t.Parallel()
		interrupted(t, installed)
	})
	t.Run("newer", func(t *testing.T) {
		t.Parallel()
		newansible.Env(t)
		interrupted(t, newer)
	})
}

func interrupted(t *testing.T, tools []tool) {
	dir := lay(t, map[string]string{"inventory/hosts": one,
		"project/site.yml": "- hosts: all\n  gather_facts: false\n  tasks:\n  - debug: msg=before\n  - command: sleep 600\n  - debug: msg=never\n"})
	var want run
	for _, transmit := range tools {
		if !transmit.ours() && !*all {
			continue
		}
		sent := transmit.run(t, nil, nil, "transmit", dir, "-i", "id1", "-p", "site.yml")
		for _, w := range tools {
			who := transmit.name + " transmit, " + w.name + " worker"
			got := interrupt(t, tools, w, sent, who)
			if want.events == nil {
				want = got
				continue
			}
			compareEvents(t, who, true, want, got)
		}
	}
}

// interrupt ends a worker that has begun to sleep, and returns what it said until then.
func interrupt(t *testing.T, tools []tool, w tool, sent []byte, who string) run {
	t.Helper()
	work := filepath.Join(t.TempDir(), "worker")
	cmd := w.command(t, nil, "worker", "--private-data-dir", work)
	cmd.Stdin = bytes.NewReader(sent)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	in := bufio.NewReader(io.TeeReader(pipe, &said))
	for line := ""; !begun(line); {
		if line, err = in.ReadString('\n'); err != nil {
			t.Fatalf("%s: %v: %s", who, err, said.Bytes())
		}
	}
	began := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, in)
	_ = cmd.Wait() // its exit code is not part of the stream
	if took := time.Since(began); w.ours() && took > time.Minute {
		t.Errorf("%s: the cancel took %v", who, took)
	}
	if left := processes(t, work); len(left) > 0 && w.ours() {
		t.Errorf("%s: still there: %q", who, left)
	}
	for _, process := range tools {
		to := t.TempDir()
		process.run(t, said.Bytes(), nil, "process", to, "-i", "id1")
		got := tree(t, filepath.Join(to, "artifacts", "id1"))
		if got["status"] != "canceled" || got["rc"] != "254" || !strings.Contains(got["stdout"], "before") || strings.Contains(got["stdout"], "never") {
			t.Errorf("%s, %s process: %v", who, process.name, got)
		}
	}
	r := parse(t, w, said.Bytes(), work)
	if last := r.statuses[len(r.statuses)-1]["status"]; last != "canceled" {
		t.Errorf("%s: the last status is %v", who, last)
	}
	for i, e := range r.events {
		data, _ := e["event_data"].(map[string]any)
		if e["event"] == "runner_on_start" && data["task_action"] == "command" {
			r.events = r.events[:i+1]
			return r
		}
	}
	t.Fatalf("%s: the sleep is not among the events: %s", who, said.Bytes())
	return run{}
}

// begun tells whether a line of the stream says that the play's command runs.
func begun(line string) bool {
	return strings.Contains(line, `"event": "runner_on_start"`) && strings.Contains(line, `"task_action": "command"`)
}

// processes returns the command lines that contain word.
func processes(t *testing.T, word string) (found []string) {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range dirs {
		text, _ := os.ReadFile(file)
		if bytes.Contains(text, []byte(word)) {
			found = append(found, string(bytes.ReplaceAll(text, []byte{0}, []byte{' '})))
		}
	}
	return found
}

// TestKeepalives has both newer workers say that they live while their job is
// silent; neither process takes that for an event.
func TestKeepalives(t *testing.T) {
	t.Parallel()
	newansible.Env(t)
	dir := lay(t, map[string]string{"inventory/hosts": one,
		"project/site.yml": "- hosts: all\n  gather_facts: false\n  tasks:\n  - command: sleep 3\n"})
	sent := newer[0].run(t, nil, nil, "transmit", dir, "-i", "id1", "-p", "site.yml")
	for _, w := range newer {
		said := w.run(t, sent, nil, "worker", "--private-data-dir", filepath.Join(t.TempDir(), "worker"), "--keepalive-seconds", "1")
		if !bytes.Contains(said, []byte("{\"event\": \"keepalive\", \"counter\": 0, \"uuid\": 0}\n")) {
			t.Errorf("%s worker says nothing: %s", w.name, said)
		}
		for _, process := range newer {
			to := t.TempDir()
			process.run(t, said, nil, "process", to, "-i", "id1")
			got := tree(t, filepath.Join(to, "artifacts", "id1"))
			if _, kept := got["job_events/0-0.json"]; kept || got["rc"] != "0" {
				t.Errorf("%s worker, %s process: %v", w.name, process.name, got)
			}
		}
	}
}
