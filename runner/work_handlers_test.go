package runner_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ranvier-mesh/ranvier/runner"
)

var small = map[string]string{
	"inventory/hosts":  local,
	"project/site.yml": "- hosts: all\n  gather_facts: false\n  tasks:\n  - debug: msg=hello\n",
}

// calls counts what handlers hear.
type calls struct {
	events, artifacts, finished int
	status                      []string
	result                      runner.Result
}

func (c *calls) event(e runner.Event) bool  { c.events++; return e.Name != "runner_on_start" }
func (c *calls) statuses(s runner.Status)   { c.status = append(c.status, s.Status) }
func (c *calls) dir(string)                 { c.artifacts++ }
func (c *calls) ended(result runner.Result) { c.finished++; c.result = result }

func (c *calls) check(t *testing.T, what string) {
	t.Helper()
	if c.events < 5 || c.artifacts != 1 || c.finished != 1 || c.result.Status != "successful" || c.result.RC != 0 ||
		c.result.Events != c.events || c.result.Ident != "id1" || c.result.ArtifactDir == "" ||
		!slices.Equal(c.status, []string{"starting", "running", "successful"}) {
		t.Errorf("%s: %+v", what, c)
	}
}

// TestHandlersAreAlike: who runs, who works and who processes hear the same.
func TestHandlersAreAlike(t *testing.T) {
	t.Parallel()
	dir := privateDataDir(t, small)
	var ran, worked, processed calls
	_, err := runner.Run(t.Context(), runner.RunOptions{
		Options: runner.Options{PrivateDataDir: dir, Playbook: "site.yml", Ident: "id1"},
		Process: runner.ProcessOptions{EventHandler: ran.event, StatusHandler: ran.statuses, ArtifactsHandler: ran.dir, FinishedHandler: ran.ended},
	})
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	sent := ours(t, runner.Options{PrivateDataDir: privateDataDir(t, small), Playbook: "site.yml", Ident: "id1"})
	err = runner.Work(t.Context(), bytes.NewReader(sent), &said, runner.WorkOptions{
		EventHandler: worked.event, StatusHandler: worked.statuses, ArtifactsHandler: worked.dir, FinishedHandler: worked.ended})
	if err != nil {
		t.Fatal(err)
	}
	_, err = runner.Process(t.Context(), &said, runner.ProcessOptions{
		PrivateDataDir: t.TempDir(), Ident: "id1",
		EventHandler: processed.event, StatusHandler: processed.statuses, ArtifactsHandler: processed.dir, FinishedHandler: processed.ended})
	if err != nil {
		t.Fatal(err)
	}
	ran.check(t, "Run")
	worked.check(t, "Work")
	processed.check(t, "Process")
	if ran.events != worked.events || processed.events != worked.events-1 {
		t.Errorf("%d, %d and %d events: the worker's handler kept one back", ran.events, worked.events, processed.events)
	}
}

func TestFinishedHandlerHearsOfAFault(t *testing.T) {
	t.Parallel()
	var c calls
	err := runner.Work(t.Context(), strings.NewReader("nonsense\n"), new(bytes.Buffer), runner.WorkOptions{
		StatusHandler: c.statuses, FinishedHandler: c.ended})
	if err == nil || c.finished != 1 || c.result.RC != 1 || c.result.Status != "error" || !slices.Equal(c.status, []string{"error"}) {
		t.Errorf("%v, %+v", err, c)
	}
}

func TestAsync(t *testing.T) {
	t.Parallel()
	dir := privateDataDir(t, map[string]string{"inventory/hosts": local,
		"project/site.yml": "- name: the play\n  hosts: all\n  gather_facts: false\n  tasks:\n  - debug: msg=x\n  - name: hang\n    command: tail -f /dev/null\n"})
	hanging := make(chan struct{})
	job := runner.Async(t.Context(), runner.RunOptions{
		Options: runner.Options{PrivateDataDir: dir, Playbook: "site.yml", Ident: "id1"},
		Process: runner.ProcessOptions{EventHandler: func(e runner.Event) bool {
			if e.Name == "playbook_on_task_start" && strings.Contains(e.Stdout, "hang") {
				close(hanging)
			}
			return true
		}},
	})
	<-hanging
	p := job.Status()
	if p.Status != "running" || p.Play != "the play" || p.Task != "hang" || p.Hosts["localhost"].OK != 1 {
		t.Errorf("in the middle: %+v", p)
	}
	job.Cancel()
	result, err := job.Wait()
	if err == nil || result.Status != "canceled" || result.RC != 254 || job.Status().Status != "canceled" {
		t.Errorf("%+v, %v", result, err)
	}
	if rc, err := os.ReadFile(filepath.Join(dir, "artifacts", "id1", "rc")); err != nil || string(rc) != "254" {
		t.Errorf("rc %s, %v", rc, err)
	}
}

// TestMitogenIsLookedFor: by flag, file and configuration, before anything runs.
func TestMitogenIsLookedFor(t *testing.T) {
	t.Parallel()
	none := map[string]string{"PYTHONPATH": privateDataDir(t, map[string]string{"ansible_mitogen/__init__.py": "raise ImportError('none here')\n"})}
	for name, file := range map[string][2]string{
		"envvars":     {"env/envvars", "ANSIBLE_STRATEGY: mitogen_linear\n"},
		"ansible.cfg": {"project/ansible.cfg", "[defaults]\nstrategy = mitogen_linear\n"},
		"":            {"env/settings", "{}\n"},
	} {
		files := map[string]string{file[0]: file[1]}
		for name, text := range small {
			files[name] = text
		}
		env := none
		if name == "" {
			env = map[string]string{"PYTHONPATH": none["PYTHONPATH"], "ANSIBLE_STRATEGY": "mitogen_linear"}
		}
		_, err := runner.Run(t.Context(), runner.RunOptions{Options: runner.Options{
			PrivateDataDir: privateDataDir(t, files), Playbook: "site.yml", EnvVars: env}})
		if !errors.Is(err, runner.ErrOptions) || !strings.Contains(err.Error(), "ansible_mitogen is not installed") {
			t.Errorf("%s: %v", name, err)
		}
	}
	result, err := runner.Run(t.Context(), runner.RunOptions{Options: runner.Options{
		PrivateDataDir: privateDataDir(t, small), Playbook: "site.yml", EnvVars: map[string]string{"ANSIBLE_STRATEGY": "mitogen_linear"}}})
	if err != nil || result.Status != "successful" {
		t.Errorf("with Debian's: %+v, %v", result, err)
	}
}
