package mitogen

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// eventsPlay has what goes through the connection, and its failures.
const eventsPlay = `
- hosts: all
  gather_facts: false
  tasks:
  - shell: tr '\\0' ' ' < /proc/$PPID/cmdline | grep -c mitogen || true
  - ping:
  - command: printf 'grün %s\n' {{ item }}
    loop: [1, 2]
  - copy: {content: x, dest: "{{ made }}"}
    notify: told
  - command: echo hidden
    no_log: true
  - command: /bin/false
    ignore_errors: true
  - debug: msg=skipped
    when: false
  - fail: msg=no
  handlers: [{name: told, debug: }]
`

// TestEventsAreThoseOfLinear: the whole program, its worker and its callback tell
// of a play by Mitogen over a real sshd what they tell of the same play without.
func TestEventsAreThoseOfLinear(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(t.TempDir(), "ranvier")
	if out, err := exec.Command("go", "build", "-o", bin, "github.com/ranvier-mesh/ranvier/cmd/ranvier").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	host, home := sshd(t), t.TempDir()
	told := make(map[string][]string)
	for _, strategy := range []string{"linear", "mitogen_linear"} {
		dir := files(t, map[string]string{"project/site.yml": eventsPlay,
			"inventory/hosts": "there " + host + " made=" + filepath.Join(t.TempDir(), "made") + "\n"})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, bin, "run", dir, "-p", "site.yml", "-i", "id1", "--strategy", strategy)
		cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + home, "LC_ALL=C.UTF-8"}
		out, err := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != 2 {
			t.Fatalf("%s: %v\n%s", strategy, err, out)
		}
		var by string
		told[strategy], by = readEvents(t, filepath.Join(dir, "artifacts", "id1", "job_events"))
		if mitogen := by != "0"; mitogen != (strategy != "linear") {
			t.Errorf("%s: run by Mitogen: %v (%q)", strategy, mitogen, by)
		}
	}
	if len(told["linear"]) < 20 {
		t.Errorf("only %d events", len(told["linear"]))
	}
	if diff := cmp.Diff(told["linear"], told["mitogen_linear"]); diff != "" {
		t.Errorf("the events differ (- linear's): %s", diff)
	}
}

// readEvents returns what the events say that does not depend on time and place, and
// what the first task found.
func readEvents(t *testing.T, dir string) (lines []string, by string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	counter := func(e os.DirEntry) int {
		n, _, _ := strings.Cut(e.Name(), "-")
		c, _ := strconv.Atoi(n)
		return c
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return counter(a) - counter(b) })
	for _, entry := range entries {
		data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		var e struct {
			Event string
			Data  struct {
				Host, Task string
				Action     string `json:"task_action"`
				Res        struct {
					Changed, Failed   bool
					Ping, Msg, Stdout any
					Censored          string
				}
				OK, Failures, Ignored, Skipped map[string]int
			} `json:"event_data"`
		}
		if err := json.Unmarshal(data, &e); err != nil {
			t.Fatalf("%v: %s", err, data)
		}
		if e.Event == "verbose" {
			continue // what Ansible warns of
		}
		if by == "" && e.Event == "runner_on_ok" {
			by, e.Data.Res.Stdout = fmt.Sprint(e.Data.Res.Stdout), nil
		}
		lines = append(lines, fmt.Sprintf("%s %+v", e.Event, e.Data))
	}
	return lines, by
}
