package process

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// ID names one process for as long as the machine is up: a pid alone is given to
// others when its process is gone.
type ID struct {
	PID   int
	Start uint64 // the start time in /proc/<pid>/stat; 0 is no process
}

// Identify returns the ID of the process that has the pid now. The error says
// that there is none.
func Identify(pid int) (ID, error) {
	s, err := readStat(pid)
	if err != nil {
		return ID{}, err
	}
	return ID{pid, s.start}, nil
}

// Alive reports whether the process is there and no zombie.
func (id ID) Alive() bool {
	s, err := readStat(id.PID)
	return err == nil && id.Start != 0 && s.start == id.Start && s.alive()
}

// FindMarked returns the oldest process that carries a job's mark, for when its
// ID was lost; false when there is none.
func FindMarked(mark string) (ID, bool) {
	procs, err := readAll()
	if err != nil {
		return ID{}, false
	}
	var oldest ID
	for _, s := range procs {
		if s.alive() && marked(s.pid, MarkName+"="+mark) && (oldest.Start == 0 || s.start < oldest.Start) {
			oldest = ID{s.pid, s.start}
		}
	}
	return oldest, oldest.Start != 0
}

// Family is a process that leads a session, and all that it started. Its methods
// may be called by any goroutine at any time.
type Family struct {
	root ID
	mark string

	mu    sync.Mutex // guards what is below
	known members    // what Interrupt saw, for Kill to start from
}

// NewFamily returns the family of a process that Start, or somebody else, has
// started in a session of its own with the mark in its environment.
func NewFamily(root ID, mark string) *Family {
	f := &Family{root: root, mark: mark, known: members{}}
	if root.Start != 0 {
		f.known[root.PID] = root.Start
	}
	return f
}

// Root is the first process.
func (f *Family) Root() ID { return f.root }

// Interrupt sends SIGINT to the first process's group, which is what Ctrl-C on
// a terminal does. It does nothing when that process is gone.
func (f *Family) Interrupt() error {
	now, err := readStat(f.root.PID)
	if err != nil || now.start != f.root.Start {
		return nil
	}
	// Remember the family while it is still one: when the child obeys and
	// goes, the parent ids that lead to its grandchildren go with it.
	if procs, err := readAll(); err == nil {
		f.mu.Lock()
		f.known = f.known.expand(procs, "")
		f.mu.Unlock()
	}
	if err := syscall.Kill(-f.root.PID, syscall.SIGINT); err != nil && err != syscall.ESRCH {
		return fmt.Errorf("interrupt process group %d: %w", f.root.PID, err)
	}
	return nil
}

// Kill ends the first process and every one that descends from it, also those
// that called setsid (each fork of ansible does) and those whose parents are
// gone. It returns nil when none is left, else, when ctx is over, an error that
// names the process ids that do not go (a process in uninterruptible sleep).
//
// A process that is neither a descendant any more nor carries the job's mark
// is out of reach: one that changed its environment and its session, and
// whose parents have exited. That takes a cgroup to catch.
func (f *Family) Kill(ctx context.Context) error {
	f.mu.Lock()
	known := maps.Clone(f.known)
	f.mu.Unlock()
	mark := MarkName + "=" + f.mark

	pause := time.NewTimer(0)
	defer pause.Stop()
	// Processes die when the kernel comes to it: look again soon, then less
	// often. Almost always the second look is the last.
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		left, err := killRound(&known, mark)
		if err != nil || len(left) == 0 {
			return err
		}
		pause.Reset(wait)
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes %v of job %s are still there: %w", left, f.mark, ctx.Err())
		case <-pause.C:
		}
	}
}

// killRound stops the whole family, so that nobody can fork behind our back,
// and then kills it. It returns who was alive when the round began.
func killRound(known *members, mark string) ([]int, error) {
	stopped := members{}
	for {
		procs, err := readAll()
		if err != nil {
			return nil, err
		}
		*known = known.expand(procs, mark)
		fresh := false
		for _, s := range procs {
			if (*known)[s.pid] != s.start || !s.alive() || stopped[s.pid] == s.start {
				continue
			}
			stopped[s.pid] = s.start
			fresh = true
			signal(s, syscall.SIGSTOP)
		}
		if !fresh {
			break
		}
	}
	for pid, start := range stopped {
		signal(stat{pid: pid, start: start}, syscall.SIGKILL)
	}
	return slices.Sorted(maps.Keys(stopped)), nil
}

// signal sends sig to exactly the process that s tells of: the handle is taken
// first and the start time compared after, so that a reused pid is safe.
// Errors mean that it is gone or not ours to signal; the next round tells.
func signal(s stat, sig syscall.Signal) {
	h, err := os.FindProcess(s.pid)
	if err != nil {
		return
	}
	defer h.Release()
	if now, err := readStat(s.pid); err == nil && now.start == s.start {
		_ = h.Signal(sig)
	}
}
