package runner_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ranvier-mesh/ranvier/runner"
)

// runHere runs a job in dir and returns what it printed.
func runHere(t *testing.T, dir string, o runner.Options) (string, runner.Result) {
	t.Helper()
	var out bytes.Buffer
	o.PrivateDataDir = dir
	result, err := runner.Run(t.Context(), runner.RunOptions{Options: o, Process: runner.ProcessOptions{Output: &out}})
	if err != nil {
		t.Error(err)
	}
	return out.String(), result
}

// Two jobs in one directory have nothing of each other's options, and what may be
// secret of them is on no command line.
func TestJobsInOneDirectory(t *testing.T) {
	t.Parallel()
	dir := privateDataDir(t, map[string]string{"project/": "", "inventory/hosts": local,
		"job": "#!/bin/sh\necho \"A=$A $*\"\nfor a; do case $a in @*) echo; cat ${a#@};; esac; done\n[ -z \"$A\" ] || { echo x > began; read x < go_on; }\n"})
	program := filepath.Join(dir, "job")
	if err := os.Chmod(program, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"began", "go_on"} {
		if err := syscall.Mkfifo(filepath.Join(dir, "project", name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := len(tree(t, filepath.Join(dir, "project")))
	first := make(chan string, 1)
	go func() {
		out, _ := runHere(t, dir, runner.Options{Binary: program, Playbook: "x", Ident: "id1", Cmdline: "--one", EnvVars: map[string]string{"A": "1"},
			ExtraVars: map[string]any{"word": "secret"}, Passwords: map[string]string{"Password:": "p"}, Settings: map[string]any{"job_timeout": 60}})
		first <- out
	}()
	if _, err := os.ReadFile(filepath.Join(dir, "project", "began")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "env")); err == nil {
		t.Error("there are files of env/ while a job runs")
	}
	if out, _ := runHere(t, dir, runner.Options{Binary: program, Playbook: "x", Ident: "id2"}); !strings.HasPrefix(out, "A= -i ") || strings.Contains(out, "secret") || strings.Contains(out, "--one") {
		t.Errorf("the second job has of the first one's: %q", out)
	}
	if err := os.WriteFile(filepath.Join(dir, "project", "go_on"), []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	line, rest, _ := strings.Cut(<-first, "\n")
	if !strings.HasPrefix(line, "A=1 --one -i ") || strings.Contains(line, "secret") || !strings.Contains(rest, `{"word":"secret"}`) {
		t.Errorf("%q, %q", line, rest)
	}
	if _, err := os.Stat(filepath.Join(dir, "artifacts", "id1", "extravars")); err == nil || len(tree(t, filepath.Join(dir, "project"))) != before {
		t.Error("something of the options stays")
	}
}

// An inventory as data is one beside a file that an earlier run has left, and a
// role's playbook is where Ansible runs, wherever that is.
func TestFilesThatAreMadeForAJob(t *testing.T) {
	t.Parallel()
	dir := privateDataDir(t, map[string]string{"inventory/hosts.json": `{"all": {"hosts": {"old": {}}}}`, "elsewhere/roles/r/tasks/main.yml": "- debug: msg=in-role\n"})
	data := map[string]any{"all": map[string]any{"hosts": map[string]any{"fresh": map[string]any{"ansible_connection": "local"}}}}
	outside := privateDataDir(t, map[string]string{"roles/r/tasks/main.yml": "- debug: msg=in-role\n"})
	for _, project := range []string{filepath.Join(dir, "elsewhere"), outside} {
		before := len(tree(t, project))
		out, result := runHere(t, dir, runner.Options{Role: "r", RoleSkipFacts: true, ProjectDir: project, InventoryData: data, Ident: "id1"})
		if result.RC != 0 || !strings.Contains(out, "in-role") || !strings.Contains(out, "fresh") || strings.Contains(out, "old") {
			t.Errorf("%s: %+v: %s", project, result, out)
		}
		if len(tree(t, project)) != before || len(tree(t, filepath.Join(dir, "inventory"))) != 1 {
			t.Error("something of it stays")
		}
	}
	d := workDir(t, map[string]string{"inventory/hosts": local, "elsewhere/roles/r/tasks/main.yml": "- debug: msg=in-role\n"},
		runner.Options{Role: "r", RoleSkipFacts: true, ProjectDir: "elsewhere", Ident: "id1"})
	if d.result.RC != 0 || !strings.Contains(d.output, "in-role") {
		t.Errorf("sent: %+v, %v: %s", d.result, d.err, d.output)
	}
	err := runner.Transmit(t.Context(), new(bytes.Buffer), runner.Options{PrivateDataDir: dir, Role: "r", ProjectDir: outside, Ident: "id1"})
	if err == nil || !strings.Contains(err.Error(), "project dir: "+outside) {
		t.Errorf("sent from elsewhere: %v", err)
	}
}

// What env/settings says of the output, of its files and of the facts.
func TestSettingsOfARun(t *testing.T) {
	t.Parallel()
	facts := filepath.Join(t.TempDir(), "facts")
	dir := privateDataDir(t, map[string]string{"args": "sh -c 'echo said; echo $ANSIBLE_CACHE_PLUGIN_CONNECTION'",
		"env/settings": "suppress_ansible_output: true\nsuppress_output_file: true\n"})
	if out, result := runHere(t, dir, runner.Options{Ident: "id1"}); out != "" || result.Events != 2 {
		t.Errorf("%+v: %q", result, out)
	}
	for _, name := range []string{"stdout", "stderr"} {
		if _, err := os.Stat(filepath.Join(dir, "artifacts", "id1", name)); err == nil {
			t.Errorf("there is a file %s", name)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "env", "settings"), []byte("suppress_ansible_output: false\nfact_cache: "+facts), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _ := runHere(t, dir, runner.Options{Ident: "id2", Quiet: true}); out != "said\n"+facts+"\n" {
		t.Errorf("%q", out)
	}
}
