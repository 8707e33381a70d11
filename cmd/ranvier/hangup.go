package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// whileRunning is for a command that runs a job or takes its results: it leaves
// nothing behind when the terminal goes (SIGHUP ends the returned context, unless
// nohup has it ignored) or when nobody reads the output any more (a write fails
// instead of the process). The returned function ends that.
func whileRunning(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	closed := unbrokenPipe()
	hangups := make(chan os.Signal, 1)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(hangups, syscall.SIGHUP)
	}
	go func() {
		select {
		case <-hangups:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(hangups)
		closed()
		cancel()
	}
}

// unbrokenPipe lets writes to standard output fail that nobody reads any more,
// instead of the process. The returned function ends that.
func unbrokenPipe() func() {
	ignored := make(chan os.Signal, 1)
	signal.Notify(ignored, syscall.SIGPIPE)
	return func() { signal.Stop(ignored) }
}

// interruptible is in where its reads end at a deadline: so they do of a terminal
// and of what never waits, while a pipe, which others share, is pumped into one
// of our own.
func interruptible(in *os.File) (*os.File, error) {
	if info, err := in.Stat(); err != nil || info.Mode().IsRegular() || in.SetReadDeadline(time.Time{}) == nil {
		return in, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	go func() { // until in ends, or this process
		defer w.Close()
		_, _ = io.Copy(w, in)
	}()
	return r, nil
}

// whileRead ends the returned context, with EPIPE as the cause, when nobody reads
// out any more: a job that says nothing would not find out.
func whileRead(ctx context.Context, out *os.File) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() { // until that is so, or this process ends
		fds := []unix.PollFd{{Fd: int32(out.Fd())}}
		for {
			_, err := unix.Poll(fds, -1)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err == nil && fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0 {
				cancel(fmt.Errorf("nobody reads the output any more: %w", syscall.EPIPE))
			}
			return
		}
	}()
	return ctx
}
