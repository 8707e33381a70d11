package runner_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/runner"
)

// did is what came of Work.
type did struct {
	result runner.Result // of Process
	output string
	perr   error // of Process
	err    error // of Work
	status []runner.Status
	stream string
}

func work(t *testing.T, ctx context.Context, sent io.Reader, o runner.WorkOptions) did {
	t.Helper()
	var d did
	var said, out bytes.Buffer
	d.err = runner.Work(ctx, sent, &said, o)
	d.stream = said.String()
	d.result, d.perr = runner.Process(t.Context(), &said, runner.ProcessOptions{PrivateDataDir: t.TempDir(), Output: &out,
		StatusHandler: func(s runner.Status) { d.status = append(d.status, s) }})
	d.output = out.String()
	return d
}

// job is done by our worker, as it was sent by Transmit.
func (d did) last() runner.Status {
	if len(d.status) == 0 {
		return runner.Status{}
	}
	return d.status[len(d.status)-1]
}

func workDir(t *testing.T, files map[string]string, o runner.Options) did {
	t.Helper()
	o.PrivateDataDir = privateDataDir(t, files)
	return work(t, t.Context(), bytes.NewReader(ours(t, o)), runner.WorkOptions{})
}

func debugPlay(msg string) map[string]string {
	return map[string]string{"inventory/hosts": local,
		"project/site.yml": "- hosts: all\n  gather_facts: false\n  tasks:\n  - debug: msg=" + msg + "\n"}
}

var site = runner.Options{Playbook: "site.yml", Ident: "id1"}

// Every fault is an error of Work, a status on a stream that ends properly, and
// so an error of Process.
func TestWorkFaults(t *testing.T) {
	t.Parallel()
	const eof = `{"eof": true}` + "\n"
	kwargs := func(members string) string {
		return `{"kwargs": {"ident": "id1", "playbook": "site.yml"` + members + `}}` + "\n" + eof
	}
	for name, c := range map[string]struct{ sent, explanation string }{
		"nothing":             {"", "Failed to JSON parse a line from transmit stream."},
		"no JSON":             {"{{{\n", "Failed to JSON parse a line from transmit stream."},
		"a blank line":        {"\n" + eof, "Failed to JSON parse a line from transmit stream."},
		"a scalar":            {"5\n" + eof, "Failed to JSON parse a line from transmit stream."},
		"no kwargs":           {eof, "kwargs are missing"},
		"an unknown kwarg":    {kwargs(`, "nosuch": 1`), `kwargs: "nosuch" is not known here`},
		"a kwarg's type":      {kwargs(`, "verbosity": "much"`), "kwargs: verbosity: "},
		"an ident elsewhere":  {kwargs(`, "ident": "../x"`), `ident: "../x"`},
		"a pattern":           {kwargs(`, "passwords": {"(": "x"}`), "env/passwords: ("},
		"nothing to run":      {`{"kwargs": {"ident": "x"}}` + "\n" + eof, "neither a playbook nor a module"},
		"a zip that is none":  {"{\"zipfile\": 4}\nAAAAAA==" + kwargs(""), "Failed to extract private data directory on worker."},
		"a zip that is short": {"{\"zipfile\": 400}\nAAAA", "Failed to extract private data directory on worker."},
		"the sender's fault":  {`{"status": "error", "job_explanation": "disk broken"}` + "\n" + eof, "The sender gave up: disk broken"},
		"missing program":     {kwargs(`, "binary": "no-such-program"`), "no-such-program not found on node "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := work(t, t.Context(), strings.NewReader(c.sent), runner.WorkOptions{})
			var fault *runner.WorkError
			if !errors.As(d.err, &fault) || !strings.Contains(fault.Explanation, c.explanation) {
				t.Errorf("Work: %v, want %q", d.err, c.explanation)
			}
			var reported *runner.WorkerError
			if !errors.As(d.perr, &reported) || !strings.Contains(reported.Explanation, c.explanation) || d.result.RC == 0 {
				t.Errorf("Process: %v, rc %d", d.perr, d.result.RC)
			}
			if !strings.HasSuffix(d.stream, eof) {
				t.Errorf("the stream does not end: %q", d.stream)
			}
		})
	}
}

