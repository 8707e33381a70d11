package worktypes

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"os"
	"time"
)

// Payload writes a unit's standard input. It belongs to one goroutine. It ends in
// exactly one of three ways: Commit, after which the unit may be started; Abort
// or Close, after which the unit is Failed and never started; or the end of the
// unit (Cancel), after which its methods return an error.
type Payload struct {
	u    *unit
	f    *os.File // nil until there is something to write
	hash hash.Hash
	size int64
	done bool
	// limit is how much may come, the tree included; 0: any amount.
	limit, treeSize int64
	tree            *treeUpload // nil: none was announced
	park            *time.Timer // nil unless parked; guarded by u.op
	unclaimed       bool        // it stands for that of an earlier process; guarded by u.op
}

// errPayloadDone is use of a payload that has ended.
var errPayloadDone = errors.New("the payload has ended")

// resumePayload goes on with a parked payload, or begins one.
func (u *unit) resumePayload() (*Payload, error) {
	u.op.Lock()
	if p := u.payload; u.gone == nil && p != nil && p.tree == nil && p.park != nil && p.park.Stop() {
		p.park, p.unclaimed = nil, false
		u.op.Unlock()
		return p, nil
	}
	u.op.Unlock()
	return u.openPayload()
}

func (u *unit) openPayload() (*Payload, error) {
	u.op.Lock()
	defer u.op.Unlock()
	if p := u.payload; p != nil && p.park != nil && p.park.Stop() {
		p.finish() // its submitter begins anew
	}
	if err := u.checkPending(); err != nil {
		return nil, err
	}
	u.dropTree() // of a payload before this one
	u.payload = &Payload{u: u, hash: sha256.New()}
	return u.payload, nil
}

