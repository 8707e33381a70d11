// Package terminal runs a program on a pseudo terminal: it reads what the
// program says, answers its questions, and ends it when its time is up
// (docs/runner.md §9).
package terminal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ranvier-mesh/ranvier/internal/process"
)

const (
	quiet    = 20 * time.Millisecond  // how long nothing comes before an ended program's output counts as whole
	thinking = 50 * time.Millisecond  // between a question and its answer
	maxDrain = 500 * time.Millisecond // how long it is listened to at most
	grace    = time.Second            // between SIGINT and the end of all
	gone     = 10 * time.Second       // for the kernel to end them
)

// End says why a program ended.
type End int

// The reasons. Only with Exited was it the program's own doing.
const (
	Exited End = iota
	Canceled
	JobTimeout
	IdleTimeout
)

// Spec is what to run.
type Spec struct {
	Argv []string
	Env  []string // all of it
	Dir  string
	Mark string // unique to the job: all that it starts carries it

	Prompts     Prompts
	IdleTimeout time.Duration // without output; 0 for none
	JobTimeout  time.Duration // all in all; 0 for none
	// Output takes what is printed; its error cancels the program. It may
	// change p, but not keep it.
	Output func(p []byte) error
	// Kill, if set, ends what is not among the program's descendants.
	Kill func()
}

// Result is how it ended.
type Result struct {
	End  End
	Exit process.Exit
}

// Run runs the program to its end, or ends it and all that it has started when
// ctx is done or its time is up. Errors: exec.ErrNotFound, fs.ErrNotExist and
// fs.ErrPermission, wrapped, where it cannot be started; Output's; and those of
// the terminal.
func Run(ctx context.Context, s Spec) (Result, error) {
	master, slave, err := open()
	if err != nil {
		return Result{}, err
	}
	defer master.Close()
	p, err := process.Start(process.Spec{
		Argv: s.Argv, Env: s.Env, WholeEnv: true, Dir: s.Dir, Mark: s.Mark,
		Stdin: slave, Stdout: slave, Terminal: true,
	})
	slave.Close() // the end of output is when nobody holds it
	if err != nil {
		return Result{}, err
	}
	r := &run{Spec: s, process: p, master: master, chunks: make(chan []byte), taken: make(chan struct{})}
	return r.supervise(ctx)
}

// run is a program that runs; supervise's goroutine owns it.
type run struct {
	Spec
	process *process.Process
	master  *os.File
	chunks  chan []byte   // what was read, one at a time,
	taken   chan struct{} // each then given back
	ending  sync.WaitGroup
	answers string      // not yet given,
	answer  *time.Timer // until it is time for them
	result  Result
	err     error
}

// read is the goroutine that reads, until the terminal is closed or nobody is
// left at its other end.
func (r *run) read() {
	defer close(r.chunks)
	buf := make([]byte, 32<<10)
	for {
		n, err := r.master.Read(buf)
		if n > 0 {
			r.chunks <- buf[:n]
			<-r.taken
		}
		if err != nil {
			return
		}
	}
}

// supervise has three phases: the program runs; it has ended, and what it said
// last is read; all is over. It can be told to end in the first only.
func (r *run) supervise(ctx context.Context) (Result, error) {
	var reading sync.WaitGroup
	reading.Go(r.read)
	idle, job := timer(r.IdleTimeout), timer(r.JobTimeout)
	defer idle.Stop()
	defer job.Stop()
	drained := timer(0)
	r.answer = timer(0)
	defer r.answer.Stop()
	var late <-chan time.Time
	canceled, exited, chunks := ctx.Done(), r.process.Done(), r.chunks

	for exited != nil || chunks != nil {
		select {
		case p, more := <-chunks:
			if !more {
				chunks = nil
				break
			}
			r.take(p)
			r.taken <- struct{}{}
			reset(idle, r.IdleTimeout)
			if exited == nil {
				drained.Reset(quiet)
			} else if r.err != nil && canceled != nil {
				canceled, idle, job = nil, timer(0), timer(0)
				r.end(Canceled)
			}
		case <-r.answer.C:
			r.say()
		case <-canceled:
			canceled, idle, job = nil, timer(0), timer(0)
			r.end(Canceled)
		case <-job.C:
			canceled, idle, job = nil, timer(0), timer(0)
			r.end(JobTimeout)
		case <-idle.C:
			canceled, idle, job = nil, timer(0), timer(0)
			r.end(IdleTimeout)
		case <-exited:
			exited, canceled, idle, job = nil, nil, timer(0), timer(0)
			drained = time.NewTimer(quiet)
			late = time.After(maxDrain)
		case <-drained.C:
			r.master.Close()
		case <-late:
			r.master.Close()
		}
	}
	reading.Wait()
	r.ending.Wait()
	r.result.Exit = r.process.Exit()
	return r.result, r.err
}

// timer is one that never fires where d is 0.
func timer(d time.Duration) *time.Timer {
	if d > 0 {
		return time.NewTimer(d)
	}
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

func reset(t *time.Timer, d time.Duration) {
	if d > 0 && t.Stop() {
		t.Reset(d)
	}
}

// take hands output on and prepares the answer to what it asks. Who asks may
// throw away what was typed before (Ansible's pause does, after it has asked),
// so that an answer at once would be lost.
func (r *run) take(p []byte) {
	if answer, ok := r.Prompts.look(p); ok {
		r.answers += answer + "\n"
		r.answer.Reset(thinking)
	}
	if r.err == nil {
		r.err = r.Output(p)
	}
}

// say gives the answers.
func (r *run) say() {
	if _, err := r.master.WriteString(r.answers); err != nil && r.err == nil {
		r.err = fmt.Errorf("answer a prompt: %w", err)
	}
	r.answers = ""
}

// end ends the program and all that it has started, while supervise goes on
// reading: first as Ctrl-C does, so that temporary files are removed.
func (r *run) end(why End) {
	r.result.End = why
	_ = r.process.Interrupt() // what remains is killed
	r.ending.Go(func() {
		if r.Kill != nil {
			r.Kill()
		}
		select {
		case <-r.process.Done():
		case <-time.After(grace):
		}
		ctx, stop := context.WithTimeout(context.Background(), gone)
		defer stop()
		_ = r.process.Kill(ctx) // whoever hangs in the kernel ends when it lets go
	})
}

// open makes a terminal of 24 lines and 80 columns that does not echo. Its
// master can be closed while it is read.
func open() (master, slave *os.File, err error) {
	if master, slave, err = process.OpenTerminal(); err != nil {
		return nil, nil, err
	}
	if err := setUp(int(slave.Fd())); err != nil {
		master.Close()
		slave.Close()
		return nil, nil, fmt.Errorf("set up a terminal: %w", err)
	}
	return master, slave, nil
}

func setUp(slave int) error {
	t, err := unix.IoctlGetTermios(slave, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Lflag &^= unix.ECHO
	return errors.Join(unix.IoctlSetTermios(slave, unix.TCSETS, t),
		unix.IoctlSetWinsize(slave, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}))
}
