package worktypes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ranvier-mesh/ranvier/internal/journal"
	"github.com/ranvier-mesh/ranvier/internal/process"
)

// start makes a Pending unit's job begin: at once, or, sealed, when its turn
// comes or the Agent has it done elsewhere. What it decides is on disk when it
// returns. task is nil unless the job runs here.
func (u *unit) start() (task Task, err error) {
	u.op.Lock()
	defer u.op.Unlock()
	if err := u.checkPending(); err != nil {
		return nil, err
	}
	if u.payloadRef == nil {
		u.mu.Lock()
		u.payloadRef = emptyPayload()
		u.mu.Unlock()
	}
	if u.spec.Node != "" {
		u.mu.Lock()
		u.remote.Store = u.m.agent.Store(u.spec.Node) // one write less later
		u.mu.Unlock()
		if err := u.seal("Waiting for node " + u.spec.Node); err != nil {
			return nil, err
		}
		u.m.send(u, true)
		return nil, nil
	}
	u.m.mu.Lock()
	mine := u.m.queue.take(u.spec.Type)
	if !mine {
		u.m.queue.wait(u)
	}
	u.m.mu.Unlock()
	if !mine {
		return nil, u.seal(fmt.Sprintf("Queued: as many %s jobs run as are allowed", u.spec.Type))
	}
	return u.begin()
}

// seal makes a unit that waits for its start durable with its payload, small
// ones in the journal. It is called with u.op held.
func (u *unit) seal(detail string) error {
	var more []journal.Change
	var err error
	switch {
	case u.payloadRef.Size > inlineMax, u.lease != nil:
		err = u.m.store.sync(u.file(stdinFile))
	case u.payloadRef.Size > 0:
		var b []byte
		b, err = os.ReadFile(u.file(stdinFile))
		more = append(more, journal.Change{Bucket: stdinBucket, Key: u.spec.ID, Value: b})
	}
	if err == nil {
		u.mu.Lock()
		u.sealed = true
		u.mu.Unlock()
		err = u.transition(func(s *Status) { s.Detail = detail }, more...)
	}
	if err != nil {
		err = fmt.Errorf("unit %s: payload: %w", u.spec.ID, err)
		_ = u.end(func(s *Status) { s.State, s.Detail = Failed, err.Error() })
	}
	return err
}

// begin makes the unit Running and starts its job. It is called with u.op held
// and with a place in the queue, which it gives up when it fails.
func (u *unit) begin() (Task, error) {
	task, err := u.launch()
	if err != nil {
		err = fmt.Errorf("unit %s could not be started: %w", u.spec.ID, err)
		u.removeFile(scratchDir)
		_ = u.end(func(s *Status) { s.State, s.Detail = Failed, err.Error() })
		u.m.startNext(u.spec.Type)
		return nil, err
	}
	u.dropOwnPieces()
	return task, nil
}

// launch makes a unit Running. That is on disk before the process begins, and
// the keeper claims the start before it forks: so a crash between any two of
// these can never start the job twice.
func (u *unit) launch() (Task, error) {
	plan, err := u.makePlan()
	if err != nil {
		return nil, err
	}
	name := plan.Name
	if name == "" {
		name = filepath.Base(plan.Argv[0])
	}
	u.mu.Lock()
	u.boot = process.Boot()
	u.plan = planRecord{name, plan.Grace, plan.SeparateStderr}
	u.mu.Unlock()
	if err := u.transition(func(s *Status) {
		s.State, s.Detail, s.Started = Running, "Running", u.m.now()
	}); err != nil {
		return nil, err
	}
	return u.fork(plan)
}

// makePlan plans a job that there is room for.
func (u *unit) makePlan() (Plan, error) {
	t, err := u.m.types.Lookup(u.spec.Type)
	if err != nil {
		return Plan{}, err
	}
	plan, err := t.Plan(u.spec, u.file(scratchDir))
	if err == nil && u.hasTree() {
		if plan.Tree == nil {
			return plan, fmt.Errorf("work type %s takes no tree", u.spec.Type)
		}
		plan.Argv = plan.Tree.Argv
	}
	if err == nil && len(plan.Argv) == 0 {
		err = fmt.Errorf("work type %s plans no command", u.spec.Type)
	}
	if err == nil {
		err = u.m.room(plan.User)
	}
	return plan, err
}

