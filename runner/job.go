package runner

import "context"

// Job is one that runs in the background; R is what its end brings. All methods
// may be called concurrently and as often as one likes.
type Job[R any] struct {
	cancel  context.CancelFunc
	monitor Monitor
	done    chan struct{}
	result  R // these two are written before done is closed
	err     error
}

// Background runs a job in a goroutine of its own: run gets o with handlers that
// keep the job's Status up to date, and a context that Cancel ends. It is what
// Async here and in other packages is made of.
func Background[R any](ctx context.Context, o ProcessOptions, run func(context.Context, ProcessOptions) (R, error)) *Job[R] {
	ctx, cancel := context.WithCancel(ctx)
	j := &Job[R]{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer cancel()
		defer close(j.done)
		j.result, j.err = run(ctx, j.monitor.Watch(o))
	}()
	return j
}

// Async is Run in the background. The job's Cancel is the end of ctx; its Status
// follows the events as they happen.
func Async(ctx context.Context, o RunOptions) *Job[Result] {
	return Background(ctx, o.Process, func(ctx context.Context, p ProcessOptions) (Result, error) {
		o.Process = p
		return Run(ctx, o)
	})
}

// Wait waits for the job's end and returns what it brought.
func (j *Job[R]) Wait() (R, error) {
	<-j.done
	return j.result, j.err
}

// Done is closed when Wait would return at once.
func (j *Job[R]) Done() <-chan struct{} { return j.done }

// Cancel ends the job in an orderly way: wherever it runs, all that it started
// is ended, and what it has done until then is brought back. It does not wait
// for that; Wait does.
func (j *Job[R]) Cancel() { j.cancel() }

// Status returns how far the job has come.
func (j *Job[R]) Status() Progress { return j.monitor.Progress() }
