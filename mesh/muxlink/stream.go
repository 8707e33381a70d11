package muxlink

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/deadline"
)

// muxStream is a stream of a session, a net.Conn.
type muxStream struct {
	session         *session
	id              uint32
	readBy, writeBy *deadline.Deadline
	opened          bool // here
	closed          chan struct{}

	sending sync.Mutex // one Write at a time

	mu       sync.Mutex
	flags    uint16      // that its next frame has to carry: SYN or ACK
	window   uint32      // what may still be sent
	placed   bool        // the peer has accepted it, or it was given up
	over     bool        // Close was called here
	ending   bool        // the peer has closed it
	reset    bool        // or reset it
	patience *time.Timer // with a peer that does not, once it is over
	writable chan struct{}

	in       sync.Mutex // what has come; held while a frame's data is read
	buf      bytes.Buffer
	credit   uint32 // what the peer may still send
	granted  uint32 // what it was told that it may send at once
	readable chan struct{}
}

// Read implements net.Conn. After the end's own Close it returns net.ErrClosed.
func (st *muxStream) Read(p []byte) (int, error) {
	for {
		n, more, err := st.read(p)
		if n > 0 {
			if more > 0 {
				st.update(more)
			}
			return n, nil
		}
		if err != nil || len(p) == 0 {
			return 0, err
		}
		select {
		case <-st.readable:
		case <-st.closed:
		case <-st.session.done:
		case <-st.readBy.Done():
			return 0, os.ErrDeadlineExceeded
		}
	}
}

// read takes what is there. more is by how much the peer's window is to be
// widened; err is why there will be nothing.
func (st *muxStream) read(p []byte) (n int, more uint32, err error) {
	select {
	case <-st.closed:
		return 0, 0, net.ErrClosed
	default:
	}
	st.mu.Lock()
	ending, reset := st.ending, st.reset
	st.mu.Unlock()
	over := false
	select {
	case <-st.session.done:
		over = true
	default:
	}
	st.in.Lock()
	defer st.in.Unlock()
	switch left := st.buf.Len(); {
	case reset:
		wake(st.readable)
		return 0, 0, errReset
	case left > 0:
		n, _ = st.buf.Read(p)
		if n < left {
			wake(st.readable)
		}
		if !ending && !over {
			more = st.widen()
		}
		return n, more, nil
	case ending:
		wake(st.readable)
		return 0, 0, io.EOF
	case over:
		return 0, 0, st.session.over()
	}
	return 0, 0, nil
}

