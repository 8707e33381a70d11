package runner_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ranvier-mesh/ranvier/runner"
)

// job is one that both tools are given.
type job struct {
	files   map[string]string
	args    []string // of ansible-runner transmit
	options runner.Options
	status  string
	rc      int
}

const local = "localhost ansible_connection=local ansible_python_interpreter=/usr/bin/python3\n"

var jobs = map[string]job{
	"successful": {
		files: map[string]string{
			"inventory/hosts": local, "env/extravars": "word: grün",
			"project/site.yml": `
- hosts: all
  gather_facts: false
  tasks:
  - debug: msg="hé {{ word }} 日本"
  - shell: printf 'a\377b\n'
  - set_fact: {x: "{{ item }}"}
    loop: [1, 2]
  - command: echo hidden
    no_log: true
  - debug: msg=skipped
    when: false
`},
		args: []string{"-p", "site.yml"}, options: runner.Options{Playbook: "site.yml"}, status: "successful",
	},
	"failed": {
		files: map[string]string{
			"inventory/hosts":  local,
			"project/site.yml": "- hosts: all\n  gather_facts: false\n  tasks:\n  - fail: msg=no\n    ignore_errors: true\n  - fail: msg=never\n",
		},
		args: []string{"-p", "site.yml", "-v"}, options: runner.Options{Playbook: "site.yml", Verbosity: 1},
		status: "failed", rc: 2,
	},
	"unreachable": {
		files: map[string]string{
			"inventory/hosts":  "nowhere ansible_host=127.0.0.1 ansible_port=1 ansible_ssh_common_args='-o ConnectTimeout=1'\n",
			"project/site.yml": "- hosts: all\n  gather_facts: false\n  tasks:\n  - ping:\n",
		},
		args: []string{"-p", "site.yml"}, options: runner.Options{Playbook: "site.yml"}, status: "failed", rc: 4,
	},
	"no playbook": {
		files: map[string]string{"inventory/hosts": local, "project/": ""},
		args:  []string{"-p", "gone.yml"}, options: runner.Options{Playbook: "gone.yml"}, status: "failed", rc: 1,
	},
	"ad hoc": {
		files: map[string]string{"inventory/hosts": local},
		args:  []string{"-m", "debug", "-a", "msg=x", "--hosts", "all", "-j"}, status: "successful",
		options: runner.Options{Module: "debug", ModuleArgs: "msg=x", HostPattern: "all", JSONMode: true},
	},
	"role": {
		files: map[string]string{
			"inventory/hosts": local, "project/roles/greet/tasks/main.yml": "- debug: msg='{{ whom }} {{ n + 1 }}'\n",
		},
		args:    []string{"-r", "greet", "--role-vars", "whom=you n=1", "--role-skip-facts", "--hosts", "localhost"},
		options: runner.Options{Role: "greet", RoleVars: "whom=you n=1", RoleSkipFacts: true, HostPattern: "localhost"},
		status:  "successful",
	},
}

// TestInteropWithPython runs each job through the Python worker, from either
// tool's transmit, and what it says through both tools' process. On the same
// worker's output the two must agree to the byte; on two runs but for what
// differs between two runs of the Python tool alone.
func TestInteropWithPython(t *testing.T) {
	t.Parallel()
	for name, j := range jobs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := privateDataDir(t, j.files)
			before := tree(t, dir)
			j.options.PrivateDataDir, j.options.Ident, j.options.ContainerImage = dir, "id1", runner.DefaultContainerImage
			sent := ours(t, j.options)
			if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
				t.Errorf("Transmit changed the private data dir: %s", diff)
			}
			viaOurs := bothProcess(t, j, sent)
			viaPython := bothProcess(t, j, python(t, nil, append([]string{"transmit", dir, "-i", "id1"}, j.args...)...))
			if diff := cmp.Diff(viaPython, viaOurs); diff != "" {
				t.Errorf("the job differs from one that Python transmitted (-): %s", diff)
			}
		})
	}
}

