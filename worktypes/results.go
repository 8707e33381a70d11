package worktypes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
)

// Results reads a unit's output from offset on and follows it while it grows.
//
// Errors wrap ErrUnknownUnit, ErrBadOffset when there is no such offset (yet),
// ErrTruncated when the unit has ended and its output is not all there any more, or are
// the file system's.
func (m *Manager) Results(ctx context.Context, id string, offset int64) (*Results, error) {
	u, err := m.unit(id)
	if err != nil {
		return nil, err
	}
	if size := u.Status().StdoutSize; offset < 0 || offset > size {
		return nil, fmt.Errorf("%w: %d of the %d bytes of unit %s", ErrBadOffset, offset, size, id)
	}
	if err := u.checkOutput(); err != nil {
		return nil, err
	}
	r := &Results{u: u, ctx: ctx, offset: offset, closed: make(chan struct{}), unfollow: func() {}, wake: u.written}
	if err := r.open(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("results of unit %s: %w", id, err)
	}
	return r, nil
}

// checkOutput tells a reader at once where he could not read to the end.
func (u *unit) checkOutput() error {
	if st := u.state(); !st.State.Terminal() || u.stdoutSize() >= st.StdoutSize {
		return nil
	}
	u.op.Lock()
	defer u.op.Unlock()
	if u.gone != nil {
		return u.gone
	}
	if err := u.restoreOutput(); err != nil {
		return fmt.Errorf("%w: unit %s: %w", ErrTruncated, u.spec.ID, err)
	}
	return nil
}

// open opens the output, which is there from the start of the job on, and follows
// it while it grows.
func (r *Results) open() (err error) {
	f, err := os.Open(r.u.output())
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		f.Close()
		return os.ErrClosed
	}
	if r.f = f; !r.u.state().State.Terminal() {
		r.wake, r.unfollow = r.u.m.follower.follow(r.u.output())
	}
	return nil
}

// size is how much output there is.
func (r *Results) size() (int64, error) {
	if r.f == nil {
		written := r.u.isWritten()
		switch err := r.open(); {
		case errors.Is(err, fs.ErrNotExist):
			if written { // it is gone: the unit's end tells
				r.wake = nil
			}
			return 0, nil
		case err != nil:
			return 0, err
		}
	}
	fi, err := r.f.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

// Results is a reader of one unit's output. It belongs to one goroutine, but
// Close may be called by any. Any number of readers may follow a unit; they do
// not slow its job down. It must be closed.
type Results struct {
	u        *unit
	f        *os.File // nil until there is one
	ctx      context.Context
	offset   int64
	wake     <-chan struct{} // the file may have grown
	unfollow func()
	closed   chan struct{}

	mu   sync.Mutex // guards over; f and unfollow are changed with it
	over bool       // it is closed
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
		size, err := r.size()
		if err != nil {
			return 0, fmt.Errorf("results of unit %s: %w", r.u.spec.ID, err)
		}
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
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over {
		r.over = true
		close(r.closed)
		r.unfollow()
		CloseFiles(r.f)
	}
	return nil
}