// open makes the payload's file: many jobs have nothing to read, and need none.
func (p *Payload) open() (err error) {
	if p.f == nil {
		if err := p.u.makeDir(); err != nil {
			return err
		}
		p.f, err = os.OpenFile(p.u.file(stdinPartFile), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	}
	return err
}

// checkPending is called with u.op held.
func (u *unit) checkPending() error {
	if u.gone != nil {
		return u.gone
	}
	if st := u.state().State; st != Pending {
		return fmt.Errorf("%w: %s is %s", ErrNotPending, u.spec.ID, st)
	}
	if u.sealed {
		return fmt.Errorf("%w: %s waits for its turn", ErrNotPending, u.spec.ID)
	}
	if p := u.payload; p != nil && p.unclaimed {
		p.finish()
	}
	if u.payload != nil {
		return fmt.Errorf("%w: the payload of unit %s is being written", ErrBusy, u.spec.ID)
	}
	return nil
}

// Write appends to the payload. An error that wraps ErrNotPending means that
// the unit was canceled meanwhile; any other is the disk's, and the unit is
// Failed with it.
func (p *Payload) Write(b []byte) (int, error) {
	select {
	case <-p.u.ended:
		return 0, p.over()
	default:
	}
	if p.done {
		return 0, errPayloadDone
	}
	if len(b) == 0 {
		return 0, nil
	}
	if err := p.tooLarge(int64(len(b))); err != nil {
		return 0, err
	}
	n, err := 0, p.open()
	if err == nil {
		n, err = p.f.Write(b)
	}
	p.hash.Write(b[:n])
	p.size += int64(n)
	if err != nil {
		err = fmt.Errorf("unit %s: payload: %w", p.u.spec.ID, err)
		_ = p.Abort(err.Error())
	}
	return n, err
}

// Limit sets how many bytes may come, the tree's included; 0: any number. What
// is more fails the unit, with an error that wraps ErrTooLarge.
func (p *Payload) Limit(max int64) { p.limit = max }

func (p *Payload) tooLarge(more int64) error {
	if p.limit == 0 || p.size+p.treeSize+more <= p.limit {
		return nil
	}
	err := fmt.Errorf("unit %s: %w: at most %d bytes are allowed", p.u.spec.ID, ErrTooLarge, p.limit)
	_ = p.Abort(err.Error())
	return err
}

// Unit is the id of the unit whose payload it is.
func (p *Payload) Unit() string { return p.u.spec.ID }

// Size is how many bytes were written.
func (p *Payload) Size() int64 { return p.size }

// Sum is the SHA-256 of what was written.
func (p *Payload) Sum() [sha256.Size]byte { return [sha256.Size]byte(p.hash.Sum(nil)) }

// Commit ends the payload as complete. It is durable with the unit's start. size and sum are
// what its submitter says that it sent; when they are not what was written, the
// unit is Failed and the error wraps ErrBadPayload. A caller that has no such
// word, only an end that it trusts, passes Size and Sum.
func (p *Payload) Commit(size int64, sum [sha256.Size]byte) error {
	if p.done {
		return errPayloadDone
	}
	if err := p.commit(size, sum); err != nil {
		_ = p.Abort(err.Error())
		return err
	}
	return nil
}

func (p *Payload) commit(size int64, sum [sha256.Size]byte) error {
	id := p.u.spec.ID
	if size != p.size {
		return fmt.Errorf("%w: unit %s: %d bytes came of %d", ErrBadPayload, id, p.size, size)
	}
	if sum != p.Sum() {
		return fmt.Errorf("%w: unit %s: %d bytes came, with another SHA-256", ErrBadPayload, id, p.size)
	}
	if err := p.tree.complete(); err != nil {
		return fmt.Errorf("unit %s: %w", id, err)
	}
	p.u.op.Lock()
	defer p.u.op.Unlock()
	if p.u.state().State != Pending {
		return p.over()
	}
	if err := p.commitTree(); err != nil {
		return fmt.Errorf("unit %s: tree: %w", id, err)
	}
	if p.tree != nil { // it is synced with the tree
		if err := p.open(); err != nil {
			return fmt.Errorf("unit %s: payload: %w", id, err)
		}
	}
	if p.f != nil {
		if err := os.Rename(p.u.file(stdinPartFile), p.u.file(stdinFile)); err != nil {
			return fmt.Errorf("unit %s: payload: %w", id, err)
		}
	}
	p.u.mu.Lock()
	p.u.payloadRef = &PayloadRef{size, sum}
	p.u.mu.Unlock()
	p.finish()
	return nil
}

// Park keeps what has come of the payload for a while, so that a submitter whose
// connection broke can go on from Size: the next Manager.Payload returns p again.
// After that time it is Close. After Commit or Abort it does nothing.
func (p *Payload) Park(d time.Duration) {
	p.u.op.Lock()
	defer p.u.op.Unlock()
	if p.done || p.u.state().State != Pending || p.u.gone != nil {
		return
	}
	p.park = time.AfterFunc(d, func() { p.Close() })
}

// Abort ends the payload as incomplete: the unit is Failed with the reason as
// its Detail, and never started. After Commit or Abort it does nothing.
func (p *Payload) Abort(reason string) error {
	p.u.op.Lock()
	defer p.u.op.Unlock()
	if p.done {
		return nil
	}
	p.finish()
	if p.u.state().State != Pending || p.u.gone != nil {
		return nil
	}
	return p.u.end(func(s *Status) { s.State, s.Detail = Failed, reason })
}

// Close is Abort for a payload that was not committed, so that a submitter that
// goes away is never the end of an input.
func (p *Payload) Close() error {
	return p.Abort(fmt.Sprintf("the submitter went away after %d bytes of the payload; the job was not started", p.size))
}

// finish is called with u.op held.
func (p *Payload) finish() {
	p.done = true
	if p.park != nil {
		p.park.Stop()
	}
	CloseFiles(p.f)
	p.tree.close()
	p.u.payload = nil
}

func (p *Payload) over() error {
	return fmt.Errorf("%w: unit %s is %s", ErrNotPending, p.u.spec.ID, p.u.state().State)
}

// emptyPayload is what a unit without a payload reads.
func emptyPayload() *PayloadRef { return &PayloadRef{0, sha256.Sum256(nil)} }
