package worktypes

import (
	"context"
	"fmt"
	"time"
)

// Cancel ends a unit: one that is Pending is Canceled at once; a job that runs
// gets SIGINT, its grace, and then the end of everything that it started. It
// returns when the request is taken; Watch tells when it is done. A
// unit that has ended stays as it is, without an error. The error wraps
// ErrUnknownUnit.
func (m *Manager) Cancel(id string) error {
	u, err := m.unit(id)
	if err != nil {
		return err
	}
	return u.requestCancel()
}

// CancelTaken waits until the cancel of a unit was taken where its job is, or that
// is not possible now, or ctx is over: it tells whether it was.
func (m *Manager) CancelTaken(ctx context.Context, id string) bool {
	u, err := m.unit(id)
	if err != nil || u.spec.Node == "" {
		return true
	}
	select {
	case <-u.ended:
		return true
	case <-u.cancelSaid:
		u.mu.Lock()
		defer u.mu.Unlock()
		return u.cancelTaken
	case <-ctx.Done():
		return false
	}
}

// Release removes a unit with all that is kept of it, and cancels it before
// where it has not ended. Readers that have its results open read on to the
// end. It waits for a running job's end until ctx is over: the error wraps
// ctx's then, and the unit stays (canceled). Else the error wraps ErrUnknownUnit or
// is that of the file system.
func (m *Manager) Release(ctx context.Context, id string) error {
	u, err := m.unit(id)
	if err != nil {
		return err
	}
	if u.spec.Node != "" {
		return u.release(tombTime) // the Agent tells the other node
	}
	if err := u.requestCancel(); err != nil {
		return err
	}
	select {
	case <-u.ended:
	case <-ctx.Done():
		return fmt.Errorf("release unit %s: its job has not ended yet: %w", id, ctx.Err())
	}
	return u.release(0)
}

// forceTime is how long ForceRelease tries to tell another node.
const forceTime = time.Minute

// ForceRelease is Release that tries only for a while to tell a node that is away:
// that one may keep the unit then.
func (m *Manager) ForceRelease(ctx context.Context, id string) error {
	u, err := m.unit(id)
	if err != nil {
		return err
	}
	if u.spec.Node != "" {
		return u.release(forceTime)
	}
	return m.Release(ctx, id)
}
