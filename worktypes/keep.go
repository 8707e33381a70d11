package worktypes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ranvier-mesh/ranvier/internal/process"
)

// Keeper starts the processes of jobs and tells how they ended. Its methods are
// called by many goroutines at once. The keepers are the Manager's own, whose jobs
// end with it, and package worktypes/keeper, whose jobs outlive it.
type Keeper interface {
	// Start starts a unit's job, at most once ever: it claims the unit's
	// output first (ClaimStart), and returns ErrStarted when that was done
	// before. Any other error means that no process was started, and comes
	// before or after the claim.
	Start(l Launch) (Task, error)
	// Find returns the job of a unit whose start was claimed before this
	// Manager began. When nobody can know what became of it, the Task ends
	// with Exit.Lost.
	Find(unit, dir string) Task
	// Forget says that the end of a unit's job is in the journal.
	Forget(unit string)
	// Outlives reports whether jobs go on when the Manager is closed.
	Outlives() bool
	// Up reports whether the keeper is there; the next start brings one up.
	Up() bool
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
	// Input is set when the unit has a payload.
	Input bool `json:",omitempty"`
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

// Exit is how a job ended, and its exit record.
type Exit struct {
	Code   int   // the exit status; -1 when a signal ended it or nobody knows
	Signal int   // the signal that ended it; 0 when it exited
	Size   int64 // of the output at that moment
	// DiskFull is set when there was no room for more output at that moment: what
	// there is may not be all that the job has written.
	DiskFull bool `json:",omitempty"`
	// Lost says why nobody can know how the job ended; empty: it is known.
	Lost string `json:",omitempty"`
}

// ErrStarted is a start of a unit that was started before.
var ErrStarted = errors.New("the unit was started before")

// Look takes the output of a job that has ended just now into its exit record. user
// is the job's.
func (e *Exit) Look(stdout *os.File, user *User) {
	if fi, err := stdout.Stat(); err == nil {
		e.Size = fi.Size()
	}
	var st unix.Statfs_t
	e.DiskFull = unix.Fstatfs(int(stdout.Fd()), &st) == nil && full(st, user)
}

// OutputSize is the size of a unit's output, for an exit record.
func OutputSize(dir string) int64 {
	fi, err := os.Stat(outputFile(dir))
	if err != nil {
		return 0
	}
	return fi.Size()
}

// JobFiles opens what a job reads, and its standard error where that is kept
// apart; each is nil when the unit has none. A payload's name is removed: it
// carries passwords and keys, and the job has it open.
func JobFiles(l Launch) (stdin, stderr *os.File, err error) {
	if l.Separate {
		if stderr, err = os.OpenFile(filepath.Join(l.Dir, stderrFile), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600); err != nil {
			return nil, nil, err
		}
	}
	if !l.Input {
		return nil, stderr, nil
	}
	stdin, err = os.Open(filepath.Join(l.Dir, stdinFile))
	if err == nil {
		err = os.Remove(filepath.Join(l.Dir, stdinFile))
	}
	if err != nil {
		CloseFiles(stdin, stderr)
		return nil, nil, err
	}
	return stdin, stderr, nil
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
