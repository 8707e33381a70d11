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

// The files of a unit, in <data dir>/units/<id>/ (docs/work.md section 2), which is
// made when the first of them is. The output is beside it: outputFile.
const (
	stdinFile     = "stdin"
	stdinPartFile = "stdin.part" // a payload that was not committed
	stderrFile    = "stderr"
	scratchDir    = "scratch"
	treeFile      = "tree"
	treePartFile  = "tree.part" // of a payload that was not committed
	piecesDir     = "pieces"    // of a tree that the node does not keep
)

// releasePrefix begins the names of directories that are being removed. What a
// crash leaves of them is removed at the next start.
const releasePrefix = ".released-"

const outputSuffix = ".stdout"

// outputFile is the output of the unit whose directory is, or would be, dir. It is
// made with the start of the job.
func outputFile(dir string) string { return dir + outputSuffix }

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

// unitFiles is what there is of a unit.
type unitFiles struct{ dir, output bool }

// ids lists the units of which there is something. It removes what a crash left half-removed. Other names are returned as strangers.
func (s store) ids() (ids map[string]unitFiles, strangers []string, err error) {
	entries, err := os.ReadDir(s.units)
	if err != nil {
		return nil, nil, fmt.Errorf("list units: %w", err)
	}
	ids = map[string]unitFiles{}
	for _, e := range entries {
		name := e.Name()
		id, output := strings.CutSuffix(name, outputSuffix)
		switch {
		case strings.HasPrefix(name, releasePrefix):
			if err := os.RemoveAll(s.path(name)); err != nil {
				return nil, nil, fmt.Errorf("remove left-over: %w", err)
			}
		case ValidateID(id) != nil:
			strangers = append(strangers, name)
		default:
			ids[id] = unitFiles{ids[id].dir || !output, ids[id].output || output}
		}
	}
	return ids, strangers, nil
}

// sync makes a unit's file durable, and the directories that lead to it.
func (s store) sync(path string) error {
	for ; ; path = filepath.Dir(path) {
		if err := syncFile(path); err != nil || path == s.units {
			return err
		}
	}
}

// remove removes all that there is of a unit. The directory, where it has one, goes
// out of sight first, all at once.
func (s store) remove(id string, hasDir bool) error {
	err := os.Remove(outputFile(s.path(id)))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if gone := s.path(releasePrefix + id); hasDir && err == nil {
		if err = os.Rename(s.path(id), gone); err == nil || errors.Is(err, fs.ErrNotExist) {
			err = os.RemoveAll(gone)
		}
	}
	if err != nil {
		return fmt.Errorf("release unit %s: %w", id, err)
	}
	return nil
}
