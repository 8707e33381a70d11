// Package newansible finds, for tests, the ansible-core and ansible-runner of a
// newer Debian, which scripts/setup puts beside the installed ones.
package newansible

import (
	"os"
	"path/filepath"
	"testing"
)

// Env returns the variables with which both are found before the installed
// ones, as name=value. Where they are not there the test is skipped.
func Env(t testing.TB) []string {
	t.Helper()
	usr := find(t)
	return []string{
		"PATH=" + filepath.Join(usr, "bin") + ":" + os.Getenv("PATH"),
		"PYTHONPATH=" + filepath.Join(usr, "lib", "python3", "dist-packages"),
	}
}

// Bin returns the directory with their commands, or skips the test.
func Bin(t testing.TB) string {
	t.Helper()
	return filepath.Join(find(t), "bin")
}

func find(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		usr := filepath.Join(dir, ".cache", "trixie", "usr")
		if _, err := os.Stat(filepath.Join(usr, "bin", "ansible-playbook")); err == nil {
			return usr
		}
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil || dir == filepath.Dir(dir) {
			t.Skip("no newer Ansible is there: scripts/setup newer fetches it where Debian's mirror can be reached")
		}
	}
}