func TestWorkSaysThatAnsibleIsMissing(t *testing.T) {
	files := debugPlay("x")
	files["env/envvars"] = "PATH: /nowhere"
	d := workDir(t, files, site)
	if want := "ansible-playbook not found on node "; !strings.Contains(d.last().Explanation, want) ||
		!strings.HasSuffix(d.last().Explanation, ": install ansible-core") || strings.Contains(d.err.Error(), "/nowhere") || d.result.RC != 127 || !errors.Is(d.err, exec.ErrNotFound) {
		t.Errorf("%+v, rc %d, %v", d.last(), d.result.RC, d.err)
	}
}

func TestEnvFilesThatDoNotParse(t *testing.T) {
	t.Parallel()
	for file, c := range map[string]struct{ text, want string }{
		"env/envvars":   {"A: 1\nB: [\n", "env/envvars: neither JSON nor YAML: line "},
		"env/settings":  {"\nidle_timeout: soon\n", "env/settings: line 2: idle_timeout: "},
		"env/passwords": {"a: 1\n'(': x\n", "env/passwords: line 2: (: "},
		"env/cmdline":   {`--limit "x`, `env/cmdline: a " is never closed`},
		"env/extravars": {"", ""},
	} {
		if c.want == "" {
			continue
		}
		files := debugPlay("x")
		files[file] = c.text
		if d := workDir(t, files, site); !strings.Contains(d.last().Explanation, c.want) || !errors.Is(d.err, runner.ErrOptions) {
			t.Errorf("%s: %q, %v, want %q", file, d.last().Explanation, d.err, c.want)
		}
	}
	files := debugPlay("x")
	files["env/envvars"] = "- a\n"
	if d := workDir(t, files, site); !strings.Contains(d.last().Explanation, "env/envvars: line 1: a map is expected") {
		t.Errorf("%q", d.last().Explanation)
	}
}

// The limits are told apart, and are exact.
func TestTimeLimits(t *testing.T) {
	t.Parallel()
	for settings, want := range map[string]string{
		"idle_timeout: 1.5": "said nothing for 1.5 s (idle_timeout)",
		"job_timeout: 2":    "longer than its limit of 2 s",
	} {
		t.Run(settings, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			d := workDir(t, map[string]string{"inventory/hosts": local, "env/settings": settings,
				"project/site.yml": "- hosts: all\n  gather_facts: false\n  tasks:\n  - command: sleep 600\n"}, site)
			if took := time.Since(began); d.last().Status != "timeout" || !strings.Contains(d.last().Explanation, want) || d.result.RC != 254 ||
				d.err != nil || took > time.Minute {
				t.Errorf("%+v, %+v, %v after %v", d.last(), d.result, d.err, took)
			}
		})
	}
}

// The module pause throws away what was typed before it listens. On a machine
// that is busy it may do so later than anybody would wait before he answers.
func TestPauseIsAnswered(t *testing.T) {
	t.Parallel()
	var d did
	for tries := 0; tries < 3 && d.result.Status != "successful"; tries++ {
		d = workDir(t, map[string]string{"inventory/hosts": local, "env/passwords": `{"Go on.*:\\s*$": "yes"}`, "env/settings": "idle_timeout: 30",
			"project/site.yml": "- hosts: all\n  gather_facts: false\n  tasks:\n  - pause: {prompt: Go on}\n    register: r\n  - debug: msg=said-{{ r.user_input }}\n"}, site)
	}
	if d.result.RC != 0 || !strings.Contains(d.output, "said-yes") {
		t.Errorf("%+v: %s", d.result, d.output)
	}
}

func TestCancelEndsAllThatWasStarted(t *testing.T) {
	t.Parallel()
	dir := privateDataDir(t, map[string]string{"inventory/hosts": local,
		"project/site.yml": "- hosts: all\n  gather_facts: false\n  tasks:\n  - command: sh -c 'echo $$ > {{ playbook_dir }}/../pid; exec setsid sleep 600'\n"})
	if err := syscall.Mkfifo(filepath.Join(dir, "pid"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		_, _ = os.ReadFile(filepath.Join(dir, "pid")) // when it runs
		cancel()
	}()
	result, err := runner.Run(ctx, runner.RunOptions{Options: runner.Options{PrivateDataDir: dir, Playbook: "site.yml", Ident: "id1"}})
	if result.Status != "canceled" || result.RC != 254 || !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v", result, err)
	}
	found, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range found {
		if env, _ := os.ReadFile(file); bytes.Contains(env, []byte(dir)) {
			t.Errorf("%s still is there", file)
		}
	}
}

