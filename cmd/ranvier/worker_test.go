package main

import (
	"bufio"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestWorkerInfoIsThePythonTools: the same line, but for numbers of the host,
// and the same uuid, whoever has made it.
func TestWorkerInfoIsThePythonTools(t *testing.T) {
	t.Parallel()
	numbers := regexp.MustCompile(`(cpu_count|mem_in_bytes): [1-9]\d*`)
	for _, first := range []string{"ours", "python"} {
		home := t.TempDir()
		own, theirs := named(t, runnerName, "HOME="+home), python(t, "HOME="+home)
		order := []tool{own, theirs}
		if first == "python" {
			order = []tool{theirs, own}
		}
		var said []string
		for _, tl := range order {
			end := tl.run(t, "", "worker", "--worker-info")
			if end.code != 0 {
				t.Errorf("%+v", end)
			}
			said = append(said, numbers.ReplaceAllString(strings.TrimSpace(end.out), "$1: N")) // Python adds an empty line
		}
		if said[0] != said[1] || strings.Count(said[0], ": N") != 2 {
			t.Errorf("%s first: %q, then %q", first, said[0], said[1])
		}
		file := filepath.Join(home, ".ansible_runner_uuid")
		id, err := os.ReadFile(file)
		if err != nil || !strings.Contains(said[0], "uuid: "+string(id)+"}") {
			t.Errorf("%s, %v: %s", id, err, said[0])
		}
		if info, err := os.Stat(file); first == "ours" && (err != nil || info.Mode().Perm() != 0o600) {
			t.Errorf("%v, %v", info, err)
		}
	}
}

// TestKeepaliveOfTheEnvironment: a worker speaks before it has heard anything.
func TestKeepaliveOfTheEnvironment(t *testing.T) {
	t.Parallel()
	cmd := named(t, runnerName, "ANSIBLE_RUNNER_KEEPALIVE_SECONDS=0.01").command(t, "worker")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != `{"event": "keepalive", "counter": 0, "uuid": 0}` {
		t.Errorf("said %q, %v", lines.Text(), lines.Err())
	}
	in.Close()
	for lines.Scan() {
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("%v, want exit code 1", err)
	}
	if end := named(t, runnerName, "ANSIBLE_RUNNER_KEEPALIVE_SECONDS=soon").run(t, "", "worker"); end.code == 0 ||
		!strings.Contains(end.errors, `ANSIBLE_RUNNER_KEEPALIVE_SECONDS: "soon" is no number of seconds`) {
		t.Errorf("%+v", end)
	}
}

// TestExitCodes has the codes one by one, and what people are told with them
// (docs/moving-from-ansible-runner.md §4). Those that need a mesh or a signal
// are in tests/e2e.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	plays := map[string]string{
		"inventory/hosts": "localhost ansible_connection=local ansible_python_interpreter=/usr/bin/python3\n",
		"inventory/gone":  "gone ansible_host=127.0.0.1 ansible_port=1\n",
	}
	for name, text := range map[string]string{
		"good":        "- hosts: localhost\n  gather_facts: false\n  tasks:\n  - ping:\n",
		"failing":     "- hosts: localhost\n  gather_facts: false\n  tasks:\n  - fail: msg=no\n",
		"unreachable": "- hosts: gone\n  gather_facts: false\n  tasks:\n  - ping:\n",
		"long":        "- hosts: localhost\n  gather_facts: false\n  tasks:\n  - command: sleep 600\n",
		"wrong":       "- hosts: localhost\n  tasks:\n  - nosuchmodule: x\n    debug: y\n",
	} {
		plays["project/"+name+".yml"] = text
	}
	dir := privateDataDir(t, plays)
	limited := func(limit string) string {
		files := map[string]string{"env/settings": limit}
		for name, text := range plays {
			files[name] = text
		}
		return privateDataDir(t, files)
	}
	broken := privateDataDir(t, map[string]string{"env/extravars": "a: b: c\n", "project/good.yml": plays["project/good.yml"]})
	own := named(t, "ranvier")
	stream := func(play string, code int) string {
		sent := own.run(t, "", "transmit", dir, "-p", play+".yml")
		said := own.run(t, sent.out, "worker")
		if sent.code != 0 || said.code != code || said.errors != "" { // the stream says the rest
			t.Fatalf("%s: transmit %d, worker %d: %s", play, sent.code, said.code, said.errors)
		}
		return said.out
	}
	failing := stream("failing", 2)
	for name, c := range map[string]struct {
		args, stdin string
		code        int
		says        string
	}{
		"run, good":                 {"run DIR -p good.yml", "", 0, "artifacts in "},
		"run, failing":              {"run DIR -p failing.yml", "", 2, `the job ended with exit code 2 \(failed\)`},
		"run, unreachable":          {"run DIR -p unreachable.yml", "", 4, `the job ended with exit code 4 \(failed\)`},
		"run, wrong play":           {"run DIR -p wrong.yml", "", 4, `exit code 4`},
		"run, no such play":         {"run DIR -p none.yml", "", 1, `exit code 1`},
		"run, job_timeout":          {"run " + limited("job_timeout: 1") + " -p long.yml", "", 254, `exit code 254 \(timeout\): the job took longer than its limit of 1 s`},
		"run, idle_timeout":         {"run " + limited("idle_timeout: 2") + " -p long.yml", "", 254, `exit code 254 \(timeout\): the job said nothing for 2 s`},
		"run, no program":           {"run DIR -p good.yml -b no-such-program", "", 127, `no-such-program not found on node .*: install it`},
		"run, no directory":         {"run DIR/none -p good.yml", "", 1, "DIR/none"},
		"run, options":              {"run DIR -p good.yml --hosts all", "", 2, "hosts"},
		"run, env file":             {"run " + limited("job_timeout: soon") + " -p good.yml", "", 1, "env/settings: line 1: job_timeout"},
		"run, no inventory":         {"run DIR -p good.yml --inventory /no/such/hosts", "", 1, "/no/such/hosts does not exist"},
		"run, role vars":            {"run DIR -p good.yml --role-vars a=1", "", 2, "role vars need a role"},
		"run, nothing to reach":     {"run DIR -p good.yml --via-receptor n --receptor-peer 127.0.0.1:1", "", 69, "127.0.0.1:1"},
		"run, no flag":              {"run DIR --nosuch", "", 2, "--nosuch"},
		"run, a setting":            {"run " + limited("jobtimeout: 1") + " -p good.yml", "", 0, `ranvier: env/settings: line 1: jobtimeout: is no setting, and changes nothing\n`},
		"run, forks":                {"run DIR -p good.yml --forks x", "", 2, `^ranvier: invalid argument "x" for "--forks" flag: it has to be a whole number \(see ranvier run --help\)\n$`},
		"start, options":            {"start DIR", "", 2, "playbook"},
		"start, no directory":       {"start DIR/none -p good.yml", "", 1, "DIR/none"},
		"stop, nothing":             {"stop DIR", "", 1, "no job is running in the background in DIR"},
		"is-alive, no":              {"is-alive DIR", "", 1, "^$"},
		"transmit, no directory":    {"transmit DIR/none -p good.yml", "", 1, "DIR/none"},
		"transmit, options":         {"transmit DIR", "", 2, "playbook"},
		"worker, no stream":         {"worker", "", 1, "transmit stream"},
		"worker, kwargs":            {"worker", "{\"kwargs\": {\"forks\": []}}\n{\"eof\": true}\n", 1, `^ranvier: invalid job: kwargs: forks: has to be a whole number from 0, and is a list\n$`},
		"run, extravars":            {"run " + broken + " -p good.yml", "", 1, "env/extravars: neither JSON nor YAML: line 1"},
		"worker, nonsense":          {"worker", "{]\n", 1, "transmit stream"},
		"cleanup, forbidden":        {"worker cleanup --file-pattern /tmp", "", 1, "/tmp"},
		"cleanup, nothing there":    {"worker cleanup --file-pattern DIR/none*", "", 0, "^$"},
		"process, failing":          {"process DIR -i p1", failing, 2, `^ranvier: the job ended with exit code 2 \(failed\)\n$`},
		"process, Python's timeout": {"process DIR -i p8", "{\"status\": \"timeout\"}\n{\"eof\": true}\n", 254, `^ranvier: the job ended with exit code 254 \(timeout\)\n$`},
		"process, canceled":         {"process DIR -i p9", "{\"status\": \"canceled\"}\n{\"eof\": true}\n", 254, `^ranvier: the job ended with exit code 254 \(canceled\)\n$`},
		"process, garbage":          {"process DIR -i p10", strings.Repeat("x", 3_000_000), 1, `malformed line from the worker .*: xxx`},
		"worker, cut":               {"worker", `{"kwargs": `, 1, `transmit stream: unexpected EOF\n$`},
		"process, a timeout":        {"process DIR -i p6", "{\"status\": \"timeout\", \"job_explanation\": \"it took too long\"}\n{\"eof\": true}\n", 254, `exit code 254 \(timeout\): it took too long`},
		"process, an error":         {"process DIR -i p7", "{\"status\": \"error\", \"job_explanation\": \"no disk\"}\n{\"eof\": true}\n", 1, `the worker reports: no disk`},
		"process, cut":              {"process DIR -i p2", failing[:len(failing)/2], 75, "ended early"},
		"process, nonsense":         {"process DIR -i p3", "{]\n", 1, "malformed line"},
		"process, no result":        {"process DIR -i p4", "{\"eof\": true}\n", 1, "without a result"},
		"process, lost events":      {"process DIR -i p5", regexp.MustCompile(`(?m)^.*"event": "playbook_on_stats".*\n`).ReplaceAllString(failing, ""), 1, `sent \d+ events and \d+ arrived`},
		"no command":                {"nosuch", "", 2, "nosuch"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			end := own.run(t, c.stdin, strings.Fields(strings.ReplaceAll(c.args, "DIR", dir))...)
			if says := regexp.MustCompile(strings.ReplaceAll(c.says, "DIR", dir)); end.code != c.code || !says.MatchString(end.errors) {
				t.Errorf("exit code %d, want %d; said %q, want %s", end.code, c.code, end.errors, says)
			}
		})
	}
}
