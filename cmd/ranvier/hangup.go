package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// whileRunning is for a command that runs a job on this host: it leaves nothing
// of it behind when the terminal goes (SIGHUP ends the returned context, unless
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