// A signal is no exit code.
func TestAnsibleIsKilled(t *testing.T) {
	t.Parallel()
	d := workDir(t, map[string]string{"args": "sh -c 'echo before; kill -9 $$'"}, runner.Options{Ident: "id1"})
	if d.last().Status != "failed" || d.result.RC != 137 || !strings.Contains(d.last().Explanation, "killed by signal 9") ||
		!strings.Contains(d.output, "before") {
		t.Errorf("%+v, rc %d, %q", d.last(), d.result.RC, d.output)
	}
}

// A description of the user's callback counts, and what an Ansible prints that
// a task started is not taken for the play's own events.
func TestUsersCallbackAndNestedAnsible(t *testing.T) {
	t.Parallel()
	d := workDir(t, map[string]string{
		"inventory/hosts": local, "env/envvars": "ANSIBLE_STDOUT_CALLBACK: mine\nMINE_GREETING: servus\n",
		"project/inner.yml": "- hosts: all\n  gather_facts: false\n  tasks:\n  - debug: msg=inner\n",
		"project/site.yml": `
- hosts: all
  gather_facts: false
  tasks:
  - command: ansible-playbook -i ../inventory inner.yml chdir={{ playbook_dir }}
    register: r
  - debug: msg={{ r.stdout_lines | length }}
`,
		"project/callback_plugins/mine.py": `
from ansible.plugins.callback.default import CallbackModule as Default
DOCUMENTATION = """
name: mine
type: stdout
short_description: a user's own
description: [says more]
extends_documentation_fragment: [default_callback]
options:
  greeting:
    description: what is said first
    default: hello
    env: [{name: MINE_GREETING}]
"""
class CallbackModule(Default):
    CALLBACK_NAME = 'mine'
    def v2_playbook_on_start(self, playbook):
        self._display.display(self.get_option('greeting'))
`}, site)
	if d.result.RC != 0 || d.err != nil || !strings.HasPrefix(d.output, "servus\n") {
		t.Fatalf("%+v, %v: %s", d.result, d.err, d.output)
	}
	if strings.Contains(d.output, "ranvier;") || strings.Count(d.stream, `"event": "playbook_on_start"`) != 1 {
		t.Errorf("the inner play is among the events: %s", d.stream)
	}
}

func TestSSHKeyWithPassphrase(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("ssh-agent"); err != nil {
		t.Fatal("this test needs openssh-client: ", err)
	}
	key := filepath.Join(t.TempDir(), "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "geheim", "-C", "of the test", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	d := workDir(t, map[string]string{"inventory/hosts": local, "env/ssh_key": string(text),
		"env/passwords":    `{"Enter passphrase for .*:\\s*?$": "geheim"}`,
		"env/settings":     "idle_timeout: 120",
		"project/site.yml": "- hosts: all\n  gather_facts: false\n  tasks:\n  - command: ssh-add -l\n"},
		runner.Options{Playbook: "site.yml", Ident: "id1", Verbosity: 1})
	if d.result.RC != 0 || !strings.Contains(d.output, "of the test (ED25519)") {
		t.Errorf("%+v, %v: %s", d.result, d.err, d.output)
	}
	if strings.Contains(d.stream, "geheim") {
		t.Error("the passphrase is on the stream")
	}
	if command := d.status[0].Command; len(command) != 4 || command[0] != "ssh-agent" || !strings.HasPrefix(command[3], "trap 'rm -f ") {
		t.Errorf("command %q", command)
	}
}

// A key that nobody reads keeps nobody waiting.
func TestSSHKeyThatIsNotRead(t *testing.T) {
	t.Parallel()
	files := debugPlay("x")
	files["env/ssh_key"], files["env/envvars"] = "no key", "PATH: /nowhere"
	if d := workDir(t, files, site); !strings.Contains(d.last().Explanation, "ssh-agent not found") {
		t.Errorf("%+v", d.last())
	}
}

