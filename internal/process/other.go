package process

import (
	"context"
	"errors"
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
	return NewFamily(ID{leader, s.start}, "").Kill(ctx)
}

// Terminate sends SIGTERM to a process that need not be a child of this one, and
// waits for its end. It returns false where it still runs after the timeout or
// when ctx has ended, then with ctx's cause; true where there is no such process.
func Terminate(ctx context.Context, pid int, timeout time.Duration) (ended bool, err error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("process %d: %w", pid, err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); errors.Is(err, unix.ESRCH) {
		return true, nil
	} else if err != nil {
		return false, fmt.Errorf("signal process %d: %w", pid, err)
	}
	wake := make([]int, 2)
	if err := unix.Pipe2(wake, unix.O_CLOEXEC); err != nil {
		return false, os.NewSyscallError("pipe2", err)
	}
	defer unix.Close(wake[0])
	stop := context.AfterFunc(ctx, func() { unix.Close(wake[1]) })
	defer func() {
		if stop() {
			unix.Close(wake[1])
		}
	}()
	over := time.Now().Add(timeout)
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(wake[0]), Events: unix.POLLIN}}
		_, err := unix.Poll(fds, int(max(0, time.Until(over)).Milliseconds())+1)
		switch {
		case fds[0].Revents != 0:
			return true, nil
		case ctx.Err() != nil:
			return false, context.Cause(ctx)
		case err != nil && !errors.Is(err, unix.EINTR):
			return false, os.NewSyscallError("poll", err)
		case time.Now().After(over):
			return false, nil
		}
	}
}
