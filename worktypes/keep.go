package worktypes

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ranvier-mesh/ranvier/internal/process"
)

// Keeper starts the processes of jobs and tells how they ended. Its methods are
// called by many goroutines at once. The keepers are the Manager's own, whose jobs
// end with it, and package worktypes/keeper, whose jobs outlive it.
type Keeper interface {
	// Start starts a unit's job, at most once ever: it claims the unit's
	// directory first (ClaimStart), and returns ErrStarted when that was done
	// before. Any other error means that no process was started, and comes
	// before or after the claim.
	Start(l Launch) (Task, error)
	// Find returns the job of a unit whose start was claimed before this
	// Manager began. When nobody can know what became of it, the Task ends
	// with Exit.Lost.
	Find(unit, dir string) Task
	// Outlives reports whether jobs go on when the Manager is closed.
	Outlives() bool
	// Close lets go of the keeper.
	Close() error
}

// Launch is a job to start.
type Launch struct {
	Unit    string   // the unit's id, which is the job's mark too (process.MarkName)
	Dir     string   // the unit's directory
	Argv    []string // the program and its arguments
	Env     []string // the whole environment but for the mark
	WorkDir string   // empty: that of the Keeper
	// Separate keeps standard error in a file of its own.
	Separate bool
	User     *User `json:",omitempty"` // nil: that of the Keeper
}

// Task is a job that was started.
type Task interface {
	// Root is the job's first process; zero when nobody knows.
	Root() process.ID
	// Done is closed when it has ended.
	Done() <-chan struct{}
	// Exit tells how, after Done.
	Exit() Exit
	// Interrupt sends SIGINT to the job's process group.
	Interrupt() error
	// Kill ends everything that the job has started; see process.Family.
	Kill(ctx context.Context) error
	// Forget says that the end is in the journal.
	Forget()
}

// Exit is how a job ended, and the exit record in its unit's directory.
type Exit struct {
	Code   int   // the exit status; -1 when a signal ended it or nobody knows
	Signal int   // the signal that ended it; 0 when it exited
	Size   int64 // of the output at that moment
	// Lost says why nobody can know how the job ended; empty: it is known.
	Lost string `json:",omitempty"`
}

// ErrStarted is a start of a unit that was started before.
var ErrStarted = errors.New("the unit was started before")

// jobFile is the job's record in a unit's directory, which a Keeper writes: lines
// of JSON, each a jobRecord. It is empty from the claim of the start until the
// process is there.
const jobFile = "job"

type jobRecord struct {
	Started *Started `json:",omitempty"`
	Exit    *Exit    `json:",omitempty"`
}

// Started tells which process a job began as.
type Started struct {
	process.ID
	Boot string // process.Boot
}

// ClaimStart makes the job's record, empty, unless there is one: then the error
// wraps ErrStarted. Of any number of keepers one succeeds. What it returns is the
// record, to write to with AppendStarted and AppendExit.
func ClaimStart(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, jobFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%w: %s", ErrStarted, dir)
	}
	return f, err
}

// AppendStarted writes down that the process is there.
func AppendStarted(f *os.File, id process.ID, boot string) error {
	return appendRecord(f, jobRecord{Started: &Started{id, boot}})
}

// AppendExit writes down how the job ended: it survives everything but the machine.
func AppendExit(f *os.File, e Exit) error { return appendRecord(f, jobRecord{Exit: &e}) }

// SyncExit brings the output and then the record to the disk.
func SyncExit(dir string) error {
	if err := syncFile(filepath.Join(dir, stdoutFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := syncFile(filepath.Join(dir, jobFile)); err != nil {
		return err
	}
	return syncFile(dir)
}

// ReadStarted reads back whether a start was claimed, and of which process it
// became; that is zero when nobody had the time to write it down.
func ReadStarted(dir string) (s Started, claimed bool) {
	r, claimed := readRecord(dir)
	if r.Started != nil {
		s = *r.Started
	}
	return s, claimed
}

// ReadExit reads back how the job ended; false when nobody has written that down.
func ReadExit(dir string) (Exit, bool) {
	r, _ := readRecord(dir)
	if r.Exit == nil {
		return Exit{}, false
	}
	return *r.Exit, true
}

func appendRecord(f *os.File, r jobRecord) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	return err
}

// readRecord returns the last of each that stands in the record; a torn line ends it.
func readRecord(dir string) (r jobRecord, claimed bool) {
	f, err := os.Open(filepath.Join(dir, jobFile))
	if err != nil {
		return r, !errors.Is(err, fs.ErrNotExist)
	}
	defer f.Close()
	lines := json.NewDecoder(io.LimitReader(f, 64<<10))
	for next := (jobRecord{}); lines.Decode(&next) == nil; next = (jobRecord{}) {
		r.Started = cmp.Or(next.Started, r.Started)
		r.Exit = cmp.Or(next.Exit, r.Exit)
	}
	return r, true
}

// OutputSize is the size of a unit's output, for an exit record.
func OutputSize(dir string) int64 {
	fi, err := os.Stat(filepath.Join(dir, stdoutFile))
	if err != nil {
		return 0
	}
	return fi.Size()
}

// JobFiles opens what a job reads and writes. A payload's name is removed: it
// carries passwords and keys, and the job has it open. stdin and stderr are nil
// when the unit has none.
func JobFiles(l Launch) (stdin, stdout, stderr *os.File, err error) {
	defer func() {
		if err != nil {
			CloseFiles(stdin, stdout, stderr)
		}
	}()
	if stdout, err = os.OpenFile(filepath.Join(l.Dir, stdoutFile), os.O_WRONLY|os.O_APPEND, 0); err != nil {
		return
	}
	if l.Separate {
		if stderr, err = os.OpenFile(filepath.Join(l.Dir, stderrFile), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600); err != nil {
			return
		}
	}
	stdin, err = os.Open(filepath.Join(l.Dir, stdinFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, stdout, stderr, nil
	}
	if err == nil {
		err = os.Remove(filepath.Join(l.Dir, stdinFile))
	}
	return
}

// CloseFiles closes those that are there.
func CloseFiles(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// syncFile makes a file, or the entries of a directory, durable.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}
