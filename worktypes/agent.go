package worktypes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/ranvier-mesh/ranvier/internal/journal"
)

// Agent does units with a Spec.Node: it has the job done there, and brings the
// output here. It may be asked to go on with a unit of an earlier process.
type Agent interface {
	// Check says whether the spec could be done at all; its errors are those of
	// Manager.Submit.
	Check(Spec) error
	// Do does the errand until it has called Finish, or ctx is over. Then it is
	// done anew when the Manager is opened the next time.
	Do(ctx context.Context, e *Errand)
	// Owes is told of a cancel and release to deliver, also those of an earlier
	// process; it calls paid when that is done. It returns at once.
	Owes(o Owed, paid func())
	// Store is the incarnation of a node's store, where it is known and the unit may
	// be sent there at once.
	Store(node string) string
}

// Remote is what is remembered of a unit that another node does.
type Remote struct {
	// Store is the incarnation of the store that the unit was submitted to;
	// empty: it was not sent yet.
	Store string `json:",omitempty"`
	// Taken is set when the other node has started the unit or has it in its
	// queue.
	Taken bool `json:",omitempty"`
}

// Errand is a unit that an Agent does. It belongs to one goroutine.
type Errand struct {
	u     *unit
	fresh bool
}

// Fresh is true when no earlier process can have done anything for the unit.
func (e *Errand) Fresh() bool { return e.fresh }

// Spec is the unit's.
func (e *Errand) Spec() Spec { return e.u.spec }

// Remote is what was remembered.
func (e *Errand) Remote() Remote {
	e.u.mu.Lock()
	defer e.u.mu.Unlock()
	return e.u.remote
}

// Remember stores what is to be remembered, durably with sync, and soon
// without.
func (e *Errand) Remember(r Remote, sync bool) error {
	u := e.u
	u.op.Lock()
	defer u.op.Unlock()
	if u.gone != nil {
		return u.gone
	}
	u.mu.Lock()
	u.remote = r
	u.mu.Unlock()
	change := journal.Change{Bucket: unitsBucket, Key: u.spec.ID, Value: u.record(u.state()).encode()}
	if !sync {
		u.m.journal.Later(change)
		return nil
	}
	return u.m.journal.Put(change)
}

// Handed remembers that the other node has started the unit or has it in its queue:
// it does not ask for the input again. A large one is removed here at once, when that
// is durable; where the disk refuses it, it stays until the unit's end.
func (e *Errand) Handed(r Remote) error {
	u := e.u
	u.mu.Lock()
	large := u.payloadRef != nil && u.payloadRef.Size > inlineMax
	u.mu.Unlock()
	large = large || u.hasTree()
	err := e.Remember(r, large)
	switch {
	case !large:
		return err
	case err == nil:
		e.DropInput()
		return nil
	}
	u.op.Lock()
	defer u.op.Unlock()
	if u.gone == nil {
		u.log.Warn("the input of a work unit stays until its end: that it is with its node could not be written", "error", err)
	}
	return u.gone
}

// DropInput removes the input of a unit that was Handed, by this process or by an
// earlier one.
func (e *Errand) DropInput() {
	e.u.op.Lock()
	defer e.u.op.Unlock()
	e.u.removeFile(stdinFile)
	e.u.dropTree()
}

// Payload opens the unit's payload, with what it is. The caller closes it.
func (e *Errand) Payload() (io.ReadSeekCloser, PayloadRef, error) {
	u := e.u
	u.mu.Lock()
	ref := u.payloadRef
	u.mu.Unlock()
	if ref == nil {
		ref = emptyPayload()
	}
	f, err := os.Open(u.file(stdinFile))
	if err == nil {
		return f, *ref, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, *ref, err
	}
	b, err := u.m.journal.Get(stdinBucket, u.spec.ID)
	if err != nil {
		return nil, *ref, fmt.Errorf("payload of unit %s: %w", u.spec.ID, err)
	}
	if int64(len(b)) != ref.Size {
		return nil, *ref, fmt.Errorf("payload of unit %s: it is gone", u.spec.ID)
	}
	return nopCloser{bytes.NewReader(b)}, *ref, nil
}

type nopCloser struct{ *bytes.Reader }

func (nopCloser) Close() error { return nil }

// Output opens the unit's output for what comes next, and tells how much there
// is. The caller closes it.
func (e *Errand) Output() (*os.File, int64, error) {
	f, err := os.OpenFile(e.u.output(), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, 0, err
	}
	e.u.hasOutput()
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, fi.Size(), nil
}

// Tell changes what is told of the unit while it has not ended. It is not
// durable: the other node knows.
func (e *Errand) Tell(change func(*Status)) {
	e.u.op.Lock()
	defer e.u.op.Unlock()
	next := e.u.state()
	if next.State.Terminal() || e.u.gone != nil {
		return
	}
	if change(&next); !next.State.Terminal() && next != e.u.state() {
		e.u.publish(next)
	}
}

// Canceled is closed when somebody wants the unit to end.
func (e *Errand) Canceled() <-chan struct{} { return e.u.cancel }

// CancelSent says whether the other node has taken the cancel; the first word of it
// counts.
func (e *Errand) CancelSent(taken bool) {
	e.u.mu.Lock()
	defer e.u.mu.Unlock()
	select {
	case <-e.u.cancelSaid:
	default:
		e.u.cancelTaken = taken
		close(e.u.cancelSaid)
	}
}

// Expired is closed when the time in which the unit may be started is over.
func (e *Errand) Expired() <-chan struct{} { return e.u.expired }

// Withdraw ends a unit that no other node has started, as canceled or as expired.
// owed is that of Finish.
func (e *Errand) Withdraw(owed bool) {
	e.Finish(owed, func(s *Status) {
		if e.u.canceled {
			canceled(s)
		} else {
			e.u.expire(s)
		}
	})
}

// Finish ends the unit, with what is in its output now. When the other node still
// has it, owed says so: it is told to the Agent once the end is in the journal.
func (e *Errand) Finish(owed bool, change func(*Status)) {
	u := e.u
	u.op.Lock()
	defer u.op.Unlock()
	if u.gone != nil || u.state().State.Terminal() {
		return
	}
	var more []journal.Change
	o := u.m.debt(u.spec, tombTime)
	if owed {
		more = append(more, owe(o))
	}
	size := OutputSize(u.dir)
	more = append(more, u.keepOutput(size)...)
	_ = u.end(func(s *Status) {
		s.StdoutSize = size
		change(s)
	}, more...)
	if owed {
		u.m.owes(o)
	}
}