// fork hands a Running unit to the keeper.
func (u *unit) fork(plan Plan) (Task, error) {
	plan.Scratch = plan.Scratch || plan.User.homeless()
	if plan.Scratch || plan.SeparateStderr {
		if err := u.makeDir(); err != nil {
			return nil, err
		}
	}
	if plan.Scratch {
		if err := os.Mkdir(u.file(scratchDir), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
		if err := u.hand(plan.User); err != nil {
			return nil, err
		}
	}
	if plan.Dir == "" {
		plan.Dir = "/" // the node's may be closed to another user
		if plan.User == nil {
			plan.Dir = ownDir()
		}
	}
	input, err := u.hasInput()
	if err != nil {
		return nil, err
	}
	task, err := u.m.keeper.Start(Launch{
		Unit: u.spec.ID, Dir: u.dir, Input: input, Argv: plan.Argv, Env: append(plan.User.environ(os.Environ(), u.file(scratchDir)), plan.Env...), WorkDir: plan.Dir,
		Separate: plan.SeparateStderr, User: plan.User,
	})
	if err != nil {
		return nil, err
	}
	u.hasOutput()
	log := u.log.With("pid", task.Root().PID, "program", plan.Argv[0])
	if plan.User != nil {
		log = log.With("user", plan.User.Name)
	}
	log.Info("work unit started")
	return task, nil
}

// hasInput reports whether the job has a payload to read. One that was small and
// not synced may have gone with the machine since, but not from the journal.
func (u *unit) hasInput() (bool, error) {
	if u.payloadRef.Size == 0 && !u.hasTree() {
		return false, nil
	}
	if _, err := os.Lstat(u.file(stdinFile)); !errors.Is(err, os.ErrNotExist) {
		return true, err
	}
	b, err := u.m.journal.Get(stdinBucket, u.spec.ID)
	if err == nil && int64(len(b)) != u.payloadRef.Size {
		err = errors.New("its payload is gone")
	}
	if err == nil {
		err = u.makeDir()
	}
	if err == nil {
		err = os.WriteFile(u.file(stdinFile), b, 0o600)
	}
	return err == nil, err
}

// ownDir is the node's working directory, which the keeper's is not; / where it
// cannot be entered any more.
func ownDir() string {
	dir, err := os.Getwd()
	if err != nil || unix.Access(dir, unix.X_OK) != nil {
		return "/"
	}
	return dir
}

// supervise is the goroutine that owns a running job: it waits for its end,
// brings it about when it is asked to, and writes it down. When the Manager is
// closed and the job outlives it, it lets the job go.
func (u *unit) supervise(task Task) {
	state, why := Failed, ""
	closing := u.m.closing
	if u.m.keeper.Outlives() {
		closing = nil
	}
	select {
	case <-task.Done():
		select {
		case <-u.cancel: // by which it has ended, perhaps while no node was there
			state, why = Canceled, "Canceled"
		default:
		}
	case <-u.cancel:
		state, why = Canceled, "Canceled"
	case <-closing:
		why = "the node was stopped while the job ran"
	case <-u.m.leaving:
		return
	}
	if why != "" {
		if err := u.endJob(task); err != nil {
			// It cannot be waited for: what SIGKILL does not end may never end.
			u.log.Error("a job does not end", "error", err)
			u.finish(task, Exit{Code: -1, Size: OutputSize(u.dir)}, func(s *Status) { s.State, s.Detail = state, why+"; "+err.Error() })
			return
		}
	}
	exit := task.Exit()
	if why == "" && exit.Signal != 0 {
		// Somebody killed the job's first process. What it started goes on
		// without supervision, while we tell that the job is over: end it.
		// What a job leaves running when it exits by itself, it meant to.
		if err := kill(task); err != nil {
			u.log.Error("a part of a killed job does not end", "error", err)
		}
	}
	u.finish(task, exit, func(s *Status) {
		s.ExitCode, s.Signal = exit.Code, exit.Signal
		switch {
		case why != "":
			s.State, s.Detail = state, why
		case exit.Lost != "":
			s.State, s.Detail = Failed, "LOST: "+exit.Lost
		case exit.Code == 0 && exit.Signal == 0 && !exit.DiskFull:
			s.State, s.Detail = Succeeded, exit.process().String()
		default:
			s.State, s.Detail = Failed, u.detail(exit)
		}
		if exit.DiskFull {
			s.Detail += "; the disk of the data directory " + u.m.dir + " was full at the job's end: its output may not be complete"
		}
	})
}

// endJob interrupts the job, gives it its grace, and ends all that is left of
// it, of which the job itself may be no part any more.
func (u *unit) endJob(task Task) error {
	if err := task.Interrupt(); err != nil {
		u.log.Warn("cannot interrupt a job: it is killed", "error", err)
	} else {
		after := u.plan.Grace
		if after == 0 {
			after = u.m.grace
		}
		grace := time.NewTimer(after)
		select {
		case <-task.Done():
		case <-grace.C:
		case <-u.m.hurry:
		}
		grace.Stop()
	}
	return kill(task)
}

func kill(task Task) error {
	ctx, cancel := context.WithTimeout(context.Background(), killTime)
	defer cancel()
	return task.Kill(ctx)
}

// finish writes the end of a job down. The size of its output is what was in the
// file when the job ended: what descendants that it left running may still
// write is not part of it. The output is on disk with, or before, the status
// that states its size.
func (u *unit) finish(task Task, exit Exit, change func(*Status)) {
	u.removeFile(scratchDir)
	u.op.Lock()
	_ = u.end(func(s *Status) {
		s.StdoutSize = exit.Size
		change(s)
	}, u.keepOutput(exit.Size)...)
	u.op.Unlock()
	task.Forget()
	u.m.startNext(u.spec.Type)
}

func (e Exit) process() process.Exit {
	return process.Exit{Code: e.Code, Signal: syscall.Signal(e.Signal)}
}

// detail says how a job failed, with the last words of its own standard error.
func (u *unit) detail(exit Exit) string {
	text := exit.process().String()
	if exit.Signal != 0 {
		text = u.plan.Name + " was " + text
	}
	if !u.plan.Separate {
		return text
	}
	f, err := os.Open(u.file(stderrFile))
	if err != nil {
		return text
	}
	defer f.Close()
	if last := tail(f, 3, 400); last != "" {
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
