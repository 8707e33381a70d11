package process

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Started tells when the process pid began, which need not be a child of this
// one; the error is fs.ErrNotExist where there is none that lives. It is exact
// to a hundredth of a second and follows the system clock when that is set.
func Started(pid int) (time.Time, error) {
	s, err := readStat(pid)
	if err != nil {
		return time.Time{}, err
	}
	if !s.alive() {
		return time.Time{}, &fs.PathError{Op: "look up", Path: fmt.Sprintf("process %d", pid), Err: fs.ErrNotExist}
	}
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return time.Time{}, os.NewSyscallError("clock_gettime", err)
	}
	const tick = time.Second / 100 // USER_HZ is part of the kernel's interface
	return time.Now().Add(time.Duration(s.start)*tick - time.Duration(up.Nano())), nil
}

// KillSession ends the process leader, which must have begun a session, and
// every process that descends from it, as Process.Kill does for a child. It
// returns nil where there is no such process.
func KillSession(ctx context.Context, leader int) error {
	s, err := readStat(leader)
	if err != nil {
		return nil // it is gone
	}
	if s.session == 1 || leader == os.Getpid() {
		return fmt.Errorf("end process %d: %w", leader, syscall.EPERM)
	}
	p := &Process{pid: leader, known: members{leader: s.start}}
	return p.Kill(ctx)
}
