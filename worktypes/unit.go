package worktypes

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ranvier-mesh/ranvier/worktypes/content"
)

// unit is one job. The unit outlives what is done for it: payload, job and
// readers come and go.
type unit struct {
	m    *Manager
	spec Spec
	dir  string
	log  *slog.Logger

	ended  chan struct{} // closed with the terminal state
	cancel chan struct{} // closed by the first cancel of a running job

	// op is held through a change of state, its writes to disk included, so
	// that one comes after the other. It is taken before mu.
	op       sync.Mutex
	payload  *Payload       // being written
	canceled bool           // cancel is closed
	gone     error          // the unit could not be made, or was released
	lease    *content.Lease // on the pieces of the unit's tree; nil: it has none

	// building is held while the scratch directory is filled for a start. It
	// is taken before op.
	building sync.Mutex

	mu          sync.Mutex // guards what is below; never held over I/O
	status      Status
	subscribers map[chan Status]struct{}
}

func (m *Manager) newUnit(spec Spec, created time.Time) *unit {
	return &unit{
		m:      m,
		spec:   spec,
		dir:    m.store.path(spec.ID),
		log:    m.log.With("unit", spec.ID, "job", spec.Job),
		ended:  make(chan struct{}),
		cancel: make(chan struct{}),
		status: Status{
			ID: spec.ID, WorkType: spec.Type, Owner: spec.Owner, Job: spec.Job,
			State: Pending, ExitCode: -1, Created: created,
		},
		subscribers: map[chan Status]struct{}{},
	}
}

// recoverUnit reads one unit of an earlier process. A unit that nobody had
// started stays Pending: its submitter may submit it again.
func (m *Manager) recoverUnit(id string) *unit {
	rec, st, err := m.store.load(id)
	if err != nil {
		u := m.newUnit(Spec{ID: id, Job: id}, time.Time{})
		u.log.Error("work unit is damaged", "dir", u.dir, "error", err)
		u.status.State, u.status.Detail = Failed, "DAMAGED: "+err.Error()
		u.status.StdoutSize = u.stdoutSize()
		close(u.ended)
		return u
	}
	u := m.newUnit(rec.Spec, rec.Created)
	if st != nil {
		u.status = *st
	}
	u.removeFile(stdinPartFile)
	u.removeFile(treePartFile)
	switch {
	case u.status.State == Pending:
		u.removeFile(scratchDir) // its tree was being built
		u.reopenTree()
	case u.status.State.Terminal():
		close(u.ended)
	case u.status.State == Running:
		// Only who started the job can tell its end. Its scratch directory is
		// left: the job may still be there and use it.
		u.removeFile(stdinFile)
		u.log.Warn("work unit is lost: the node ended while its job ran")
		_ = u.end(func(s *Status) {
			s.State = Failed
			s.Detail = "LOST: the node ended while the job ran; how the job ended is not known"
			s.StdoutSize = u.stdoutSize()
		})
	}
	return u
}

// Status is the unit's status now.
func (u *unit) Status() Status {
	u.mu.Lock()
	st := u.status
	u.mu.Unlock()
	if !st.State.Terminal() {
		st.StdoutSize = u.stdoutSize()
	}
	return st
}

// state is the status without a look at the disk.
func (u *unit) state() Status {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.status
}

func (u *unit) file(name string) string { return filepath.Join(u.dir, name) }

func (u *unit) stdoutSize() int64 {
	fi, err := os.Stat(u.file(stdoutFile))
	if err != nil {
		return 0
	}
	return fi.Size()
}

func (u *unit) removeFile(name string) {
	if err := os.RemoveAll(u.file(name)); err != nil {
		u.log.Error("cannot remove a file of a work unit: it may hold secrets", "error", err)
	}
}

// again answers a repeated submit.
func (u *unit) again(spec Spec) (Status, error) {
	u.op.Lock() // it may be in the making
	defer u.op.Unlock()
	if u.gone != nil {
		return Status{}, u.gone
	}
	if !u.spec.equal(spec) {
		return Status{}, fmt.Errorf("%w: %s is a unit of another type, owner or with other params", ErrConflict, spec.ID)
	}
	return u.Status(), nil
}

// transition changes the status: first on disk, then for all who ask. It is the
// only way a state changes, and called with u.op held. A terminal state holds
// even when the disk refuses it: the job has ended, whoever waits must know.
func (u *unit) transition(change func(*Status)) error {
	next := u.state()
	change(&next)
	err := writeJSON(u.dir, statusFile, next)
	if err != nil && !next.State.Terminal() {
		return err
	}
	if err != nil {
		u.log.Error("cannot write the end of a work unit", "state", next.State, "detail", next.Detail, "error", err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.status = next
	for ch := range u.subscribers {
		offer(ch, next)
	}
	if next.State.Terminal() {
		for ch := range u.subscribers {
			u.dropLocked(ch)
		}
		close(u.ended)
		u.log.Info("work unit ended", "state", next.State, "detail", next.Detail, "stdout", next.StdoutSize)
	}
	return err
}

// end is a transition to a terminal state, called with u.op held (or before
// anybody knows the unit).
func (u *unit) end(change func(*Status)) error {
	u.removeFile(stdinFile)
	u.removeFile(stdinPartFile)
	u.dropTree()
	return u.transition(func(s *Status) {
		s.Finished = u.m.now()
		change(s)
	})
}

// requestCancel takes a cancel.
func (u *unit) requestCancel() error {
	u.op.Lock()
	defer u.op.Unlock()
	if u.gone != nil {
		return u.gone
	}
	switch u.state().State {
	case Pending:
		_ = u.end(func(s *Status) { s.State, s.Detail = Canceled, "Canceled" })
	case Running:
		if !u.canceled {
			u.canceled = true
			u.log.Info("work unit is being canceled")
			close(u.cancel)
		}
	}
	return nil
}

// release removes the unit, which has ended.
func (u *unit) release() error {
	u.building.Lock() // it ends soon, as the unit has ended
	defer u.building.Unlock()
	u.op.Lock()
	defer u.op.Unlock()
	if u.gone != nil {
		return u.gone
	}
	if err := u.m.store.hide(u.spec.ID); err != nil {
		return err
	}
	u.gone = fmt.Errorf("%w: %s was released", ErrUnknownUnit, u.spec.ID)
	u.m.forget(u.spec.ID)
	u.log.Info("work unit released")
	return u.m.store.purge(u.spec.ID)
}

// subscribe is Watch.
func (u *unit) subscribe(ctx context.Context) <-chan Status {
	ch := make(chan Status, 1)
	st := u.Status()
	u.mu.Lock()
	defer u.mu.Unlock()
	if st.State != u.status.State {
		st = u.status
	}
	ch <- st
	if st.State.Terminal() || u.subscribers == nil {
		close(ch)
		return ch
	}
	u.subscribers[ch] = struct{}{}
	context.AfterFunc(ctx, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.dropLocked(ch)
	})
	return ch
}

// offer puts the latest status into a channel of capacity 1 whose only sender
// holds u.mu.
func offer(ch chan Status, st Status) {
	select {
	case <-ch:
	default:
	}
	ch <- st
}

func (u *unit) dropLocked(ch chan Status) {
	if _, ok := u.subscribers[ch]; ok {
		delete(u.subscribers, ch)
		close(ch)
	}
}

// closeSubscribers ends all watches for good.
func (u *unit) closeSubscribers() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for ch := range u.subscribers {
		u.dropLocked(ch)
	}
	u.subscribers = nil
}
