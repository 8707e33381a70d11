package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
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
