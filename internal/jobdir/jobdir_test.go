package jobdir_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/jobdir"
)

func TestUsersShareAndAClaimIsAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, err := jobdir.Use(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := jobdir.Use(dir)
	if err != nil {
		t.Fatal("a second job: ", err)
	}
	a.Unlock()
	if _, err := jobdir.Claim(dir); !errors.Is(err, jobdir.ErrInUse) {
		t.Errorf("claimed while a job runs: %v", err)
	}
	b.Unlock()
	claim, err := jobdir.Claim(dir)
	if err != nil {
		t.Fatal("the jobs are done: ", err)
	}
	if _, err := jobdir.Use(dir); !errors.Is(err, jobdir.ErrInUse) {
		t.Errorf("a job began while the directory was claimed: %v", err)
	}
	claim.Unlock()
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestLinksAreNotFollowed(t *testing.T) {
	t.Parallel()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	if _, err := jobdir.Claim(link); err == nil {
		t.Error("claimed what a link leads to")
	}
}

func TestPIDFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := jobdir.Find(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("found without a file: %v", err)
	}
	p, err := jobdir.CreatePID(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Write(4711, "/some/where"); err != nil {
		t.Fatal(err)
	}
	want := jobdir.Daemon{PID: 4711, Artifacts: "/some/where", Alive: true}
	if got, err := jobdir.Find(dir); err != nil || got != want {
		t.Errorf("found %+v, %v, want %+v", got, err, want)
	}
	if _, err := jobdir.CreatePID(dir); !errors.Is(err, jobdir.ErrInUse) {
		t.Errorf("a second one: %v", err)
	}
	if err := p.Remove(); err != nil {
		t.Fatal(err)
	}
	if p, err = jobdir.CreatePID(dir); err != nil {
		t.Fatal("after the first one's end: ", err)
	}
	if err := p.Remove(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestPIDFileWithoutALock: the Python tool's file, and what a killed job left.
func TestPIDFileWithoutALock(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		content string
		age     time.Duration
		alive   bool
		fault   bool
	}{
		"runs":           {fmt.Sprintf("%d\n", os.Getpid()), 0, true, false},
		"number reused":  {fmt.Sprintf("%d\n", os.Getpid()), 24 * time.Hour, false, false},
		"dead":           {fmt.Sprintf("%d\n", dead(t)), 0, false, false},
		"no number":      {"pid\n", 0, false, true},
		"all processes":  {"-1\n", 0, false, true},
		"init":           {"1\n", 0, false, true},
		"empty":          {"", 0, false, true},
		"no end of line": {fmt.Sprint(os.Getpid()), 0, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := filepath.Join(dir, jobdir.PIDName)
			if err := os.WriteFile(file, []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
			then := time.Now().Add(-tc.age)
			if err := os.Chtimes(file, then, then); err != nil {
				t.Fatal(err)
			}
			got, err := jobdir.Find(dir)
			if got.Alive != tc.alive || (err != nil) != tc.fault {
				t.Errorf("%+v, %v", got, err)
			}
			p, err := jobdir.CreatePID(dir)
			if tc.alive != errors.Is(err, jobdir.ErrInUse) {
				t.Errorf("create: %v", err)
			}
			if p != nil {
				p.Close()
			}
		})
	}
}

// dead returns the number of a process that has ended.
func dead(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

func TestInsideFindsProcesses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	deep := filepath.Join(dir, "project")
	if err := os.Mkdir(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("cat")
	cmd.Dir = deep
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	found, err := jobdir.Inside(dir)
	if err != nil || !slices.Equal(found, []int{cmd.Process.Pid}) {
		t.Errorf("found %v, %v, want %d", found, err, cmd.Process.Pid)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if found, err := jobdir.Inside(dir); err != nil || len(found) != 0 {
		t.Errorf("found %v, %v, where nothing runs", found, err)
	}
}
