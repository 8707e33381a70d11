package worktypes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/journal"
	"github.com/ranvier-mesh/ranvier/worktypes/content"
)

// unit is one job. The unit outlives what is done for it: payload, job and
// readers come and go.
type unit struct {
	m    *Manager
	spec Spec
	dir  string
	log  *slog.Logger

	ended   chan struct{} // closed with the terminal state
	cancel  chan struct{} // closed by the first cancel of a job that has begun
	expired chan struct{} // closed when an errand's time to start is over
	written chan struct{} // closed when there is an output; begun sees to that
	begun   sync.Once
	hasDir  atomic.Bool // the unit may have a directory
	// cancelSaid is closed when an errand's cancel was taken where the job is, or cannot
	// be told there now.
	cancelSaid chan struct{}

	// op is held through a change of state, its writes to disk included, so
	// that one comes after the other. It is taken before mu.
	op       sync.Mutex
	payload  *Payload       // being written
	canceled bool           // cancel is closed
	lease    *content.Lease // on the pieces of the unit's tree; nil: it has none
	expiry   *time.Timer
	stop     context.CancelFunc // ends the errand; nil unless the Agent has it
	gone     error              // the unit could not be made, or was released

	// building is held while the scratch directory is filled for a start. It
	// is taken before op.
	building sync.Mutex

	mu          sync.Mutex // guards what is below; never held over I/O
	status      Status
	payloadRef  *PayloadRef
	sealed      bool
	boot        string
	plan        planRecord
	remote      Remote
	cancelTaken bool // by the node where the job is
	subscribers map[chan Status]struct{}
}

func (m *Manager) newUnit(spec Spec, created time.Time) *unit {
	return &unit{
		m:          m,
		spec:       spec,
		dir:        m.store.path(spec.ID),
		log:        m.log.With("unit", spec.ID, "job", spec.Job),
		ended:      make(chan struct{}),
		cancel:     make(chan struct{}),
		expired:    make(chan struct{}),
		written:    make(chan struct{}),
		cancelSaid: make(chan struct{}),
		status: Status{
			ID: spec.ID, WorkType: spec.Type, Owner: spec.Owner, Job: spec.Job,
			State: Pending, ExitCode: -1, Created: created,
		},
		subscribers: map[chan Status]struct{}{},
	}
}

// record is the unit for the journal, with its next status.
func (u *unit) record(next Status) record {
	u.mu.Lock()
	defer u.mu.Unlock()
	return record{
		Spec: u.spec, Status: next, Payload: u.payloadRef, Sealed: u.sealed, Cancel: u.canceled,
		Boot: u.boot, Plan: u.plan, Remote: u.remote,
	}
}

