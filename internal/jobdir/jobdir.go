// Package jobdir tells whether a job runs in a private data directory, so that
// nothing removes the directory below it.
//
// A job holds a shared lock on the directory itself (flock(2)): no file is left
// behind, the kernel gives it up however the job ends, and several jobs may use
// one directory. Who wants to remove the directory claims it: an exclusive lock.
// A job in the background has a file `pid` there as well, which it holds locked
// and removes at its end.
//
// Linux only: processes are looked up in /proc.
package jobdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

var (
	// ErrInUse is returned where a job runs in the directory.
	ErrInUse = errors.New("a job is running there")
	// ErrNoLocks is returned where the file system has no locks, so that it
	// cannot be told whether a job runs (some network file systems).
	ErrNoLocks = errors.New("the file system has no locks")
)

// Lock is a directory in use or claimed.
type Lock struct{ f *os.File }

// Unlock gives the directory free; a nil Lock has nothing to give.
func (l *Lock) Unlock() {
	if l != nil {
		// By itself, not by closing alone: a process that is being started
		// has the file open as well until it executes its program.
		_ = unix.Flock(int(l.f.Fd()), unix.LOCK_UN)
		l.f.Close()
	}
}

// Use marks dir as one that a job runs in, beside others, until Unlock or the
// end of this process. Where the file system has no locks it does so without
// effect: the job is worth more than the mark. Errors are ErrInUse where dir is
// being removed, and *fs.PathError.
func Use(dir string) (*Lock, error) {
	l, err := lock(dir, unix.LOCK_SH)
	if errors.Is(err, ErrNoLocks) {
		return nil, nil
	}
	return l, err
}

// Claim takes dir for oneself, to remove it. Errors are ErrInUse, ErrNoLocks and
// *fs.PathError.
func Claim(dir string) (*Lock, error) { return lock(dir, unix.LOCK_EX) }

func lock(dir string, how int) (*Lock, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := flock(f, how); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return &Lock{f}, nil
}

// flock takes the lock or says why not, without waiting.
func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return ErrInUse
		case errors.Is(err, unix.ENOLCK), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EBADF), errors.Is(err, unix.EINVAL):
			return ErrNoLocks
		default:
			return &fs.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
	}
}
