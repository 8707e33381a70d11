// Package process starts one child process and ends it with everything that
// it started.
//
// A child gets a session of its own, so that a signal meant for the node's
// terminal or process group never reaches it, and its standard streams are
// files: the child writes straight to disk, and no byte of a job passes
// through the node while it runs.
//
// There is no parent death signal on purpose. A job must be able to outlive
// the node that started it (an upgrade must not end a play half-way), and the
// signal would end only the child and none of what the child forked.
//
// Linux only: descendants are found in /proc.
package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// MarkName is the environment variable that marks all processes of a job. It
// is how a process is recognised that has left its parents' session and whose
// parents are gone.
const MarkName = "RANVIER_JOB"

// Spec is what to start.
type Spec struct {
	// Argv is the program and its arguments. A program without a slash is
	// looked up in the PATH of this process.
	Argv []string
	// Env is added to the environment of this process; later entries win.
	Env []string
	// WholeEnv makes Env all of the child's environment but for the mark.
	WholeEnv bool
	// Dir is the working directory; empty is that of this process.
	Dir string
	// Mark is unique to the job: every process that carries it belongs to the
	// child. Required.
	Mark string
	// Stdin is what the child reads; nil is /dev/null.
	Stdin *os.File
	// Stdout is where the child writes, its standard error too unless Stderr
	// is set. Both then are one open file description, so that their
	// order is kept; open it with O_APPEND. nil is /dev/null.
	Stdout *os.File
	// Stderr is the child's standard error; nil is the same as Stdout.
	Stderr *os.File
	// Terminal makes Stdin, which then is a terminal, the controlling one of
	// the child's session.
	Terminal bool
	// Credential is the user that the child runs as; nil: that of this process.
	Credential *syscall.Credential
}

// Exit is how a process ended.
type Exit struct {
	Code   int            // the exit status; -1 when a signal ended it
	Signal syscall.Signal // the signal that ended it; 0 when it exited
}

// Success reports whether the process exited with status 0.
func (e Exit) Success() bool { return e.Code == 0 && e.Signal == 0 }

// String is "exit status 3" or "killed by signal 9 (killed)".
func (e Exit) String() string {
	if e.Signal != 0 {
		return fmt.Sprintf("killed by signal %d (%s)", int(e.Signal), e.Signal)
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

// Process is a started child. Its methods may be called by any goroutine at
// any time, also after the child has ended.
type Process struct {
	*Family
	pid  int
	proc *os.Process
	done chan struct{}
	exit Exit // written before done is closed

	// reap is held while the child is reaped: as long as it is not, its pid
	// and its process group cannot be somebody else's.
	reap   sync.Mutex
	reaped bool
}

// Start starts a child. The caller's files may be closed as soon as it
// returns. An error names the program; errors.Is tells exec.ErrNotFound,
// fs.ErrNotExist and fs.ErrPermission apart.
func Start(spec Spec) (*Process, error) {
	if len(spec.Argv) == 0 || spec.Mark == "" {
		return nil, errors.New("start a process: no program or no mark given")
	}
	cmd := exec.Command(spec.Argv[0], spec.Argv[1:]...)
	mark := spec.Mark
	if outer := os.Getenv(MarkName); outer != "" {
		mark = outer + "/" + mark // a job within a job is found by both
	}
	if !spec.WholeEnv {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(append(cmd.Env, spec.Env...), MarkName+"="+mark)
	cmd.Dir = spec.Dir
	// Only files are handed over, and only when they are set: a nil *os.File
	// in an interface would not be nil, and any other reader or writer would
	// put a copying goroutine between the child and its output.
	if spec.Stdin != nil {
		cmd.Stdin = spec.Stdin
	}
	if spec.Stdout != nil {
		cmd.Stdout = spec.Stdout
	}
	cmd.Stderr = cmd.Stdout
	if spec.Stderr != nil {
		cmd.Stderr = spec.Stderr
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: spec.Terminal, Credential: spec.Credential}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %q: %w", spec.Argv[0], err)
	}
	// It is a zombie at least: until it is reaped it can be identified.
	id, err := Identify(cmd.Process.Pid)
	if err != nil {
		id = ID{PID: cmd.Process.Pid}
	}
	p := &Process{
		Family: NewFamily(id, mark),
		pid:    cmd.Process.Pid,
		proc:   cmd.Process,
		done:   make(chan struct{}),
	}
	go p.wait()
	return p, nil
}

// wait is the goroutine that reaps the child. It first waits without reaping,
// so that reaping happens under the lock.
func (p *Process) wait() {
	for {
		err := unix.Waitid(unix.P_PID, p.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			break
		}
	}
	p.reap.Lock()
	state, err := p.proc.Wait()
	p.reaped = true
	p.reap.Unlock()
	p.exit = Exit{Code: -1}
	if err == nil {
		ws := state.Sys().(syscall.WaitStatus)
		if ws.Signaled() {
			p.exit.Signal = ws.Signal()
		} else {
			p.exit.Code = ws.ExitStatus()
		}
	}
	close(p.done)
}

// PID is the child's process id, which is also its session's and its process
// group's.
func (p *Process) PID() int { return p.pid }

// Done is closed when the child itself has ended; what it has started may
// still run.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit waits until the child has ended and tells how.
func (p *Process) Exit() Exit {
	<-p.done
	return p.exit
}

// Interrupt is Family's. It does nothing when the child has ended.
func (p *Process) Interrupt() error {
	p.reap.Lock()
	defer p.reap.Unlock()
	if p.reaped {
		return nil
	}
	return p.Family.Interrupt()
}
