package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var project = map[string]string{
	"project/site.yml":            "- hosts: all\n  gather_facts: false\n  tasks:\n  - debug: msg=hello\n",
	"roles/greet/tasks/main.yml":  "- debug: msg=hello\n",
	"project/roles/r/tasks/x.yml": "",
	"project/failing.yml":         "- hosts: all\n  gather_facts: false\n  tasks:\n  - fail: msg=no\n",
	"inventory/hosts":             "localhost ansible_connection=local ansible_python_interpreter=/usr/bin/python3\n",
}

// TestKwargsAreThePythonTools gives the same command line to both tools: the
// job's description must be the same to the byte.
func TestKwargsAreThePythonTools(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		env  []string
		args []string
		// mended is what differs on purpose: Python's, ours.
		mended []string
	}{
		"nothing said": {args: []string{"-p", "site.yml"}},
		"all of a play": {args: []string{"-p", "site.yml", "--limit", "a:b", "--cmdline", "--tags x -e a=b", "--forks", "7", "-vvv", "-q", "-j",
			"--rotate-artifacts", "3", "--omit-event-data", "--only-failed-event-data", "--omit-env-files", "-b", "/opt/ansible"}},
		"role vars without a role": {args: []string{"-p", "site.yml", "--role-vars", "a=1"}},
		"directories": {args: []string{"-p", "site.yml", "--artifact-dir", "/srv/artifacts", "--project-dir", "/srv/project", "--inventory", "/srv/hosts"},
			mended: []string{`"inventory": "inventory/hosts"`, `"inventory": "/srv/hosts"`}},
		"a module": {args: []string{"-m", "shell", "-a", "echo 'a b'", "--hosts", "web*"}},
		"containers": {args: []string{"-p", "site.yml", "--container-image", "ee:1", "--container-volume-mount", "/a:/b", "--container-volume-mount=/c:/d:ro",
			"--container-option=--network=none", "--container-option=--user=0"}},
		"roles elsewhere":             {args: []string{"-p", "site.yml", "--roles-path", "/a:/b"}},
		"abbreviated":                 {args: []string{"--playb", "site.yml", "--rotate=2", "--only"}},
		"one word":                    {args: []string{"-psite.yml", "-vjvq"}},
		"flags first":                 {args: []string{"--omit-event-data", "-p=site.yml"}},
		"by the environment":          {env: []string{"RUNNER_PLAYBOOK=site.yml", "RUNNER_BINARY=/opt/x", "ANSIBLE_ROLES_PATH=/a:/b"}},
		"a module by the environment": {env: []string{"RUNNER_MODULE=ping"}, args: []string{"--hosts", "all"}},
		"the flag goes first":         {env: []string{"RUNNER_PLAYBOOK=other.yml"}, args: []string{"-p", "site.yml"}},
		"another kind than the environment's": {env: []string{"RUNNER_PLAYBOOK=other.yml"}, args: []string{"-m", "ping"},
			mended: []string{`"playbook": "other.yml"`, `"playbook": null`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// A directory each: the Python tool writes into it.
			transmit := func(tl tool) ended {
				return tl.run(t, "", append([]string{"transmit", privateDataDir(t, project), "-i", "id1"}, tc.args...)...)
			}
			theirs, own := transmit(python(t, tc.env...)), transmit(named(t, runnerName, tc.env...))
			if theirs.code != 0 || own.code != 0 || own.errors != "" {
				t.Fatalf("theirs %d %s\nours %d %s", theirs.code, theirs.errors, own.code, own.errors)
			}
			want, _, _ := strings.Cut(theirs.out, "\n")
			got, _, _ := strings.Cut(own.out, "\n")
			if tc.mended != nil {
				if !strings.Contains(want, tc.mended[0]) {
					t.Errorf("Python does as we do now: %s", want)
				}
				want = strings.Replace(want, tc.mended[0], tc.mended[1], 1)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("kwargs differ from Python's (-): %s", diff)
			}
		})
	}
}

