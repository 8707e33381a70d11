package command

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// The copy of a project for a sandbox is as the project: a key that only its
// owner may read is no other's there, and what cannot be copied is no fault.
func TestTheCopyOfAProject(t *testing.T) {
	t.Parallel()
	for _, kept := range []string{"true", "false"} {
		base := t.TempDir()
		dir := lay(t, map[string]string{"project/keys/id": "key", "project/run": "x", "env/settings": "directory_isolation_cleanup: " + kept})
		project := filepath.Join(dir, "project")
		then := time.Date(2020, 1, 2, 3, 4, 5, 6000, time.UTC)
		modes := map[string]fs.FileMode{"keys/id": 0o400, "run": 0o775, "keys": fs.ModeDir | 0o500, "link": 0}
		for name, mode := range modes {
			path := filepath.Join(project, name)
			if name == "link" {
				if err := os.Symlink("keys/id", path); err != nil {
					t.Fatal(err)
				}
				continue
			}
			if err := os.Chmod(path, mode.Perm()); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, then, then); err != nil {
				t.Fatal(err)
			}
		}
		if err := syscall.Mkfifo(filepath.Join(project, "pipe"), 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := prepare(t, dir, `, "playbook": "p", "process_isolation": true, "process_isolation_executable": "bwrap", "directory_isolation_base_path": "`+base+`"`)
		if err != nil {
			t.Fatal(err)
		}
		for name, mode := range modes {
			info, err := os.Lstat(filepath.Join(j.Dir, name))
			if name == "link" {
				if target, _ := os.Readlink(filepath.Join(j.Dir, name)); target != "keys/id" {
					t.Errorf("link to %q, %v", target, err)
				}
			} else if err != nil || info.Mode() != mode || !info.ModTime().Equal(then) {
				t.Errorf("%s: %v, %v", name, info, err)
			}
		}
		if _, err := os.Lstat(filepath.Join(j.Dir, "pipe")); err == nil {
			t.Error("a pipe is there")
		}
		removed := false
		for _, path := range j.Remove {
			removed = removed || path == j.Dir
		}
		if removed != (kept == "true") {
			t.Errorf("directory_isolation_cleanup: %s: to be removed %q", kept, j.Remove)
		}
	}
}
