// Package terminal runs a program on a pseudo terminal: it reads what the
// program says, answers its questions, and ends it when its time is up
// (docs/runner.md §9).
package terminal

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	gone     = 10 * time.Second       // for the kernel to end them,
	hurried  = 2 * time.Second        // or where somebody is in a hurry
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
	// Output takes what is printed, on Run's goroutine; its error cancels the
	// program. It may change p, but not keep it. As long as it does not return,
	// nothing more is read, and the program has to wait; its limits and ctx hold
	// all the same.
	Output func(p []byte) error
	// Kill, if set, ends what is not among the program's descendants, until ctx
	// is done.
	Kill func(ctx context.Context)
	// Hurry, if set, is closed by who does not want to wait for a program that
	// shall end: it is killed at once, and what it still has to say is not read.
	Hurry <-chan struct{}
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
	result, err := newRun(s, p, master).wait(ctx)
	result.Exit = p.Exit()
	return result, err
}

// program is the child, as *process.Process.
type program interface {
	Done() <-chan struct{}
	Interrupt() error
	Kill(context.Context) error
}

// tty is the terminal's master, as *os.File.
type tty interface {
	io.ReadWriter
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// run is a program that runs. One goroutine reads what it says and hands it on,
// which may take its time; another one, supervise, sees to its end.
type run struct {
	Spec
	process program
	master  tty
	idle    *time.Timer   // stands still while Output has what was said last
	asked   chan string   // answers to give
	failed  chan struct{} // closed: Output takes nothing more
	silent  chan struct{} // closed: nothing more is read

	result Result // supervise's
	mute   error  // why an answer could not be given
}

func newRun(s Spec, p program, master tty) *run {
	return &run{Spec: s, process: p, master: master, idle: timer(s.IdleTimeout),
		asked: make(chan string), failed: make(chan struct{}), silent: make(chan struct{})}
}

// wait waits for the program's end.
func (r *run) wait(ctx context.Context) (Result, error) {
	var supervising sync.WaitGroup
	supervising.Go(func() { r.supervise(ctx) })
	err := r.read()
	supervising.Wait()
	return r.result, errors.Join(err, r.mute)
}

// read hands on what the program says, until nobody is left at the other end of
// the terminal, or the program has ended and nothing comes any more. The error is
// Output's.
func (r *run) read() error {
	defer close(r.silent)
	buf := make([]byte, 32<<10)
	var err error
	for left := maxDrain; left > 0; {
		began := time.Now()
		n, rerr := r.master.Read(buf)
		waited := time.Since(began)
		if n > 0 {
			r.idle.Stop()
			began = time.Now()
			err = r.take(buf[:n], err)
			// Output that waits for its own reader says nothing about the program.
			waited += min(time.Since(began), quiet)
			reset(r.idle, r.IdleTimeout)
		}
		// On a busy machine a deadline may be over before it was looked.
		if rerr != nil && !(errors.Is(rerr, os.ErrDeadlineExceeded) && readable(r.master)) {
			break
		}
		if isClosed(r.process.Done()) {
			if isClosed(r.Hurry) {
				break
			}
			left -= waited
			_ = r.master.SetReadDeadline(time.Now().Add(min(quiet, left)))
		}
	}
	return err
}

// readable tells whether there is something to read now.
func readable(t tty) bool {
	f, ok := t.(*os.File)
	if !ok {
		return false
	}
	fds := []unix.PollFd{{Events: unix.POLLIN}}
	conn, err := f.SyscallConn()
	if err == nil {
		err = conn.Control(func(fd uintptr) {
			fds[0].Fd = int32(fd)
			_, _ = unix.Poll(fds, 0)
		})
	}
	return err == nil && fds[0].Revents&unix.POLLIN != 0
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// take hands output on and finds the answer to what it asks. err is what came of
// it before.
func (r *run) take(p []byte, err error) error {
	if answer, ok := r.Prompts.look(p); ok {
		r.asked <- answer + "\n"
	}
	if err != nil {
		return err
	}
	if err = r.Output(p); err != nil {
		close(r.failed)
	}
	return err
}

// supervise has two phases: the program runs; it has ended, and what it said last
// is read. It can be told to end in the first only.
func (r *run) supervise(ctx context.Context) {
	job := timer(r.JobTimeout)
	answer := timer(0)
	defer job.Stop()
	defer answer.Stop()
	defer r.idle.Stop()
	answers := ""
	var ending sync.WaitGroup
	defer ending.Wait()

	asked, silent, exited := r.asked, r.silent, r.process.Done()
	canceled, failed, late, idle := ctx.Done(), r.failed, job.C, r.idle.C
	end := func(why End) {
		canceled, failed, late, idle = nil, nil, nil, nil
		r.result.End = why
		r.end(&ending)
	}
	for exited != nil || silent != nil {
		select {
		case a := <-asked:
			// Who asks may throw away what was typed before (Ansible's pause does,
			// after it has asked), so that an answer at once would be lost.
			answers += a
			answer.Reset(thinking)
		case <-answer.C:
			r.say(answers)
			answers = ""
		case <-canceled:
			end(Canceled)
		case <-failed:
			end(Canceled)
		case <-late:
			end(JobTimeout)
		case <-idle:
			end(IdleTimeout)
		case <-exited:
			exited, canceled, failed, late, idle = nil, nil, nil, nil, nil
			_ = r.master.SetReadDeadline(time.Now().Add(quiet)) // for a Read that waits already
		case <-silent:
			silent = nil
		}
	}
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
	if d > 0 {
		t.Reset(d)
	}
}

// say gives the answers. A program that does not read them is not waited for.
func (r *run) say(answers string) {
	_ = r.master.SetWriteDeadline(time.Now().Add(grace))
	if _, err := io.WriteString(r.master, answers); err != nil && r.mute == nil {
		r.mute = fmt.Errorf("answer a prompt: %w", err)
	}
}

// end ends the program and all that it has started: first as Ctrl-C does, so that
// temporary files are removed.
func (r *run) end(ending *sync.WaitGroup) {
	_ = r.process.Interrupt() // what remains is killed
	ctx, stop := context.WithTimeout(context.Background(), grace+gone)
	var both sync.WaitGroup
	if r.Kill != nil {
		both.Go(func() { r.Kill(ctx) })
	}
	both.Go(func() {
		select {
		case <-r.process.Done():
		case <-time.After(grace):
		case <-r.Hurry:
		}
		_ = r.process.Kill(ctx) // whoever hangs in the kernel ends when it lets go
	})
	ending.Go(func() {
		defer stop()
		both.Wait()
	})
	ending.Go(func() {
		select {
		case <-r.Hurry:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(hurried):
			stop()
		case <-ctx.Done():
		}
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
