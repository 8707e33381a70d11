package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// lastWait is how long the end of a job here may take once somebody is in a hurry.
const lastWait = 5 * time.Second

// workersGrace is how long a canceled command takes what a worker still sends.
var workersGrace = 10 * time.Second

type signalsKey struct{}

// signals are what a command's context knows of SIGINT and SIGTERM.
type signals struct {
	mu    sync.Mutex
	hurry chan struct{} // nil as long as no job runs here
}

// onSignals returns a context that the first SIGINT or SIGTERM ends, so that the
// command ends in an orderly way. The second ends the process, and at once where
// the job is elsewhere. One that runs here is not left alone: it is killed, and
// nothing of it is left behind. The returned function ends that.
func onSignals(ctx context.Context) (context.Context, func()) {
	ctx, stop := context.WithCancel(ctx)
	s := new(signals)
	came := make(chan os.Signal, 2)
	signal.Notify(came, syscall.SIGINT, syscall.SIGTERM)
	over := make(chan struct{})
	go func() {
		for _, act := range []func(){stop, func() { s.second(over) }} {
			select {
			case <-came:
				act()
			case <-over:
				return
			}
		}
	}()
	return context.WithValue(ctx, signalsKey{}, s), func() {
		signal.Stop(came)
		close(over)
		stop()
	}
}

func (s *signals) second(over <-chan struct{}) {
	s.mu.Lock()
	hurry := s.hurry
	s.mu.Unlock()
	if hurry != nil {
		close(hurry)
		select {
		case <-time.After(lastWait):
		case <-over:
			return
		}
	}
	os.Exit(exitCanceled)
}

// hurried is for a command whose job runs here: the channel is closed when the
// job's end shall not take its time.
func hurried(ctx context.Context) <-chan struct{} {
	s, ok := ctx.Value(signalsKey{}).(*signals)
	if !ok {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hurry == nil {
		s.hurry = make(chan struct{})
	}
	return s.hurry
}

// lastWords is for a command that takes a worker's results: Ctrl-C reaches the
// worker of a pipeline as well, and what it says then is worth having. The
// returned context ends workersGrace after ctx, at once when hurry is closed, or
// with the returned function. waiting is called where that takes more than a moment.
func lastWords(ctx context.Context, hurry <-chan struct{}, waiting func()) (context.Context, func()) {
	reading, stop := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer stop()
		select {
		case <-ctx.Done():
		case <-reading.Done():
			return
		}
		defer time.AfterFunc(time.Second, waiting).Stop()
		select {
		case <-time.After(workersGrace):
		case <-hurry:
		case <-reading.Done():
		}
	}()
	return reading, stop
}
