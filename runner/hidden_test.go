package runner_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ranvier-mesh/ranvier/runner"
)

// told are the events on a stream, and what of their event_data is looked at.
type told struct {
	Event string
	Data  struct {
		Task string
		Args string `json:"task_args"`
		Res  json.RawMessage
	} `json:"event_data"`
}

func events(t *testing.T, stream string) (list []told) {
	t.Helper()
	for line := range strings.Lines(stream) {
		var e told
		if json.Unmarshal([]byte(line), &e) == nil && e.Event != "" {
			list = append(list, e)
		}
	}
	return list
}

// vaulted is text as a file that Ansible decrypts with the password.
func vaulted(t *testing.T, password, text string) string {
	t.Helper()
	dir := t.TempDir()
	file, pass := filepath.Join(dir, "text"), filepath.Join(dir, "password")
	for name, data := range map[string]string{file: text, pass: password} {
		if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("ansible-vault", "encrypt", "--vault-password-file", pass, file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	secret, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(secret)
}

// What Ansible hides is hidden in all events, the items of a loop's result
// included, of which only the action says that they are secret; and so are the
// arguments of a task, which are told where ansible.cfg asks for it.
func TestHiddenStaysHidden(t *testing.T) {
	t.Parallel()
	d := workDir(t, map[string]string{"inventory/hosts": local, "password": "p", "env/cmdline": "--vault-password-file ../password",
		"project/ansible.cfg": "[defaults]\ndisplay_args_to_stdout = true\n",
		"project/one.yml":     vaulted(t, "p", "a: verysecret-a\n"), "project/two.yml": vaulted(t, "p", "b: verysecret-b\n"),
		"project/site.yml": `
- hosts: all
  gather_facts: false
  tasks:
  - include_vars: "{{ item }}"
    loop: [one.yml, two.yml]
  - debug: msg=verysecret-c
    no_log: true
  - debug: msg=open
`}, site)
	if d.result.RC != 0 || d.err != nil || strings.Contains(d.stream, "verysecret") {
		t.Fatalf("%+v, %v: %s", d.result, d.err, d.stream)
	}
	const hidden = "the output has been hidden due to the fact that 'no_log: true' was specified for this result"
	args := make(map[string]bool)
	items := 0
	for _, e := range events(t, d.stream) {
		args[e.Data.Args] = true
		if e.Event == "runner_on_ok" {
			items = max(items, strings.Count(string(e.Data.Res), `{"censored": "`+hidden+`"}`))
		}
	}
	if items != 2 || !args[hidden] || !args["msg=open"] {
		t.Errorf("%d items are hidden; arguments %v", items, args)
	}
}

// Arguments are told where the environment asks for it, and nowhere else.
func TestTaskArguments(t *testing.T) {
	t.Parallel()
	for variable, want := range map[string]string{"": "", "ANSIBLE_DISPLAY_ARGS_TO_STDOUT": "msg=x"} {
		files := debugPlay("x")
		if variable != "" {
			files["env/envvars"] = variable + ": 'true'\n"
		}
		found := 0
		for _, e := range events(t, workDir(t, files, site).stream) {
			if e.Event == "runner_on_ok" && e.Data.Args == want {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%q: no task has the arguments %q", variable, want)
		}
	}
}

// Ansible fills in the variables of a task's name where it announces the task,
// and where it has run it; when it starts on a host, the name is as it was written.
func TestNamesWithVariables(t *testing.T) {
	t.Parallel()
	files := debugPlay("x")
	files["project/site.yml"] = "- hosts: all\n  gather_facts: false\n  vars: {what: this}\n  tasks:\n  - name: do {{ what }}\n    command: 'true'\n"
	files["inventory/hosts"] = strings.ReplaceAll(local, "localhost", "one") + strings.ReplaceAll(local, "localhost", "two")
	names := make(map[string]bool)
	for _, e := range events(t, workDir(t, files, runner.Options{Playbook: "site.yml", Ident: "id1"}).stream) {
		if e.Data.Task != "" {
			names[e.Event+" "+e.Data.Task] = true
		}
	}
	for _, want := range []string{"playbook_on_task_start do this", "runner_on_start do {{ what }}", "runner_on_ok do this"} {
		if !names[want] || len(names) != 3 {
			t.Errorf("no %q among %v", want, names)
		}
	}
}
