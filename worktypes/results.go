package worktypes

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
)

// Results reads a unit's output from offset on and follows it while it grows.
//
// Errors wrap ErrUnknownUnit, ErrBadOffset when there is no such offset (yet), or are
// the file system's.
func (m *Manager) Results(ctx context.Context, id string, offset int64) (*Results, error) {
	u, err := m.unit(id)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(u.file(stdoutFile))
	if err != nil {
		return nil, fmt.Errorf("results of unit %s: %w", id, err)
	}
	if size := u.Status().StdoutSize; offset < 0 || offset > size {
		f.Close()
		return nil, fmt.Errorf("%w: %d of the %d bytes of unit %s", ErrBadOffset, offset, size, id)
	}
	r := &Results{u: u, f: f, ctx: ctx, offset: offset, closed: make(chan struct{}), unfollow: func() {}}
	if !u.state().State.Terminal() {
		r.wake, r.unfollow = m.follower.follow(u.file(stdoutFile))
	}
	return r, nil
}

// Results is a reader of one unit's output. It belongs to one goroutine, but
// Close may be called by any. Any number of readers may follow a unit; they do
// not slow its job down. It must be closed.
type Results struct {
	u        *unit
	f        *os.File
	ctx      context.Context
	offset   int64
	wake     <-chan struct{} // the file may have grown
	unfollow func()
	once     sync.Once
	closed   chan struct{}
}

// Read implements io.Reader: it blocks until there is output. It returns io.EOF
// when the unit has ended and every byte was read, and only then. Other errors
// wrap the cause of the context's end, ErrTruncated, or ErrClosed when the
// Manager was closed before the unit was started.
func (r *Results) Read(b []byte) (int, error) {
	for {
		have, err := r.wait()
		if err != nil {
			return 0, err
		}
		n, err := r.f.ReadAt(b[:min(int64(len(b)), have)], r.offset)
		r.offset += int64(n)
		if n > 0 || len(b) == 0 {
			return n, nil
		}
		if err != io.EOF {
			return 0, fmt.Errorf("results of unit %s: %w", r.u.spec.ID, err)
		}
		// It was truncated just now: wait tells.
	}
}

// Wait blocks until Read would not: until there is output, or an error, which it
// returns as Read would. It lets a caller with many readers take a buffer only
// when there is something to put into it.
func (r *Results) Wait() error {
	_, err := r.wait()
	return err
}

// wait returns how many bytes there are at the offset, at least 1.
func (r *Results) wait() (int64, error) {
	for {
		// The state is taken before the file is looked at: an end that was seen
		// here comes with the size that is final.
		st := r.u.state()
		fi, err := r.f.Stat()
		if err != nil {
			return 0, fmt.Errorf("results of unit %s: %w", r.u.spec.ID, err)
		}
		size := fi.Size()
		if st.State.Terminal() {
			if r.offset == st.StdoutSize {
				return 0, io.EOF
			}
			size = min(size, st.StdoutSize)
		}
		if size > r.offset {
			return size - r.offset, nil
		}
		if size < r.offset || st.State.Terminal() {
			return 0, fmt.Errorf("%w: unit %s has %d bytes, %d were read", ErrTruncated, r.u.spec.ID, size, r.offset)
		}
		select {
		case <-r.wake:
		case <-r.u.ended:
		case <-r.closed:
			return 0, os.ErrClosed
		case <-r.ctx.Done():
			return 0, fmt.Errorf("results of unit %s: %w", r.u.spec.ID, context.Cause(r.ctx))
		case <-r.u.m.closed:
			return 0, fmt.Errorf("results of unit %s: %w", r.u.spec.ID, ErrClosed)
		}
	}
}

// Close implements io.Closer. A Read that waits returns.
func (r *Results) Close() error {
	r.once.Do(func() {
		close(r.closed)
		r.unfollow()
		r.f.Close()
	})
	return nil
}