// widen tells by how much the peer may send more than it knows, once that is
// half of its window. What waits here counts as on its way. The caller holds in.
func (st *muxStream) widen() (more uint32) {
	used := uint32(st.buf.Len()) + st.credit
	if used > st.granted/2 {
		return 0
	}
	st.granted = st.session.window()
	more = st.granted - used
	st.credit += more
	return more
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// update widens the peer's window, and tells it what is still to be told.
func (st *muxStream) update(more uint32) { st.session.send(st, typeWindowUpdate, 0, more, nil) }

// stamp returns the flags that the next frame has to carry. It is called by who
// writes that frame next.
func (st *muxStream) stamp(flags uint16) (uint16, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	switch {
	case st.reset:
		return 0, errReset
	case st.over && flags&(flagFIN|flagRST) == 0:
		return 0, net.ErrClosed
	}
	more := st.flags
	st.flags = 0
	if more&flagACK != 0 {
		st.session.awaited.Add(-1)
	}
	return more, nil
}

// Write implements net.Conn.
func (st *muxStream) Write(p []byte) (int, error) {
	st.sending.Lock()
	defer st.sending.Unlock()
	total := 0
	for {
		n, err := st.reserve(len(p) - total)
		if err == nil && n > 0 {
			err = st.session.send(st, typeData, 0, uint32(n), p[total:total+n])
		}
		if err != nil {
			return total, err
		}
		if total += n; total == len(p) {
			return total, nil
		}
		if n > 0 {
			continue
		}
		select {
		case <-st.writable:
		case <-st.closed:
		case <-st.session.done:
			return total, st.session.over()
		case <-st.writeBy.Done():
			return total, os.ErrDeadlineExceeded
		}
	}
}

// reserve takes up to n bytes of the window, and of a frame.
func (st *muxStream) reserve(n int) (int, error) {
	if st.writeBy.Passed() {
		return 0, os.ErrDeadlineExceeded
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	switch {
	case st.over:
		return 0, net.ErrClosed
	case st.reset:
		return 0, errReset
	}
	n = min(n, int(st.window), maxWrite)
	st.window -= uint32(n)
	return n, nil
}

// Close implements net.Conn: the peer reads what was written before, and then io.EOF.
// It hardly waits for a connection that is held up.
func (st *muxStream) Close() error {
	st.mu.Lock()
	if st.over {
		st.mu.Unlock()
		return nil
	}
	st.over = true
	close(st.closed)
	done, unheard := st.ending, st.flags&flagSYN != 0
	switch {
	case unheard:
		st.place()
	case !done:
		st.patience = time.AfterFunc(st.session.closeTime, st.giveUp)
	}
	st.mu.Unlock()
	if st.in.TryLock() { // else its data is being read
		st.buf = bytes.Buffer{}
		st.in.Unlock()
	}
	if unheard {
		st.session.forget(st)
		return nil
	}
	told := make(chan struct{})
	go func() {
		defer close(told)
		st.session.send(st, typeWindowUpdate, flagFIN, 0, nil) // it may be reset, or the session over
		if done {
			st.session.forget(st)
		}
	}()
	late := time.NewTimer(heldUp)
	defer late.Stop()
	select {
	case <-told:
	case <-late.C:
	}
	return nil
}

// giveUp forgets a stream that was closed here and that the peer does not end.
func (st *muxStream) giveUp() {
	st.acked()
	st.session.forget(st)
	st.session.send(st, typeWindowUpdate, flagRST, 0, nil)
}

// acked is told that the peer has accepted the stream.
func (st *muxStream) acked() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.place()
}

// place gives the stream's place among those that are not accepted yet to
// another one. The caller holds mu.
func (st *muxStream) place() {
	if st.opened && !st.placed {
		st.placed = true
		<-st.session.opening
	}
}

// grow widens the window for what is sent; false where that is nonsense.
func (st *muxStream) grow(by uint32) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if by > 1<<32-1-st.window {
		return false
	}
	if st.window += by; by > 0 {
		wake(st.writable)
	}
	return true
}

// take reads a frame's data. What comes after Close is dropped: the peer does
// not know of that yet.
func (st *muxStream) take(in *bufio.Reader, length uint32) error {
	st.in.Lock()
	defer st.in.Unlock()
	if length > st.credit {
		return fmt.Errorf("%w: stream %d gets %d bytes where %d are allowed", errProtocol, st.id, length, st.credit)
	}
	st.credit -= length
	select {
	case <-st.closed:
		_, err := in.Discard(int(length))
		return err
	default:
	}
	if _, err := io.CopyN(&st.buf, in, int64(length)); err != nil {
		return err
	}
	wake(st.readable)
	return nil
}

// ended is told that the peer has closed the stream, or reset it.
func (st *muxStream) ended(reset bool) {
	st.mu.Lock()
	st.ending, st.reset = true, st.reset || reset
	st.place()
	done := st.over
	if st.patience != nil {
		st.patience.Stop()
	}
	st.mu.Unlock()
	wake(st.readable)
	if reset {
		wake(st.writable)
	}
	if done {
		st.session.forget(st)
	}
}

// LocalAddr implements net.Conn: that of the link.
func (st *muxStream) LocalAddr() net.Addr { return st.session.conn.LocalAddr() }

// RemoteAddr implements net.Conn: that of the link.
func (st *muxStream) RemoteAddr() net.Addr { return st.session.conn.RemoteAddr() }

// SetDeadline implements net.Conn.
func (st *muxStream) SetDeadline(t time.Time) error {
	st.readBy.Set(t)
	st.writeBy.Set(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (st *muxStream) SetReadDeadline(t time.Time) error {
	st.readBy.Set(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (st *muxStream) SetWriteDeadline(t time.Time) error {
	st.writeBy.Set(t)
	return nil
}