func TestKeepalive(t *testing.T) {
	t.Parallel()
	in, sender := io.Pipe()
	said, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- runner.Work(t.Context(), in, out, runner.WorkOptions{Keepalive: 20 * time.Millisecond})
		out.Close()
	}()
	line := make([]byte, len(`{"event": "keepalive", "counter": 0, "uuid": 0}`)+1)
	for range 3 { // before anything was sent
		if _, err := io.ReadFull(said, line); err != nil || string(line) != `{"event": "keepalive", "counter": 0, "uuid": 0}`+"\n" {
			t.Fatalf("%v %q", err, line)
		}
	}
	sender.Close()
	rest, err := io.ReadAll(said)
	if err != nil || !bytes.HasSuffix(rest, []byte(`{"eof": true}`+"\n")) || <-done == nil {
		t.Errorf("%v %q", err, rest)
	}
}

// The private data directory of a worker goes when it shall, and only then.
func TestWorkDirectory(t *testing.T) {
	t.Parallel()
	sent := ours(t, runner.Options{PrivateDataDir: privateDataDir(t, debugPlay("x")), Playbook: "site.yml", Ident: "id1"})
	dir := filepath.Join(t.TempDir(), "w")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "old"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if d := work(t, t.Context(), bytes.NewReader(sent), runner.WorkOptions{PrivateDataDir: dir}); d.err != nil || d.result.RC != 0 {
		t.Fatal(d.err)
	}
	for _, name := range []string{"old", "project/site.yml", "artifacts/id1/rc"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	// What is in use by another job, if only one that is being received, is not removed.
	in, sender := io.Pipe()
	other := make(chan error, 1)
	go func() {
		other <- runner.Work(t.Context(), in, io.Discard, runner.WorkOptions{PrivateDataDir: dir})
	}()
	if _, err := sender.Write([]byte("{\"kwargs\": {}}\n")); err != nil { // it is there when this is read
		t.Fatal(err)
	}
	deleting := runner.WorkOptions{PrivateDataDir: dir, Delete: true, StatusHandler: func(runner.Status) {
		if _, err := os.Stat(filepath.Join(dir, "old")); err == nil {
			t.Error("what was there before the job is there while it runs")
		}
	}}
	if d := work(t, t.Context(), bytes.NewReader(sent), runner.WorkOptions{PrivateDataDir: dir, Delete: true}); d.err == nil || !strings.Contains(d.err.Error(), "a job is running there") {
		t.Errorf("the directory was taken from a job: %v", d.err)
	}
	sender.Close()
	<-other
	d := work(t, t.Context(), bytes.NewReader(sent), deleting)
	if _, err := os.Stat(dir); d.err != nil || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, %v", d.err, err)
	}
}

func TestRunLeavesOnlyArtifacts(t *testing.T) {
	t.Parallel()
	dir := privateDataDir(t, map[string]string{"inventory/hosts": local, "project/roles/r/tasks/main.yml": "- debug: msg='{{ word }}'\n"})
	before := tree(t, dir)
	var out bytes.Buffer
	var seen []string
	result, err := runner.Run(t.Context(), runner.RunOptions{
		Options: runner.Options{PrivateDataDir: dir, Role: "r", RoleSkipFacts: true, Inventory: "other ansible_connection=local",
			ExtraVars: map[string]any{"word": "grün"}, Ident: "id1"},
		Process: runner.ProcessOptions{Output: &out, EventHandler: func(e runner.Event) bool {
			seen = append(seen, e.Name)
			return e.Name != "runner_on_start"
		}},
	})
	if err != nil || result.RC != 0 || result.Status != "successful" || result.Events != len(seen) || !strings.Contains(out.String(), "grün") ||
		!strings.Contains(out.String(), "[other]") {
		t.Errorf("%+v, %v, %v: %s", result, err, seen, out.String())
	}
	after := tree(t, dir)
	events := 0
	for name, content := range after {
		if strings.Contains(name, "job_events/") {
			events++
			if !json.Valid([]byte(strings.TrimPrefix(content, "-rw------- "))) {
				t.Errorf("%s: %s", name, content)
			}
		}
		if strings.HasPrefix(name, "artifacts") {
			delete(after, name)
		}
	}
	if len(after) != len(before) || events != len(seen)-1 {
		t.Errorf("before %v, after %v; %d events of %d saved", before, after, events, len(seen))
	}
}
