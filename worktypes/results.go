package worktypes

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"sync"
)

// Results reads a unit's output from offset on, and follows it while it grows.
// Its Read blocks until there is more; it returns io.EOF when the unit has ended
// and every byte was read, and only then. Other errors of Read wrap ctx's
// (which wakes it), ErrTruncated, or ErrClosed when the Manager was closed before
// the unit was started. The reader belongs to one goroutine, Close may be called
// by any; any number of readers may follow one unit, and they do not slow its
// job down.
//
// Errors of Results itself wrap ErrUnknownUnit, ErrBadOffset when there is no such
// offset (yet), or are the file system's.
func (m *Manager) Results(ctx context.Context, id string, offset int64) (io.ReadCloser, error) {
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
	r := &results{u: u, f: f, ctx: ctx, offset: offset, closed: make(chan struct{}), unfollow: func() {}}
	if !u.state().State.Terminal() {
		r.wake, r.unfollow = m.follower.follow(u.file(stdoutFile))
	}
	return r, nil
}

// results is a reader of a unit's stdout file.
type results struct {
	u        *unit
	f        *os.File
	ctx      context.Context
	offset   int64
	wake     <-chan struct{} // the file may have grown
	unfollow func()
	once     sync.Once
	closed   chan struct{}
}

// Read implements io.Reader.
func (r *results) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for {
		// The state is taken before the file is read: an end that was seen here
		// comes with the size that is final.
		st := r.u.state()
		limit := int64(math.MaxInt64)
		if st.State.Terminal() {
			limit = st.StdoutSize
		}
		if r.offset < limit {
			n, err := r.f.ReadAt(b[:min(int64(len(b)), limit-r.offset)], r.offset)
			r.offset += int64(n)
			if n > 0 {
				return n, nil
			}
			if err != io.EOF {
				return 0, fmt.Errorf("results of unit %s: %w", r.u.spec.ID, err)
			}
		}
		if err := r.atEnd(st.State, limit); err != nil {
			return 0, err
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

// atEnd is asked when the file has nothing at the offset: nil means wait.
func (r *results) atEnd(state State, limit int64) error {
	if r.offset == limit {
		return io.EOF
	}
	fi, err := r.f.Stat()
	if err != nil {
		return fmt.Errorf("results of unit %s: %w", r.u.spec.ID, err)
	}
	if fi.Size() < r.offset || state.Terminal() {
		return fmt.Errorf("%w: unit %s has %d bytes, %d were read", ErrTruncated, r.u.spec.ID, fi.Size(), r.offset)
	}
	return nil
}

// Close implements io.Closer. A Read that waits returns.
func (r *results) Close() error {
	r.once.Do(func() {
		close(r.closed)
		r.unfollow()
		r.f.Close()
	})
	return nil
}