// pythonCodes returns the exit codes of the Python tool. One process runs all:
// most of its time is its start.
func pythonCodes(t *testing.T, lines [][]string) []int {
	t.Helper()
	const program = `
import io, json, sys
from ansible_runner.__main__ import main
lines, codes, out = json.load(sys.stdin), [], sys.stdout
sys.stdin = io.StringIO("")
sys.stdout = sys.stderr = open("/dev/null", "w")
for line in lines:
    try:
        codes.append(main(line) or 0)
    except SystemExit as e:
        codes.append(e.code if isinstance(e.code, int) else int(bool(e.code)))
    except Exception:
        codes.append(1)
json.dump(codes, out)
`
	given, err := json.Marshal(lines)
	if err != nil {
		t.Fatal(err)
	}
	end := tool{path: "/usr/bin/python3"}.run(t, string(given), "-c", program)
	var codes []int
	if err := json.Unmarshal([]byte(end.out), &codes); err != nil || len(codes) != len(lines) {
		t.Fatalf("%v: %+v", err, end)
	}
	return codes
}

// TestExitCodesAreThePythonTools compares exit codes, and that people are told.
func TestExitCodesAreThePythonTools(t *testing.T) {
	t.Parallel()
	dir := privateDataDir(t, project)
	cases := []struct {
		args  string
		stdin string
		own   int // where it differs on purpose; else the Python tool's
	}{
		{args: ""},
		{args: "--help"},
		{args: "run --help"},
		{args: "bogus"},
		{args: "--version"},
		{args: "run --version"},
		{args: "worker --version"},
		{args: "run"},
		{args: "run DIR"},
		{args: "run DIR extra -p x"},
		{args: "run DIR -p"},
		{args: "run DIR -p x -m y"},
		{args: "run DIR -p x -r y"},
		{args: "run DIR --bogus"},
		{args: "run DIR -p x --hosts all"},
		{args: "run DIR --rotate-artifacts many -p x"},
		{args: "transmit"},
		{args: "transmit DIR"},
		{args: "transmit DIR -p x --hosts all"},
		{args: "start"},
		{args: "start DIR"},
		{args: "stop"},
		{args: "stop DIR"},
		{args: "is-alive"},
		{args: "is-alive DIR"},
		{args: "is-alive DIR --hosts all -p x -vvv"},
		{args: "process"},
		{args: "process DIR extra"},
		{args: "process DIR -p x"},
		{args: "worker bogus"},
		{args: "worker cleanup"},
		{args: "worker cleanup extra"},
		{args: "worker cleanup --file-pattern=/tmp"},
		{args: "worker cleanup --file-pattern=/nowhere*"},
		{args: "worker cleanup --file-pattern=/nowhere* --exclude-strings a b --grace-period 0"},
		{args: "worker cleanup --grace-period soon"},
		{args: "worker cleanup --remove-images a b --process-isolation-executable /nowhere/engine"},
		{args: "worker cleanup --remove-images --process-isolation-executable /nowhere/engine"},
		{args: "worker cleanup --image-prune --process-isolation-executable /bin/true"},
		{args: "worker cleanup --image-prune --process-isolation-executable /bin/false"},
		{args: "worker --worker-info"},
		{args: "worker --keepalive-seconds soon", own: 2}, // 2.3.1 has no such flag
		{args: "worker extra"},
		{args: "run DIR -p site.yml"},
		{args: "run DIR -p gone.yml"},
		{args: "run DIR -p site.yml --forks -1 -q"},
		{args: "run DIR -p site.yml --role-vars x=1 -q"},
		{args: "run DIR -p failing.yml -q"},
		{args: "run DIR -m ping --hosts localhost -q"},
		{args: "run DIR -r greet --role-skip-facts --roles-path DIR/roles -q"},
		{args: "run DIR -p site.yml -b /nowhere/ansible-playbook -q"},
		// Mended: the Python tool exits with 0 for what it could not run.
		{args: "worker", stdin: "nonsense\n", own: 1},
		{args: "worker", stdin: "{\"kwargs\": 7}\n{\"eof\": true}\n", own: 1},
		{args: "worker --private-data-dir DIR/w --delete", stdin: "", own: 1},
		{args: "process DIR", stdin: "{\"status\": \"successful\"}\n{\"eof\": true}\n"},
		// Mended: the Python tool exits with 0 whatever came.
		{args: "process DIR", stdin: "{\"status\": \"failed\"}\n{\"eof\": true}\n", own: 1},
		{args: "process DIR", stdin: "nonsense\n", own: 1},
		{args: "process DIR", stdin: "", own: 75},
		{args: "transmit GONE -p x", own: 1},
	}
	var lines [][]string
	for _, tc := range cases {
		lines = append(lines, strings.Fields(strings.NewReplacer("DIR", dir, "GONE", filepath.Join(dir, "gone")).Replace(tc.args)))
	}
	theirs := pythonCodes(t, lines)
	os.RemoveAll(filepath.Join(dir, "gone")) // the Python tool makes it
	for i, tc := range cases {
		t.Run(tc.args, func(t *testing.T) {
			t.Parallel()
			own := named(t, runnerName).run(t, tc.stdin, lines[i]...)
			want := tc.own
			if want == 0 && tc.stdin == "" {
				want = theirs[i]
			}
			if own.code != want {
				t.Errorf("exit code %d, want %d: %s", own.code, want, own.errors)
			}
			played := strings.Contains(tc.args, "failing.yml") || strings.Contains(tc.args, "gone.yml") // and Ansible has said it
			if silent := played || strings.HasPrefix(tc.args, "is-alive D") || tc.stdin == "{\"status\": \"failed\"}\n{\"eof\": true}\n"; want != 0 && (own.errors == "") != silent {
				t.Errorf("said %q", own.errors)
			}
			if want == 2 && !played && (!strings.HasPrefix(own.errors, "usage: ansible-runner") || !strings.Contains(own.errors, ": error: ")) {
				t.Errorf("said %q", own.errors)
			}
		})
	}
}

