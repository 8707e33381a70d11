package worktypes

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// The files of a unit, in <data dir>/units/<id>/ (docs/work.md section 2). Those
// of its keeper are in keep.go.
const (
	stdinFile     = "stdin"
	stdinPartFile = "stdin.part" // a payload that was not committed
	stdoutFile    = "stdout"
	stderrFile    = "stderr"
	scratchDir    = "scratch"
	treeFile      = "tree"
	treePartFile  = "tree.part" // of a payload that was not committed
)

// Directories whose names begin so are not units: one being made, one being
// removed. What a crash leaves of them is removed at the next start.
const (
	newPrefix     = ".new-"
	releasePrefix = ".released-"
)

// store is the directory of units. It has no state of its own.
type store struct {
	units   string
	content string // the directory of package content
}

// lockDir makes the data directory and takes it for this process. The lock
// goes with the returned file, also when the process is killed.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		pid, _ := io.ReadAll(io.LimitReader(f, 20))
		f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock data directory %s: %w", dir, err)
		}
		return nil, fmt.Errorf("%w: %s is used by process %s; stop it, or give this node a data directory of its own",
			ErrInUse, dir, strings.TrimSpace(string(pid)))
	}
	// For the message above; the lock itself does not need it.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	return f, nil
}

// unlockDir gives the directory up. Closing alone would not: a child that is
// just being forked shares the lock until it becomes another program.
func unlockDir(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_UN)
	return errors.Join(err, f.Close())
}

func openStore(dir string) (store, error) {
	s := store{units: filepath.Join(dir, "units"), content: filepath.Join(dir, "content")}
	if err := os.MkdirAll(s.units, 0o700); err != nil {
		return s, fmt.Errorf("make directory of units: %w", err)
	}
	return s, nil
}

func (s store) path(id string) string { return filepath.Join(s.units, id) }

// ids lists the units and removes what a crash left half-made or half-removed.
// Other names are returned as strangers.
func (s store) ids() (ids, strangers []string, err error) {
	entries, err := os.ReadDir(s.units)
	if err != nil {
		return nil, nil, fmt.Errorf("list units: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		switch {
		case strings.HasPrefix(name, newPrefix), strings.HasPrefix(name, releasePrefix):
			if err := os.RemoveAll(s.path(name)); err != nil {
				return nil, nil, fmt.Errorf("remove left-over: %w", err)
			}
		case ValidateID(name) != nil:
			strangers = append(strangers, name)
		default:
			ids = append(ids, name)
		}
	}
	return ids, strangers, nil
}

// create makes a unit's directory: it is there whole or not at all. It is not
// durable before sync.
func (s store) create(id string) error {
	tmp := s.path(newPrefix + id)
	err := os.Mkdir(tmp, 0o700)
	if err == nil {
		var f *os.File
		f, err = os.OpenFile(filepath.Join(tmp, stdoutFile), os.O_CREATE|os.O_EXCL, 0o600)
		CloseFiles(f)
	}
	if err == nil {
		err = os.Rename(tmp, s.path(id))
	}
	if err != nil {
		_ = os.RemoveAll(tmp)
		return fmt.Errorf("make unit %s: %w", id, err)
	}
	return nil
}

// sync makes a unit's file durable, and the directories that lead to it.
func (s store) sync(id, name string) error {
	for _, path := range []string{filepath.Join(s.path(id), name), s.path(id), s.units} {
		if err := syncFile(path); err != nil {
			return err
		}
	}
	return nil
}

// hide takes a unit out of sight, all at once.
func (s store) hide(id string) error {
	gone := s.path(releasePrefix + id)
	if err := os.Rename(s.path(id), gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("release unit %s: %w", id, err)
	}
	return nil
}

// purge removes the files of a unit that is out of sight.
func (s store) purge(id string) error {
	if err := os.RemoveAll(s.path(releasePrefix + id)); err != nil {
		return fmt.Errorf("release unit %s: %w", id, err)
	}
	return nil
}
