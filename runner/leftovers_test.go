package runner_test

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ranvier-mesh/ranvier/runner"
)

// An Ansible that is killed leaves its temporary files, which may hold secrets:
// they go with the job.
func TestNothingOfAKilledAnsibleStays(t *testing.T) {
	t.Parallel()
	dir := privateDataDir(t, map[string]string{"inventory/hosts": local,
		"project/site.yml": `
- hosts: all
  gather_facts: false
  tasks:
  - command: ls {{ lookup('env', 'ANSIBLE_LOCAL_TEMP') }}
    register: r
  - debug: msg=has-{{ r.stdout }}
  # The parent of who asks is a fork of Ansible.
  - shell: kill -9 $(cut -d' ' -f4 /proc/{{ lookup('pipe', 'echo $PPID') }}/stat)
`})
	var out bytes.Buffer
	result, err := runner.Run(t.Context(), runner.RunOptions{
		Options: runner.Options{PrivateDataDir: dir, Playbook: "site.yml", Ident: "id1"},
		Process: runner.ProcessOptions{Output: &out},
	})
	if err != nil || result.RC != 137 || !strings.Contains(out.String(), "has-ansible-local-") {
		t.Errorf("%+v, %v: %s", result, err, out.String())
	}
	for name := range tree(t, dir) {
		if strings.Contains(name, "ansible-local-") || name == "artifacts/id1/tmp" {
			t.Errorf("%s stays", name)
		}
	}
}

// The directory that a worker makes for a job is nobody else's, and goes with
// the job, however that ends.
func TestWorkersDirectoryIsPrivateAndGoes(t *testing.T) {
	t.Parallel()
	failing := debugPlay("x")
	failing["project/site.yml"] += "  - fail: msg=no\n"
	for name, files := range map[string]map[string]string{"successful": debugPlay("x"), "failed": failing, "canceled": debugPlay("x")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var dir string
			var last runner.Status
			sent := ours(t, runner.Options{PrivateDataDir: privateDataDir(t, files), Playbook: "site.yml", Ident: "id1"})
			_ = runner.Work(ctx, bytes.NewReader(sent), new(bytes.Buffer), runner.WorkOptions{
				EventHandler: func(runner.Event) bool {
					if name == "canceled" {
						cancel()
					}
					return true
				},
				StatusHandler: func(s runner.Status) { last = s },
				ArtifactsHandler: func(artifacts string) {
					dir = filepath.Dir(filepath.Dir(artifacts))
					if info, err := os.Stat(dir); err != nil || info.Mode() != fs.ModeDir|0o700 {
						t.Errorf("%v, %v", info, err)
					}
				},
			})
			if _, err := os.Stat(dir); last.Status != name || dir == "" || err == nil {
				t.Errorf("%s is there still; the job: %+v", dir, last)
			}
		})
	}
}