func TestVersionIsTheOneThatIsStoodInFor(t *testing.T) {
	t.Parallel()
	want := python(t).run(t, "", "--version").out
	for _, args := range []string{"--version", "run --version", "worker --version", "process --version"} {
		if got := named(t, runnerName).run(t, "", strings.Fields(args)...).out; got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
	if got := named(t, "ranvier").run(t, "", "run", "--version").out; got == want || !strings.Contains(got, "version") {
		t.Errorf("under its own name: %q", got)
	}
}

// TestOutputIsThePythonTools: a stream and a cleanup print the same.
func TestOutputIsThePythonTools(t *testing.T) {
	t.Parallel()
	job := python(t).run(t, "", "transmit", privateDataDir(t, project), "-p", "site.yml", "-i", "id1").out
	said := python(t, "ANSIBLE_FORCE_COLOR=1").run(t, job, "worker").out
	if !strings.Contains(said, `"status": "successful"`) {
		t.Fatal(said)
	}
	theirs := python(t).run(t, said, "process", t.TempDir(), "-i", "id1")
	own := named(t, runnerName).run(t, said, "process", t.TempDir(), "-i", "id1")
	if diff := cmp.Diff(theirs.out, own.out); diff != "" || own.code != 0 || own.errors != "" || own.out == "" {
		t.Errorf("process: %d %s %s", own.code, own.errors, diff)
	}

	left := func() string {
		base := t.TempDir()
		for _, name := range []string{"job_1", "job_2", "job_keep"} {
			if err := os.Mkdir(filepath.Join(base, name), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		return base
	}
	clean := func(tl tool, base string) string {
		end := tl.run(t, "", "worker", "cleanup", "--exclude-strings", "keep", "nothing", "--grace-period=0", "--file-pattern", base+"/job_*")
		if end.code != 0 || end.errors != "" {
			t.Errorf("%+v", end)
		}
		if _, err := os.Stat(filepath.Join(base, "job_keep")); err != nil {
			t.Error(err)
		}
		return strings.ReplaceAll(end.out, base, "BASE")
	}
	if diff := cmp.Diff(clean(python(t), left()), clean(named(t, runnerName), left())); diff != "" {
		t.Errorf("cleanup: %s", diff)
	}
}
