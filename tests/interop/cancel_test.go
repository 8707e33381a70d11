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
)

// TestInterrupted ends both workers in the middle of a play. What is on the
// stream then leads both tools' process to the same.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	dir := lay(t, map[string]string{"inventory/hosts": one,
		"project/site.yml": "- hosts: all\n  gather_facts: false\n  tasks:\n  - debug: msg=before\n  - command: sleep 600\n  - debug: msg=never\n"})
	for _, pair := range [][2]tool{{python, python}, {python, ours}, {ours, python}, {ours, ours}} {
		transmit, w := pair[0], pair[1]
		if transmit == python && !*all {
			continue
		}
		t.Run(string(transmit+" to "+w), func(t *testing.T) {
			t.Parallel()
			sent := transmit.run(t, nil, nil, "transmit", dir, "-i", "id1", "-p", "site.yml")
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
			for !strings.Contains(said.String(), `sleep 600`) && !strings.Contains(said.String(), `"task_action": "command"`) {
				if _, err := in.ReadString('\n'); err != nil {
					t.Fatalf("%v: %s", err, said.Bytes())
				}
			}
			began := time.Now()
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, in)
			_ = cmd.Wait() // its exit code is not part of the stream
			if took := time.Since(began); w == ours && took > time.Minute {
				t.Errorf("the cancel took %v", took)
			}
			r := parse(t, said.Bytes(), work)
			if last := r.statuses[len(r.statuses)-1]["status"]; last != "canceled" {
				t.Errorf("the last status is %v", last)
			}
			for _, process := range tools {
				to := t.TempDir()
				process.run(t, said.Bytes(), nil, "process", to, "-i", "id1")
				got := tree(t, filepath.Join(to, "artifacts", "id1"))
				if got["status"] != "canceled" || got["rc"] != "254" || !strings.Contains(got["stdout"], "before") || strings.Contains(got["stdout"], "never") {
					t.Errorf("%s's process: %v", process, got)
				}
			}
			if left := processes(t, work); len(left) > 0 && w == ours {
				t.Errorf("still there: %q", left)
			}
		})
	}
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
