package runner

import (
	"bytes"
	"errors"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// inMemory is the tmpfs of this machine.
func inMemory(t *testing.T) string {
	t.Setenv("TMPDIR", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	dir := memoryDir()
	if dir == "" {
		t.Skip("/dev/shm is no tmpfs here that programs run from")
	}
	return dir
}

func TestPrivateDirIsInMemoryWhereItFits(t *testing.T) {
	memory := inMemory(t)
	for _, c := range []struct {
		bytes  int64
		memory bool
	}{{0, true}, {4096, true}, {math.MaxInt64, false}} {
		p := &privateDir{memory: memory}
		dir, limit, err := p.place(c.bytes)
		info, serr := os.Stat(dir)
		if err := errors.Join(err, serr); err != nil {
			t.Fatal(err)
		}
		if within := filepath.Dir(dir) == memory; within != c.memory || (limit > 0) != c.memory || info.Mode().Perm() != 0o700 {
			t.Errorf("%d bytes: %s %v, at most %d", c.bytes, dir, info.Mode(), limit)
		}
		again, limit, err := p.place(math.MaxInt64)
		if again != dir || err != nil || c.memory != (limit == 1) {
			t.Errorf("a second archive: %s, %d, %v", again, limit, err)
		}
		if err := p.remove(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is left", dir)
		}
		if _, _, err := p.place(0); err == nil {
			t.Error("made again")
		}
	}
}

// TestMemoryDirIsSafe: neither what others can write to, nor a disk, nor a link.
func TestMemoryDirIsSafe(t *testing.T) {
	memory := inMemory(t)
	own, err := os.MkdirTemp(memory, "ranvier-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(own)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(own, link); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ dir, tmpdir, want string }{
		{own, "", own}, {own, "/tmp", ""}, {link, "", memory}, {"relative", "", memory}, {"/proc", "", memory},
	} {
		t.Setenv("XDG_RUNTIME_DIR", c.dir)
		t.Setenv("TMPDIR", c.tmpdir)
		if got := memoryDir(); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
	t.Setenv("XDG_RUNTIME_DIR", own)
	t.Setenv("TMPDIR", "")
	if err := os.Chmod(own, 0o770); err != nil {
		t.Fatal(err)
	}
	if got := memoryDir(); got != memory {
		t.Errorf("others may write there: %q", got)
	}
}

// TestWorkInMemory: the job is where its keys are in memory, or where TMPDIR says,
// and nothing of it stays.
func TestWorkInMemory(t *testing.T) {
	memory := inMemory(t)
	own, err := os.MkdirTemp(memory, "ranvier-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(own)
	pdd, disk := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{"args": `sh -c "pwd; cat ../env/secret"`, "env/secret": "geheim", "project/x": ""} {
		file := filepath.Join(pdd, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for want, tmpdir := range map[string]string{own: "", disk: disk} {
		t.Setenv("XDG_RUNTIME_DIR", own)
		t.Setenv("TMPDIR", tmpdir)
		var job, results bytes.Buffer
		if err := Transmit(t.Context(), &job, Options{PrivateDataDir: pdd}); err != nil {
			t.Fatal(err)
		}
		if err := Work(t.Context(), &job, &results, WorkOptions{}); err != nil {
			t.Fatal(err)
		}
		if out := results.String(); !strings.Contains(out, `"stdout": "`+want+"/ranvier-worker-") || !strings.Contains(out, "geheim") {
			t.Errorf("not in %s: %.3000s", want, out)
		}
		for _, dir := range []string{own, disk} {
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("left in %s: %v", dir, left)
			}
		}
	}
}

// A worker removes what one that was killed has left, and neither what one has
// that runs, if only to receive, nor what a process works in, nor anything else.
func TestSweep(t *testing.T) {
	base := t.TempDir()
	t.Setenv("TMPDIR", base)
	for _, name := range []string{ownPrefix + "killed/env", ownPrefix + "busy", "other"} {
		if err := os.MkdirAll(filepath.Join(base, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(base, "other"), filepath.Join(base, ownPrefix+"link")); err != nil {
		t.Fatal(err)
	}
	runs := new(privateDir)
	dir, _, err := runs.place(0)
	if err != nil {
		t.Fatal(err)
	}
	sleeper := exec.Command("sleep", "600")
	sleeper.Dir = filepath.Join(base, ownPrefix+"busy")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	new(privateDir).sweep(slog.New(slog.DiscardHandler))
	if err := sleeper.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = sleeper.Wait()
	left, err := filepath.Glob(filepath.Join(base, "*"))
	if want := []string{"other", ownPrefix + "busy", ownPrefix + "link", filepath.Base(dir)}; err != nil || len(left) != len(want) {
		t.Errorf("%v, %v, want %v", left, err, want)
	}
	if err := runs.remove(); err != nil {
		t.Error(err)
	}
}
