package runner_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ranvier-mesh/ranvier/runner"
)

// TestWorkerInfoWithoutAnsible: AWX takes a host with errors out of service, and its
// hosts have podman and no Ansible.
func TestWorkerInfoWithoutAnsible(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	for _, engine := range []string{"", "podman", "docker"} {
		bin := t.TempDir()
		if engine != "" {
			if err := os.WriteFile(filepath.Join(bin, engine), []byte("#!/bin/sh\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		t.Setenv("PATH", bin)
		errs := strings.Join(runner.WorkerInfo("1").Errors, "; ")
		if missing := strings.Contains(errs, "install ansible-core"); missing != (engine == "") {
			t.Errorf("with %q: %q", engine, errs)
		}
	}
}
