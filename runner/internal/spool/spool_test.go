package spool_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ranvier-mesh/ranvier/runner/internal/spool"
)

func TestFileLeavesNoName(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	f, err := spool.File("")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if filepath.Dir(f.Name()) != dir {
		t.Errorf("%s is not in TMPDIR", f.Name())
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("in the directory is %v, %v", left, err)
	}
	got := make([]byte, 1)
	if _, err := f.WriteString("x"); err != nil {
		t.Error(err)
	}
	if _, err := f.ReadAt(got, 0); err != nil || got[0] != 'x' {
		t.Errorf("%q, %v", got, err)
	}
}

func TestFileSaysWhichDirectory(t *testing.T) {
	t.Parallel()
	gone := filepath.Join(t.TempDir(), "gone")
	if _, err := spool.File(gone); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), gone) {
		t.Errorf("error %v", err)
	}
}

func TestDirIsThere(t *testing.T) {
	t.Setenv("TMPDIR", "")
	if info, err := os.Stat(spool.Dir()); err != nil || !info.IsDir() {
		t.Errorf("%s: %v", spool.Dir(), err)
	}
}
