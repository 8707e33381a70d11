package worktypes

import (
	"bytes"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Files that others could read or write are closed at the start, with one warning;
// those of another user keep the node from starting.
func TestFilesThatAreOpenToOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	closeNow(t, open(t, dir))
	units, journal, records := filepath.Join(dir, "units"), filepath.Join(dir, journalFile), filepath.Join(dir, recordsFile)
	start := func() (string, error) {
		t.Helper()
		var log bytes.Buffer
		m, err := Open(dir, registry(t), Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err == nil {
			closeNow(t, m)
		}
		return log.String(), err
	}
	for path, mode := range map[string]fs.FileMode{units: 0o777, journal: 0o666, records: 0o644} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	log, err := start()
	if err != nil || strings.Count(log, "level=WARN") != 1 || !strings.Contains(log, units+" (mode 0777)") || !strings.Contains(log, journal+" (mode 0666)") ||
		!strings.Contains(log, records+" (mode 0644)") {
		t.Errorf("%v, log: %s", err, log)
	}
	for path, want := range map[string]fs.FileMode{units: 0o700, journal: 0o600, records: 0o600} {
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, fi.Mode(), err)
		}
	}
	if err := os.Chmod(units, passable); err != nil { // for jobs of other users
		t.Fatal(err)
	}
	if log, err := start(); err != nil || strings.Contains(log, "level=WARN") {
		t.Errorf("once more: %v, log: %s", err, log)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	for _, path := range []string{units, journal, records} {
		if err := os.Chown(path, 4711, -1); err != nil {
			t.Fatal(err)
		}
		if _, err := start(); err == nil || !strings.Contains(err.Error(), path+" belongs to user 4711") {
			t.Errorf("start with a stranger's %s: %v", path, err)
		}
		if err := os.Chown(path, 0, -1); err != nil {
			t.Fatal(err)
		}
	}
}
