package worktypes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/process"
)

// job is a unit's running process with its output files.
type job struct {
	name   string
	proc   *process.Process
	grace  time.Duration
	stdout *os.File
	stderr *os.File // nil unless separate
}

// start makes a Pending unit Running. That is on disk before the process
// begins: a crash between the two costs the job, and can never start it twice.
func (u *unit) start() (*job, error) {
	u.op.Lock()
	defer u.op.Unlock()
	if err := u.checkPending(); err != nil {
		return nil, err
	}
	j, err := u.launch()
	if err != nil {
		err = fmt.Errorf("unit %s could not be started: %w", u.spec.ID, err)
		u.removeFile(scratchDir)
		_ = u.end(func(s *Status) { s.State, s.Detail = Failed, err.Error() })
		return nil, err
	}
	return j, nil
}

func (u *unit) launch() (_ *job, err error) {
	t, err := u.m.types.Lookup(u.spec.Type)
	if err != nil {
		return nil, err
	}
	scratch := u.file(scratchDir)
	plan, err := t.Plan(u.spec, scratch)
	if err != nil {
		return nil, err
	}
	hasTree := u.lease != nil
	if hasTree {
		plan.Argv = plan.Tree.Argv
	}
	if len(plan.Argv) == 0 {
		return nil, fmt.Errorf("work type %s plans no command", u.spec.Type)
	}
	if err := u.transition(func(s *Status) {
		s.State, s.Detail, s.Started = Running, "Running", u.m.now()
	}); err != nil {
		return nil, err
	}
	j := &job{name: plan.Name, grace: plan.Grace}
	if j.name == "" {
		j.name = filepath.Base(plan.Argv[0])
	}
	if j.grace == 0 {
		j.grace = u.m.grace
	}
	defer func() {
		if err != nil {
			j.closeFiles()
		}
	}()
	if plan.Scratch && !hasTree { // the tree is in it
		if err := os.Mkdir(scratch, 0o700); err != nil {
			return nil, err
		}
	}
	if j.stdout, err = os.OpenFile(u.file(stdoutFile), os.O_WRONLY|os.O_APPEND, 0); err != nil {
		return nil, err
	}
	if plan.SeparateStderr {
		if j.stderr, err = os.OpenFile(u.file(stderrFile), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600); err != nil {
			return nil, err
		}
	}
	stdin, err := os.Open(u.file(stdinFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if stdin != nil {
		defer stdin.Close()
	}
	j.proc, err = process.Start(process.Spec{
		Argv: plan.Argv, Env: plan.Env, Dir: plan.Dir, Mark: u.spec.ID,
		Stdin: stdin, Stdout: j.stdout, Stderr: j.stderr,
	})
	// The payload carries passwords and keys. The job has it open: nobody
	// else needs its name.
	u.removeFile(stdinFile)
	if err != nil {
		return nil, err
	}
	u.log.Info("work unit started", "pid", j.proc.PID(), "program", plan.Argv[0])
	return j, nil
}

func (j *job) closeFiles() {
	if j.stdout != nil {
		j.stdout.Close()
	}
	if j.stderr != nil {
		j.stderr.Close()
	}
}

// supervise is the goroutine that owns a running job: it waits for its end,
// brings it about when it is asked to, and writes it down.
func (u *unit) supervise(j *job) {
	defer j.closeFiles()
	state, why := Failed, ""
	select {
	case <-j.proc.Done():
	case <-u.cancel:
		state, why = Canceled, "Canceled"
	case <-u.m.closing:
		why = "the node was stopped while the job ran"
	}
	if why != "" {
		if err := u.endJob(j); err != nil {
			// It cannot be waited for: what SIGKILL does not end may never end.
			u.log.Error("a job does not end", "error", err)
			u.finish(j, func(s *Status) { s.State, s.Detail = state, why+"; "+err.Error() })
			return
		}
	}
	exit := j.proc.Exit()
	if why == "" && exit.Signal != 0 {
		// Somebody killed the job's first process. What it started goes on
		// without supervision, while we tell that the job is over: end it.
		// What a job leaves running when it exits by itself, it meant to.
		if err := j.kill(); err != nil {
			u.log.Error("a part of a killed job does not end", "error", err)
		}
	}
	u.finish(j, func(s *Status) {
		s.ExitCode, s.Signal = exit.Code, int(exit.Signal)
		switch {
		case why != "":
			s.State, s.Detail = state, why
		case exit.Success():
			s.State, s.Detail = Succeeded, exit.String()
		default:
			s.State, s.Detail = Failed, j.detail(exit)
		}
	})
}

// endJob interrupts the job, gives it its grace, and ends all that is left of
// it, of which the job itself may be no part any more.
func (u *unit) endJob(j *job) error {
	if err := j.proc.Interrupt(); err != nil {
		u.log.Warn("cannot interrupt a job: it is killed", "error", err)
	} else {
		grace := time.NewTimer(j.grace)
		select {
		case <-j.proc.Done():
		case <-grace.C:
		case <-u.m.hurry:
		}
		grace.Stop()
	}
	return j.kill()
}

func (j *job) kill() error {
	ctx, cancel := context.WithTimeout(context.Background(), killTime)
	defer cancel()
	return j.proc.Kill(ctx)
}

// finish writes the end of a job down. The size of its output is what is in the
// file now that the job has ended: what descendants that it left running may
// still write is not part of it. The output is on disk before the status that
// states its size.
func (u *unit) finish(j *job, change func(*Status)) {
	var size int64
	fi, err := j.stdout.Stat()
	if err == nil {
		size = fi.Size()
		err = j.stdout.Sync()
	}
	if err != nil {
		u.log.Error("the output of a work unit may be incomplete on disk", "error", err)
	}
	u.removeFile(scratchDir)
	u.op.Lock()
	defer u.op.Unlock()
	_ = u.end(func(s *Status) {
		s.StdoutSize = size
		change(s)
	})
}

// detail says how a job failed, with the last words of its own standard error.
func (j *job) detail(exit process.Exit) string {
	text := exit.String()
	if exit.Signal != 0 {
		text = j.name + " was " + text
	}
	if j.stderr == nil {
		return text
	}
	if last := tail(j.stderr, 3, 400); last != "" {
		text += ": " + last
	}
	return text
}

// tail returns the last non-empty lines of a file as one printable line of at
// most max bytes.
func tail(f *os.File, lines, max int) string {
	fi, err := f.Stat()
	if err != nil {
		return ""
	}
	buf := make([]byte, min(int64(4*max), fi.Size()))
	n, err := f.ReadAt(buf, fi.Size()-int64(len(buf)))
	if err != nil && err != io.EOF {
		return ""
	}
	var last []string
	for l := range bytes.Lines(buf[:n]) {
		text := strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return ' '
			}
			return r
		}, strings.ToValidUTF8(string(l), "?"))
		if text = strings.TrimSpace(text); text != "" {
			last = append(last, text)
		}
	}
	text := strings.Join(last[len(last)-min(lines, len(last)):], " | ")
	return strings.ToValidUTF8(text[len(text)-min(max, len(text)):], "")
}
