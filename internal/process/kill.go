package process

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"syscall"
	"time"
)

// Kill ends the child and every process that descends from it, also those that
// called setsid (each fork of ansible does) and those whose parents are gone.
// It returns nil when none is left, else, when ctx is over, an error that
// names the process ids that do not go (a process in uninterruptible sleep).
//
// A process that is neither a descendant any more nor carries the job's mark
// is out of reach: one that changed its environment and its session, and
// whose parents have exited. That takes a cgroup to catch.
func (p *Process) Kill(ctx context.Context) error {
	p.mu.Lock()
	known := maps.Clone(p.known)
	p.mu.Unlock()
	mark := MarkName + "=" + p.mark

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
			return fmt.Errorf("processes %v of job %s are still there: %w", left, p.mark, ctx.Err())
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
