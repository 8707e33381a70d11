package runner_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ranvier-mesh/ranvier/internal/jobdir"
	"github.com/ranvier-mesh/ranvier/runner"
)

func TestCleanupRemovesWhatIsLeftAndNothingElse(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	old := time.Now().Add(-3 * time.Hour)
	dir := func(name string) string {
		d := filepath.Join(base, name)
		if err := os.MkdirAll(filepath.Join(d, "project"), 0o700); err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, name := range []string{"job_left", "job_young", "job_keep_me", "job_locked", "job_daemon", "job_python", "job_inside", "job_dead", "other"} {
		dir(name)
	}
	if err := os.WriteFile(filepath.Join(base, "job_file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir("elsewhere"), filepath.Join(base, "job_link")); err != nil {
		t.Fatal(err)
	}

	lock, err := jobdir.Use(filepath.Join(base, "job_locked"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	pid, err := jobdir.CreatePID(filepath.Join(base, "job_daemon"))
	if err != nil {
		t.Fatal(err)
	}
	defer pid.Remove()
	if err := pid.Write(os.Getpid(), ""); err != nil {
		t.Fatal(err)
	}
	inside := exec.Command("cat")
	inside.Dir = filepath.Join(base, "job_inside", "project")
	in, err := inside.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := inside.Start(); err != nil {
		t.Fatal(err)
	}
	defer inside.Wait()
	defer in.Close()
	for name, n := range map[string]int{"job_python": os.Getpid(), "job_dead": 1 << 22} {
		if err := os.WriteFile(filepath.Join(base, name, "pid"), []byte(strconv.Itoa(n)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(base)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "job_young" && e.Type()&os.ModeSymlink == 0 {
			if err := os.Chtimes(filepath.Join(base, e.Name()), old, old); err != nil {
				t.Fatal(err)
			}
		}
	}

	var said []string
	o := runner.CleanupOptions{
		FilePattern: filepath.Join(base, "job_*"), ExcludeStrings: []string{"keep_me"}, GracePeriod: runner.DefaultGracePeriod,
		Say: func(line string) { said = append(said, strings.ReplaceAll(line, base, "BASE")) },
	}
	done, err := runner.Cleanup(t.Context(), o)
	if err != nil || done != (runner.Cleaned{Dirs: 2}) || !done.Changed() {
		t.Errorf("%+v, %v", done, err)
	}
	want := []string{
		"Excluding running project BASE/job_daemon from cleanup",
		"Excluding running project BASE/job_inside from cleanup",
		"Excluding running project BASE/job_locked from cleanup",
		"Excluding running project BASE/job_python from cleanup",
		"Removed 2 private data dir(s) in pattern BASE/job_*",
	}
	if diff := cmp.Diff(want, said); diff != "" {
		t.Error(diff)
	}
	wantLeft := []string{"elsewhere", "job_daemon", "job_file", "job_inside", "job_keep_me", "job_link", "job_locked", "job_python", "job_young", "other"}
	if left := names(t, base); !slices.Equal(left, wantLeft) {
		t.Errorf("left: %v", left)
	}

	o.GracePeriod = 0
	o.Say = nil
	if done, err := runner.Cleanup(t.Context(), o); err != nil || done.Dirs != 1 {
		t.Errorf("without a grace period: %+v, %v, want the young one removed", done, err)
	}
	if done, err := runner.Cleanup(t.Context(), o); err != nil || done.Changed() {
		t.Errorf("nothing is left to remove: %+v, %v", done, err)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestCleanupRefusesDirectoriesOfTheSystem(t *testing.T) {
	t.Parallel()
	link := filepath.Join(t.TempDir(), "etc")
	if err := os.Symlink("/etc", link); err != nil {
		t.Fatal(err)
	}
	// None of these may be shown to something that removes: a GracePeriod
	// that spares everything stands behind the check.
	for _, pattern := range []string{"/", "/*", "/tmp", "/tmp/../etc", "/usr", "/var/*", "/proc/self", "//", "/tmp/", link, "/dev/shm", os.TempDir()} {
		done, err := runner.Cleanup(t.Context(), runner.CleanupOptions{FilePattern: pattern, GracePeriod: 1 << 62})
		if !errors.Is(err, runner.ErrForbidden) || done.Changed() {
			t.Errorf("%s: %+v, %v", pattern, done, err)
		}
	}
	if _, err := runner.Cleanup(t.Context(), runner.CleanupOptions{FilePattern: "/tmp/[", GracePeriod: 1 << 62}); !errors.Is(err, runner.ErrOptions) {
		t.Errorf("a pattern that is none: %v", err)
	}
}

func TestCleanupOfImages(t *testing.T) {
	t.Parallel()
	engine, err := filepath.Abs("testdata/engine")
	if err != nil {
		t.Fatal(err)
	}
	o := runner.CleanupOptions{Executable: engine, RemoveImages: []string{"ee", "gone"}, PruneImages: true}
	if done, err := runner.Cleanup(t.Context(), o); err != nil || done != (runner.Cleaned{Images: 2}) {
		t.Errorf("%+v, %v", done, err)
	}
	o.RemoveImages = []string{"used", "ee"}
	done, err := runner.Cleanup(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "image is in use") || done.Images != 3 {
		t.Errorf("%+v, %v, want the engine's complaint and the other images gone", done, err)
	}
	o.Executable = "no-such-engine"
	if _, err := runner.Cleanup(t.Context(), o); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("%v", err)
	}
}
