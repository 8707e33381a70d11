package runner_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/jobdir"
	"github.com/ranvier-mesh/ranvier/runner"
)

func TestRotateArtifacts(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		keep int
		left []string
	}{
		{0, []string{"a", "b", "c", "d", "fact_cache", "job_events", "rc"}},
		{4, []string{"a", "b", "c", "d", "fact_cache", "job_events", "rc"}},
		{9, []string{"a", "b", "c", "d", "fact_cache", "job_events", "rc"}},
		{3, []string{"b", "c", "d", "fact_cache", "job_events", "rc"}},
		{2, []string{"b", "c", "d", "fact_cache", "job_events", "rc"}}, // b is going on
		{1, []string{"b", "d", "fact_cache", "job_events", "rc"}},
	} {
		dir := t.TempDir()
		for i, name := range []string{"a", "b", "c", "d", "job_events", "fact_cache"} {
			run := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Join(run, "job_events"), 0o700); err != nil {
				t.Fatal(err)
			}
			then := time.Now().Add(time.Duration(i-20) * time.Hour)
			if err := os.Chtimes(run, then, then); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "rc"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		lock, err := jobdir.Use(filepath.Join(dir, "b"))
		if err != nil {
			t.Fatal(err)
		}
		if err := runner.RotateArtifacts(dir, "d", tc.keep); err != nil {
			t.Error(err)
		}
		lock.Unlock()
		if left := names(t, dir); !slices.Equal(left, tc.left) {
			t.Errorf("keep %d: left %v, want %v", tc.keep, left, tc.left)
		}
	}
	if err := runner.RotateArtifacts(filepath.Join(t.TempDir(), "none"), "d", 1); err != nil {
		t.Errorf("no artifacts yet: %v", err)
	}
}

func TestProcessRotatesAndHoldsItsDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, ident := range []string{"first", "second", "third"} {
		_, err := runner.Process(t.Context(), strings.NewReader("{\"status\": \"successful\"}\n{\"eof\": true}\n"), runner.ProcessOptions{
			PrivateDataDir: dir, Ident: ident, RotateArtifacts: 2,
			StatusHandler: func(runner.Status) {
				if _, err := jobdir.Claim(filepath.Join(dir, "artifacts", ident)); err == nil {
					t.Error("a rotation could remove the directory of this run")
				}
				if _, err := jobdir.Claim(dir); err == nil {
					t.Error("a cleanup could remove the private data directory of this run")
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if left := names(t, filepath.Join(dir, "artifacts")); !slices.Equal(left, []string{"second", "third"}) {
		t.Errorf("left %v", left)
	}
}

func TestProcessLeavesTheNeighboursOfAnArtifactDirAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"mine", "photographs"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	_, err := runner.Process(t.Context(), strings.NewReader("{\"status\": \"successful\"}\n{\"eof\": true}\n"),
		runner.ProcessOptions{ArtifactDir: filepath.Join(dir, "mine"), Ident: "x", RotateArtifacts: 1})
	if err != nil {
		t.Fatal(err)
	}
	if left := names(t, dir); !slices.Equal(left, []string{"mine", "photographs"}) {
		t.Errorf("left %v", left)
	}
}

// A container is killed by its name, with the engine that is installed: the job
// could have written another one into the file. A run without one is left alone.
func TestKillContainer(t *testing.T) {
	bin, dir := t.TempDir(), filepath.Join(t.TempDir(), "id 1")
	said := filepath.Join(bin, "said")
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(bin, "podman"), []byte("#!/bin/sh\necho \"$@\" >> "+said+"\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := runner.KillContainer(t.Context(), dir); err != nil {
		t.Errorf("without a command: %v", err)
	}
	for _, command := range []string{`["/of/the/job/podman", "run", "--name", "other"]`, `["ansible-playbook", "--name", "x"]`, `5`} {
		if err := os.WriteFile(filepath.Join(dir, "command"), []byte(`{"command": `+command+`}`), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := runner.KillContainer(t.Context(), dir); err != nil {
			t.Error(err)
		}
	}
	if got, err := os.ReadFile(said); string(got) != "kill ansible_runner_id_1\n" {
		t.Errorf("%q, %v", got, err)
	}
}
