package runner_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/ranvier-mesh/ranvier/runner"
)

func TestMonitorCountsAsTheRecapDoes(t *testing.T) {
	t.Parallel()
	var m runner.Monitor
	event := func(name, data string) {
		m.Event(runner.Event{Name: name, Raw: []byte(`{"counter": 1, "event_data": ` + data + `, "pid": 1}`)})
	}
	want := runner.Progress{}
	step := func(what string) {
		t.Helper()
		if diff := cmp.Diff(want, m.Progress()); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	step("before anything")
	m.Status(runner.Status{Status: "running"})
	event("playbook_on_play_start", `{"name": "first pl\u00e4y"}`)
	event("playbook_on_task_start", `{"name": "do it", "task": "x"}`)
	want = runner.Progress{Status: "running", Events: 2, Play: "first pläy", Task: "do it"}
	step("the play begins")
	event("runner_on_start", `{"host": "a"}`)
	event("runner_on_ok", `{"host": "a", "res": {"changed": true, "x": {"changed": false}}}`)
	event("runner_on_ok", `{"host": "a", "res": {"n": NaN, "changed": false, "results": [{"changed": true}]}}`)
	event("runner_item_on_ok", `{"host": "a", "res": {"changed": true}}`)
	event("runner_on_failed", `{"host": "a", "res": {"changed": true}, "ignore_errors": true}`)
	event("runner_on_failed", `{"host": "b", "res": {}, "ignore_errors": null}`)
	event("runner_on_skipped", `{"host": "b"}`)
	event("runner_on_unreachable", `{"host": "c"}`)
	want.Events += 8
	want.Hosts = map[string]runner.HostProgress{
		"a": {OK: 3, Changed: 2, Ignored: 1}, "b": {Failed: 1, Skipped: 1}, "c": {Unreachable: 1},
	}
	step("in the middle")
	// Nothing of this says anything, and nothing of it panics.
	for _, bad := range []string{`{}`, `[]`, `null`, `{"host": 7}`, `{"host": null, "res": 1}`, `"text"`} {
		for _, name := range []string{"runner_on_ok", "playbook_on_stats", "runner_on_failed"} {
			event(name, bad)
			want.Events++
		}
	}
	m.Event(runner.Event{Name: "runner_on_ok", Raw: []byte(`{"event_data": {"host": "a"`)})
	want.Events++
	delete(want.Hosts, "")
	step("nonsense")
	event("playbook_on_play_start", `{"name": "second"}`)
	event("playbook_on_stats", `{"changed": {"a": 1}, "dark": {"c": 1}, "failures": {}, "ignored": {"a": 1}, "ok": {"a": 3},
		"processed": {"a": 1, "b": 1, "c": 1, "d": 1}, "rescued": {"b": 1}, "skipped": {"b": 1}}`)
	want.Events += 2
	want.Play, want.Task = "second", ""
	want.Hosts = map[string]runner.HostProgress{
		"a": {OK: 3, Changed: 1, Ignored: 1}, "b": {Rescued: 1, Skipped: 1}, "c": {Unreachable: 1}, "d": {},
	}
	step("Ansible's own numbers")

	own := m.Progress()
	own.Hosts["a"] = runner.HostProgress{}
	step("what was returned belongs to the caller")
}

// TestMonitorAgreesWithAnsible: what is counted live is what the recap says.
func TestMonitorAgreesWithAnsible(t *testing.T) {
	t.Parallel()
	dir := privateDataDir(t, map[string]string{
		"inventory/hosts": "[all]\na\nb\nc ansible_connection=ssh ansible_host=127.0.0.1 ansible_port=1\n[all:vars]\nansible_connection=local\nansible_python_interpreter=/usr/bin/python3\n",
		"project/site.yml": `
- hosts: all
  gather_facts: false
  tasks:
  - command: "true"
    loop: [1, 2]
  - command: "false"
    ignore_errors: true
  - debug: msg=x
    when: inventory_hostname == 'a'
  - fail: msg=no
    when: inventory_hostname == 'b'
  - debug: msg=again
    changed_when: true
    notify: h
  handlers:
  - name: h
    command: "true"
`})
	sent := ours(t, runner.Options{PrivateDataDir: dir, Playbook: "site.yml"})
	said := python(t, sent, "worker", "--private-data-dir", filepath.Join(t.TempDir(), "w"))
	var m runner.Monitor
	var live runner.Progress
	_, err := runner.Process(t.Context(), bytes.NewReader(said), m.Watch(runner.ProcessOptions{
		PrivateDataDir: dir,
		EventHandler: func(e runner.Event) bool {
			if e.Name != "playbook_on_stats" {
				live = m.Progress()
			}
			return true
		},
	}))
	if err != nil {
		t.Fatal(err)
	}
	if len(live.Hosts) != 3 {
		t.Errorf("hosts: %+v", live.Hosts)
	}
	if diff := cmp.Diff(m.Progress().Hosts, live.Hosts); diff != "" {
		t.Errorf("counted live differs from the recap (-): %s", diff)
	}
}

func TestMonitorIsReadWhileItIsFed(t *testing.T) {
	t.Parallel()
	var m runner.Monitor
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				p := m.Progress()
				if p.Hosts["a"].OK != p.Events {
					t.Errorf("torn: %+v", p)
					return
				}
			}
		})
	}
	for range 2000 {
		m.Event(runner.Event{Name: "runner_on_ok", Raw: []byte(`{"event_data": {"host": "a"}}`)})
	}
	close(stop)
	readers.Wait()
}

func TestBackground(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		handled := 0
		o := runner.ProcessOptions{StatusHandler: func(runner.Status) { handled++ }}
		job := runner.Background(t.Context(), o, func(ctx context.Context, o runner.ProcessOptions) (int, error) {
			o.StatusHandler(runner.Status{Status: "running"})
			<-ctx.Done()
			o.StatusHandler(runner.Status{Status: "canceled"})
			return 254, broken
		})
		synctest.Wait()
		select {
		case <-job.Done():
			t.Error("done while it runs")
		default:
		}
		if got := job.Status().Status; got != "running" {
			t.Errorf("status %q", got)
		}
		job.Cancel()
		job.Cancel()
		<-job.Done()
		if rc, err := job.Wait(); rc != 254 || err != broken || job.Status().Status != "canceled" || handled != 2 {
			t.Errorf("%d, %v, %+v, %d calls", rc, err, job.Status(), handled)
		}
	})
}

func BenchmarkMonitor(b *testing.B) {
	raw, err := json.Marshal(map[string]any{"event_data": map[string]any{
		"host": "web1", "res": map[string]any{"changed": true, "stdout": strings.Repeat("x", 700)}}})
	if err != nil {
		b.Fatal(err)
	}
	var m runner.Monitor
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		m.Event(runner.Event{Name: "runner_on_ok", Raw: raw})
	}
}