// bothProcess runs a transmitted job and returns the artifacts, with what
// differs between two runs made equal.
func bothProcess(t *testing.T, j job, sent []byte) map[string]string {
	t.Helper()
	worker := filepath.Join(t.TempDir(), "worker")
	said := python(t, sent, "worker", "--private-data-dir", worker)

	theirs, own := t.TempDir(), t.TempDir()
	printed := python(t, said, "process", theirs, "-i", "id1")
	if err := os.Remove(filepath.Join(theirs, "daemon.log")); err != nil { // the command line's, not the job's
		t.Fatal(err)
	}
	var out bytes.Buffer
	result, err := runner.Process(t.Context(), bytes.NewReader(said), runner.ProcessOptions{
		PrivateDataDir: own, Ident: "id1", Output: &out})
	if err != nil {
		t.Fatal(err)
	}
	if result.Status != j.status || result.RC != j.rc || result.Ident != "id1" ||
		result.ArtifactDir != filepath.Join(own, "artifacts", "id1") {
		t.Errorf("result %+v, want %s, %d", result, j.status, j.rc)
	}
	if diff := cmp.Diff(string(printed), out.String()); diff != "" {
		t.Errorf("the output differs from Python's (-): %s", diff)
	}
	want, got := tree(t, theirs), tree(t, own)
	// Closed list of what may differ on the same stream: the mode of the
	// directories above, which hold secrets and are closed here.
	for _, name := range []string{"artifacts", "artifacts/id1"} {
		delete(want, name)
		delete(got, name)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the artifacts differ from Python's (-): %s", diff)
	}
	same := make(map[string]string)
	events := 0
	for name, content := range got {
		if strings.HasSuffix(name, ".json") {
			events++
		}
		same[normal(name, worker)] = normal(content, worker)
	}
	if result.Events != events {
		t.Errorf("%d events were counted, %d saved", result.Events, events)
	}
	return same
}

// The closed list of what differs between two runs of a job.
var differs = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`(\d+)-UUID(_\d+)?\.json`), "$1-UUID.json"},
	{regexp.MustCompile(`"pid": \d+`), `"pid": PID`},
	{regexp.MustCompile(`"(created|start|end|delta)": "[^"]*"`), `"$1": "TIME"`},
	{regexp.MustCompile(`"(duration)": [0-9.e-]+`), `"$1": TIME`},
	{regexp.MustCompile(`\\"(start|end|delta)\\": \\"[^"]*\\"`), `\"$1\": \"TIME\"`},
	{regexp.MustCompile(`\b[0-9a-f]{32}\b`), "PLAYBOOK"}, // of a role
}

func normal(s, worker string) string {
	s = strings.ReplaceAll(s, worker, "WORKER")
	for _, d := range differs {
		s = d.what.ReplaceAllString(s, d.with)
	}
	return s
}

// TestRolesOfThePrivateDataDirAreFound: the Python tool loses the path of
// roles/ on the way, ours does not.
func TestRolesOfThePrivateDataDirAreFound(t *testing.T) {
	t.Parallel()
	dir := privateDataDir(t, map[string]string{
		"inventory/hosts": local, "roles/greet/tasks/main.yml": "- debug: msg=hello\n"})
	sent := ours(t, runner.Options{PrivateDataDir: dir, Role: "greet", RoleSkipFacts: true})
	said := python(t, sent, "worker", "--private-data-dir", filepath.Join(t.TempDir(), "w"))
	result, err := runner.Process(t.Context(), bytes.NewReader(said), runner.ProcessOptions{PrivateDataDir: t.TempDir()})
	if err != nil || result.RC != 0 {
		t.Errorf("%+v, %v", result, err)
	}
}

// TestEnvFilesReachThePythonWorker: what ansible-runner's library writes into
// env/ only travels here, and a worker finds it all the same.
func TestEnvFilesReachThePythonWorker(t *testing.T) {
	t.Parallel()
	for _, suppress := range []bool{false, true} {
		dir := privateDataDir(t, nil)
		sent := ours(t, runner.Options{
			PrivateDataDir: dir, InventoryData: map[string]any{"all": map[string]any{"hosts": map[string]any{
				"localhost": map[string]any{"ansible_connection": "local"}}}},
			Plays: []map[string]any{{"hosts": "all", "gather_facts": false, "tasks": []any{map[string]any{
				"debug": map[string]any{"msg": "{{ word }} {{ lookup('env', 'VIA_ENV') }}"}}}}},
			ExtraVars: map[string]any{"word": "grün"}, EnvVars: map[string]string{"VIA_ENV": "given"},
			Settings: map[string]any{"job_timeout": 600}, Cmdline: "-v", SuppressEnvFiles: suppress,
		})
		if left := tree(t, dir); len(left) != 0 {
			t.Errorf("left in the private data dir: %v", left)
		}
		said := python(t, sent, "worker", "--private-data-dir", filepath.Join(t.TempDir(), "w"))
		var out bytes.Buffer
		result, err := runner.Process(t.Context(), bytes.NewReader(said), runner.ProcessOptions{PrivateDataDir: dir, Output: &out})
		if err != nil || result.RC != 0 || !strings.Contains(out.String(), "grün given") {
			t.Errorf("suppressed %v: %+v, %v, %s", suppress, result, err, out.String())
		}
	}
}
