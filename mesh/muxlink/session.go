package muxlink

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/deadline"
)

// Frames are those of yamux, version 0 of its specification, whose names these
// are. What a frame begins travels with it: a stream is opened by the flag of its first
// data, and accepted by that of the first answer.
const (
	typeData, typeWindowUpdate, typePing, typeGoAway = 0, 1, 2, 3
	flagSYN, flagACK, flagFIN, flagRST               = 1, 2, 4, 8

	// backlog is how many streams may be opened that are not accepted yet.
	// quickly of those that are may wait for the first answer to say so.
	backlog = 256
	quickly = 64
	// readBuffer is what is read at once where frames are short.
	readBuffer = 4 << 10
	// closeTime is how long a peer may take to end a stream that this end has closed.
	closeTime = 10 * time.Second
	// heldUp is how long a Close may wait until it is told.
	heldUp = 100 * time.Millisecond
)

var (
	errProtocol = errors.New("the peer breaks the rules of yamux")
	errReset    = errors.New("the peer has reset the stream")
	errPing     = fmt.Errorf("%w: it pings, the mesh has its own heartbeats", errProtocol)
	errEarly    = errors.New("the peer opens a second stream and is not known yet")
)

// session carries streams over a connection. Whoever writes to a stream writes
// to the connection itself, one at a time; one goroutine reads for all.
type session struct {
	conn   *conn
	window func() uint32 // that a stream of the peer's gets; asked once something has come
	done   chan struct{}

	closeTime time.Duration

	writing sync.Mutex // one frame at a time

	mu      sync.Mutex
	streams map[uint32]*muxStream
	next    uint32 // the id of the next stream that is opened here
	cause   error  // why it is over

	incoming chan *muxStream
	opening  chan struct{} // a place for each stream that was opened and is not accepted yet
	awaited  atomic.Int32  // streams that were accepted here, which the peer does not know
}

// newSession starts a session; first is the id of the first stream that it opens.
func newSession(c *conn, first uint32, window func() uint32) *session {
	s := &session{
		conn: c, window: window, done: make(chan struct{}), closeTime: closeTime, streams: map[uint32]*muxStream{}, next: first,
		incoming: make(chan *muxStream, backlog), opening: make(chan struct{}, backlog),
	}
	go func() { s.end(s.receive()) }()
	return s
}

// open makes a stream. The peer hears of it with the first write.
func (s *session) open(ctx context.Context) (*muxStream, error) {
	select {
	case s.opening <- struct{}{}:
	case <-s.done:
		return nil, s.over()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams == nil {
		return nil, s.cause
	}
	if s.next > 1<<32-3 {
		return nil, errors.New("the session has no ids for more streams")
	}
	st := s.newStream(s.next, flagSYN)
	s.next += 2
	return st, nil
}

// newStream registers a stream. The caller holds mu.
func (s *session) newStream(id uint32, flag uint16) *muxStream {
	st := &muxStream{
		session: s, id: id, flags: flag, opened: flag == flagSYN, window: firstWindow, credit: firstWindow, granted: firstWindow,
		readable: make(chan struct{}, 1), writable: make(chan struct{}, 1), closed: make(chan struct{}),
		readBy: deadline.New(), writeBy: deadline.New(),
	}
	s.streams[id] = st
	return st
}

func (s *session) accept() (*muxStream, error) {
	select {
	case st := <-s.incoming:
		if s.awaited.Add(1) > quickly {
			st.update(0) // who opens is held up by those that are not known to be accepted
		}
		return st, nil
	case <-s.done:
		return nil, s.over()
	}
}

func (s *session) over() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

// end ends the session, the connection and all streams; the first cause counts.
func (s *session) end(cause error) {
	s.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams != nil {
		s.streams, s.cause = nil, cause
		close(s.done)
	}
}

// forget is told that both ends have closed a stream.
func (s *session) forget(st *muxStream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, st.id)
}

// count is how many streams are not closed at both ends.
func (s *session) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams)
}

// send writes a frame of a stream. What the stream has still to say goes with it.
// One that was closed meanwhile sends no more data.
func (s *session) send(st *muxStream, kind byte, flags uint16, length uint32, data []byte) error {
	f := frames.Get().(*frame)
	defer frames.Put(f)
	n := header + copy(f[header:], data)
	s.writing.Lock()
	defer s.writing.Unlock()
	more, err := st.stamp(flags)
	if err != nil {
		return err
	}
	f[0], f[1] = 0, kind
	binary.BigEndian.PutUint16(f[2:], flags|more)
	binary.BigEndian.PutUint32(f[4:], st.id)
	binary.BigEndian.PutUint32(f[8:], length)
	if _, err = s.conn.Write(f[:n]); err != nil {
		s.end(err) // half a frame may have gone
	}
	return err
}

// receive reads frames until the connection ends or one breaks the rules.
func (s *session) receive() error {
	in := bufio.NewReaderSize(s.conn, readBuffer)
	var h [header]byte
	for {
		if _, err := io.ReadFull(in, h[:]); err != nil {
			return err
		}
		if h[0] != 0 {
			return fmt.Errorf("%w: version %d", errProtocol, h[0])
		}
		flags, id, length := binary.BigEndian.Uint16(h[2:]), binary.BigEndian.Uint32(h[4:]), binary.BigEndian.Uint32(h[8:])
		var err error
		switch h[1] {
		case typeData, typeWindowUpdate:
			err = s.frame(in, h[1], flags, id, length)
		case typePing:
			err = errPing // to answer one may take a goroutine that waits
		case typeGoAway:
			err = fmt.Errorf("the peer ends the session, code %d", length)
		default:
			err = fmt.Errorf("%w: a frame of type %d", errProtocol, h[1])
		}
		if err != nil {
			return err
		}
	}
}

// frame acts on a frame of a stream.
func (s *session) frame(in *bufio.Reader, kind byte, flags uint16, id, length uint32) error {
	if flags&flagSYN != 0 {
		if err := s.opened(id); err != nil {
			return err
		}
	}
	s.mu.Lock()
	st := s.streams[id]
	s.mu.Unlock()
	if st == nil { // closed at both ends, or here before the peer knew of it
		if kind == typeData {
			_, err := in.Discard(int(length))
			return err
		}
		return nil
	}
	if flags&flagACK != 0 {
		st.acked()
	}
	switch {
	case kind == typeData:
		if err := st.take(in, length); err != nil {
			return err
		}
	case !st.grow(length):
		return fmt.Errorf("%w: a window of more than 4 GiB", errProtocol)
	}
	if flags&(flagFIN|flagRST) != 0 {
		st.ended(flags&flagRST != 0)
	}
	return nil
}

// opened makes a stream that the peer has opened.
func (s *session) opened(id uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.streams == nil:
		return s.cause
	case id == 0 || id%2 == s.next%2:
		return fmt.Errorf("%w: it opens stream %d, which is not its to open", errProtocol, id)
	case id != control && !s.conn.known.Load():
		return errEarly
	case s.streams[id] != nil:
		return fmt.Errorf("%w: it opens stream %d again", errProtocol, id)
	}
	select {
	case s.incoming <- s.newStream(id, flagACK):
		return nil
	default:
		return fmt.Errorf("%w: more than %d streams wait to be accepted", errProtocol, backlog)
	}
}
