package ansiblerunner_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/ranvier-mesh/ranvier/worktypes"
	"github.com/ranvier-mesh/ranvier/worktypes/ansiblerunner"
	"github.com/ranvier-mesh/ranvier/worktypes/worktypetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	shortPlay = "- {hosts: all, gather_facts: false, tasks: [{debug: {msg: 'hello of the play'}}]}\n"
	longPlay  = `
- hosts: all
  gather_facts: false
  tasks:
  - debug: {msg: now it sleeps}
  - command: sleep 600
`
)

// ranvier builds the program whose worker is the type's.
func ranvier(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "ranvier")
	if out, err := exec.Command("go", "build", "-o", bin, "github.com/ranvier-mesh/ranvier/cmd/ranvier").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

func find(t *testing.T, program string) worktypes.Type {
	t.Helper()
	typ, err := ansiblerunner.Find(program, "edge7")
	if err != nil {
		t.Fatal(err)
	}
	return typ
}

// statuses returns the stream's statuses and whether it has its last line.
func statuses(t *testing.T, stream []byte) (seen []string, eof bool) {
	t.Helper()
	for line := range bytes.Lines(stream) {
		if line[0] != '{' {
			_, line, _ = bytes.Cut(line, []byte("{")) // an archive has no newline after it
			line = append([]byte("{"), line...)
		}
		var v struct {
			Status string `json:"status"`
			EOF    bool   `json:"eof"`
		}
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatalf("a line of the stream: %v: %q", err, line)
		}
		if v.Status != "" {
			seen = append(seen, v.Status)
		}
		eof = v.EOF
	}
	return seen, eof
}

func expectEnd(want string) func(t *testing.T, stream []byte) {
	return func(t *testing.T, stream []byte) {
		t.Helper()
		seen, eof := statuses(t, stream)
		if len(seen) == 0 || seen[len(seen)-1] != want || !eof {
			t.Errorf("statuses %q, eof %v; want the last to be %q and eof", seen, eof, want)
		}
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	t.Run("Python's worker", func(t *testing.T) {
		t.Parallel()
		conform(t, find(t, ""), "ansible-runner worker")
	})
	t.Run("our worker", func(t *testing.T) {
		t.Parallel()
		conform(t, find(t, ranvier(t)), "ranvier worker")
	})
}

func conform(t *testing.T, typ worktypes.Type, name string) {
	worktypetest.Run(t, worktypetest.Case{
		Type: typ,
		Good: worktypetest.Job{Payload: worktypetest.Transmit(t, shortPlay, "h1")},
		CheckGood: func(t *testing.T, results []byte) {
			expectEnd("successful")(t, results)
			if !bytes.Contains(results, []byte("hello of the play")) {
				t.Errorf("the play's output is missing: %s", results)
			}
		},
		Long:          worktypetest.Job{Payload: worktypetest.Transmit(t, longPlay, "h1", "h2")},
		Started:       `"task_action": "command"`,
		CheckCanceled: expectEnd("canceled"),
		KilledDetail:  name + " was killed by signal 9 (killed)",
		Forbidden:     []map[string]string{{"params": "--worker-info"}, {"x": ""}},
	})
}

func TestFindSaysWhatToInstall(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := ansiblerunner.Find("", "edge7")
	if !errors.Is(err, exec.ErrNotFound) || !strings.Contains(err.Error(), "install") {
		t.Errorf("without a runner: %v", err)
	}
}

// A worker that dies says why on its standard error; that is in the Detail, and
// not in the stream.
func TestFailureIsInDetail(t *testing.T) {
	t.Parallel()
	typ := find(t, "")
	reg, err := worktypes.NewRegistry(typ)
	if err != nil {
		t.Fatal(err)
	}
	m := worktypetest.Open(t, t.TempDir(), reg, worktypes.Options{})
	// Python's worker does not catch a keyword that it does not know.
	id := worktypetest.Submit(t, m, typ.Name(), worktypetest.Job{Payload: []byte(`{"kwargs": {"no_such_keyword": 1}}` + "\n" + `{"eof": true}` + "\n")})
	if err := m.Start(id); err != nil {
		t.Fatal(err)
	}
	st := worktypetest.Wait(t, m, id)
	if st.State != worktypes.Failed || !strings.HasPrefix(st.Detail, "exit status 1: ") || !strings.Contains(st.Detail, "no_such_keyword") {
		t.Errorf("status %+v", st)
	}
	if st.StdoutSize != 0 {
		t.Errorf("%d bytes in the stream", st.StdoutSize)
	}
}

// TestFind: who does the jobs follows from what is installed.
func TestFind(t *testing.T) {
	for _, c := range []struct {
		installed []string
		program   string
		worker    string // "": none
	}{
		{nil, "/x/ranvier", ""},
		{[]string{"ansible-playbook", "ansible-runner"}, "/x/ranvier", "/x/ranvier"},
		{[]string{"ansible-playbook", "ansible-runner"}, "", "ansible-runner"},
		{[]string{"ansible-runner", "podman"}, "/x/ranvier", "ansible-runner"},
		{[]string{"podman"}, "/x/ranvier", "/x/ranvier"},
		{[]string{"docker"}, "/x/ranvier", "/x/ranvier"},
		{[]string{"podman"}, "", ""},
	} {
		bin := t.TempDir()
		for _, name := range c.installed {
			if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		t.Setenv("PATH", bin)
		typ, err := ansiblerunner.Find(c.program, "n")
		if c.worker == "" {
			if !errors.Is(err, exec.ErrNotFound) {
				t.Errorf("%+v: %v", c, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		plan, err := typ.Plan(worktypes.Spec{Type: ansiblerunner.Name}, "/s")
		ours := c.worker == c.program
		if err != nil || !strings.HasSuffix(plan.Argv[0], c.worker) || plan.Binary != ours {
			t.Errorf("%+v: %v, %+v", c, err, plan)
		}
	}
}