// Status is the unit's status now.
func (u *unit) Status() Status {
	u.mu.Lock()
	st := u.status
	u.mu.Unlock()
	if !st.State.Terminal() && u.isWritten() {
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

func (u *unit) output() string { return outputFile(u.dir) }

func (u *unit) stdoutSize() int64 { return OutputSize(u.dir) }

// makeDir makes the unit's directory, which many units never need.
func (u *unit) makeDir() error {
	if u.hasDir.Load() {
		return nil
	}
	if err := os.Mkdir(u.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	u.hasDir.Store(true)
	return nil
}

// hasOutput lets those read the output who have waited for it to be there.
func (u *unit) hasOutput() { u.begun.Do(func() { close(u.written) }) }

func (u *unit) isWritten() bool {
	select {
	case <-u.written:
		return true
	default:
		return false
	}
}

func (u *unit) removeFile(name string) {
	if !u.hasDir.Load() {
		return
	}
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

// transition changes the status: first on disk, together with what more is to
// be written, then for all who ask. It is the only way a state changes, and
// called with u.op held. A terminal state holds even when the disk refuses it:
// the job has ended, whoever waits must know.
func (u *unit) transition(change func(*Status), more ...journal.Change) error {
	next := u.state()
	change(&next)
	err := u.m.journal.Put(append(more, journal.Change{Bucket: unitsBucket, Key: u.spec.ID, Value: u.record(next).encode()})...)
	if err != nil && !next.State.Terminal() {
		return err
	}
	if err != nil {
		u.log.Error("cannot write the end of a work unit", "state", next.State, "detail", next.Detail, "error", err)
	}
	u.publish(next)
	return err
}

// publish tells a status that is on disk, or need not be.
func (u *unit) publish(next Status) {
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
}

// end is a transition to a terminal state, called with u.op held (or before
// anybody knows the unit).
func (u *unit) end(change func(*Status), more ...journal.Change) error {
	u.removeFile(stdinFile)
	u.removeFile(stdinPartFile)
	u.dropTree()
	if u.expiry != nil {
		u.expiry.Stop()
	}
	if u.sealed {
		more = append(more, journal.Change{Bucket: stdinBucket, Key: u.spec.ID})
	}
	return u.transition(func(s *Status) {
		s.Finished = u.m.now()
		change(s)
	}, more...)
}

// keepOutput makes the output durable: a small one goes into the journal with
// the unit's end, a large one is synced before it. Its errors are the log's: the
// job has ended, whatever the disk says.
func (u *unit) keepOutput(size int64) []journal.Change {
	if size == 0 {
		return nil
	}
	var err error
	if size <= inlineMax {
		var b []byte
		if b, err = os.ReadFile(u.output()); err == nil {
			return []journal.Change{{Bucket: stdoutBucket, Key: u.spec.ID, Value: b[:min(size, int64(len(b)))]}}
		}
	} else {
		err = u.m.store.sync(u.output())
	}
	if err != nil {
		u.log.Error("the output of a work unit may be incomplete on disk", "error", err)
	}
	return nil
}

// timeOver ends a unit that was not started in its time. Whether one that may be with
// another node was, only that can tell: the Agent asks.
func (u *unit) timeOver() {
	u.op.Lock()
	defer u.op.Unlock()
	switch {
	case u.gone != nil || u.state().State != Pending || u.remoteState().Taken:
	case u.stop != nil:
		close(u.expired)
	default:
		_ = u.end(u.expire)
	}
}

func (u *unit) expire(s *Status) {
	s.State, s.Detail = Failed, "expired: it was not started before "+u.spec.Expires.UTC().Format(time.RFC3339)
}

func canceled(s *Status) { s.State, s.Detail = Canceled, "Canceled" }

func (u *unit) remoteState() Remote {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.remote
}

// stopErrand is called with u.op held.
func (u *unit) stopErrand() {
	if u.stop != nil {
		u.stop()
	}
}

// requestCancel takes a cancel; it is on disk when it returns.
func (u *unit) requestCancel() error {
	u.op.Lock()
	defer u.op.Unlock()
	if u.gone != nil {
		return u.gone
	}
	switch st := u.state().State; {
	case st == Pending && u.stop == nil:
		_ = u.end(canceled)
	case !st.Terminal() && !u.canceled:
		u.mu.Lock()
		u.canceled = true
		u.mu.Unlock()
		close(u.cancel)
		u.log.Info("work unit is being canceled")
		if err := u.m.journal.Put(journal.Change{Bucket: unitsBucket, Key: u.spec.ID, Value: u.record(u.state()).encode()}); err != nil {
			u.log.Error("cannot write the cancel of a work unit: a restart of the node would forget it", "error", err)
		}
	}
	return nil
}

// release removes the unit, which has ended or is an errand, whose other node may
// be told so for a while.
func (u *unit) release(owing time.Duration) error {
	u.building.Lock() // it ends soon, as the unit has ended
	defer u.building.Unlock()
	u.op.Lock()
	defer u.op.Unlock()
	if u.gone != nil {
		return u.gone
	}
	id := u.spec.ID
	changes := append(removeUnit(id), bury(id, u.m.now()))
	o := u.m.debt(u.spec, owing)
	owed := !u.state().State.Terminal() && u.remoteState().Store != ""
	if owed {
		changes = append(changes, owe(o))
	}
	if err := u.m.journal.Put(changes...); err != nil {
		return fmt.Errorf("release unit %s: %w", id, err)
	}
	u.gone = fmt.Errorf("%w: %s was released", ErrUnknownUnit, id)
	u.stopErrand()
	u.m.forget(id)
	u.log.Info("work unit released")
	if owed {
		u.closeSubscribers()
		u.m.owes(o)
	}
	err := u.m.store.remove(id, u.hasDir.Load())
	_ = u.m.keepReserve()
	return err
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

// letGo ends what the unit has going in a Manager that is closed.
func (u *unit) letGo() {
	u.op.Lock()
	if u.expiry != nil {
		u.expiry.Stop()
	}
	if p := u.payload; p != nil && p.park != nil {
		p.park.Stop()
		CloseFiles(p.f)
	}
	u.op.Unlock()
	u.closeSubscribers()
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
