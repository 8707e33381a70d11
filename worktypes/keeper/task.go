package keeper

import (
	"context"
	"errors"
	"sync"

	"github.com/ranvier-mesh/ranvier/internal/process"
	"github.com/ranvier-mesh/ranvier/worktypes"
)

// task is a job as the node sees it: the keeper's, or, when that has ended before
// it, an orphan.
type task struct {
	c    *Client
	unit string
	done chan struct{}

	mu     sync.Mutex // guards what is below
	dir    string
	root   process.ID
	exit   worktypes.Exit
	ended  bool
	parent worktypes.Task // once it is an orphan
}

func newTask(c *Client, unit string) *task {
	return &task{c: c, unit: unit, done: make(chan struct{})}
}

func (t *task) setDir(dir string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dir = dir
}

func (t *task) begun(root process.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.root = root
}

func (t *task) end(e worktypes.Exit) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.ended, t.exit = true, e
		close(t.done)
	}
}

func (t *task) lost() worktypes.Task {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.parent
}

// orphan goes on with a job whose keeper has ended.
func (t *task) orphan() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended || t.parent != nil {
		return
	}
	o := worktypes.Orphan(t.unit, t.dir)
	t.parent, t.root = o, o.Root()
	go func() {
		<-o.Gone()
		select {
		case <-o.Done():
			t.end(o.Exit())
		default: // the node has let go of it
		}
	}()
}

// Root implements worktypes.Task.
func (t *task) Root() process.ID {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.root
}

// Done implements worktypes.Task.
func (t *task) Done() <-chan struct{} { return t.done }

// Exit implements worktypes.Task.
func (t *task) Exit() worktypes.Exit {
	<-t.done
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.exit
}

// Interrupt implements worktypes.Task.
func (t *task) Interrupt() error {
	if o := t.lost(); o != nil {
		return o.Interrupt()
	}
	_, err := t.c.ask(context.Background(), request{Op: opInterrupt, Unit: t.unit})
	if errors.Is(err, errGone) {
		t.orphan()
		if o := t.lost(); o != nil {
			return o.Interrupt()
		}
		return nil // it has ended
	}
	return err
}

// Kill implements worktypes.Task.
func (t *task) Kill(ctx context.Context) error {
	if o := t.lost(); o != nil {
		return o.Kill(ctx)
	}
	_, err := t.c.ask(ctx, request{Op: opKill, Unit: t.unit})
	if errors.Is(err, errGone) {
		return process.NewFamily(t.Root(), t.unit).Kill(ctx)
	}
	return err
}

// Forget implements worktypes.Task.
func (t *task) Forget() {
	if o := t.lost(); o != nil {
		o.Forget()
	}
	t.c.Forget(t.unit)
	t.c.drop(t.unit)
}
