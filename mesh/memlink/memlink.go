// Package memlink carries links in memory: for tests in virtual time and for
// nodes in one process.
package memlink

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/ranvier-mesh/ranvier/internal/pipe"
	"github.com/ranvier-mesh/ranvier/mesh/link"
)

// Network is a set of listeners that can be dialled by name. It implements
// link.Transport. The zero value is ready; it may be used from several goroutines.
type Network struct {
	mu        sync.Mutex
	listeners map[string]*listener
	next      int
}

// Addr is an address of a Network.
type Addr string

// Network returns "mem".
func (Addr) Network() string { return "mem" }

// String returns the name.
func (a Addr) String() string { return string(a) }

// Listen implements link.Transport. An empty name gets one of its own.
func (n *Network) Listen(_ context.Context, name string) (link.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if name == "" {
		n.next++
		name = fmt.Sprintf("mem-%d", n.next)
	}
	if n.listeners[name] != nil {
		return nil, fmt.Errorf("listen mem %s: address already in use", name)
	}
	l := &listener{net: n, addr: Addr(name), backlog: make(chan *end), done: make(chan struct{})}
	if n.listeners == nil {
		n.listeners = map[string]*listener{}
	}
	n.listeners[name] = l
	return l, nil
}

// Dial implements link.Transport.
func (n *Network) Dial(ctx context.Context, name string) (link.Link, error) {
	n.mu.Lock()
	l := n.listeners[name]
	n.mu.Unlock()
	refused := fmt.Errorf("dial mem %s: connection refused", name)
	if l == nil {
		return nil, refused
	}
	near, far := newPair(Addr("dialler of "+name), l.addr)
	select {
	case l.backlog <- far:
		return near, nil
	case <-l.done:
		return nil, refused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type listener struct {
	net     *Network
	addr    Addr
	backlog chan *end
	done    chan struct{}
	once    sync.Once
}

func (l *listener) Accept() (link.Link, error) {
	select {
	case e := <-l.backlog:
		return e, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.net.mu.Lock()
		defer l.net.mu.Unlock()
		delete(l.net.listeners, string(l.addr))
	})
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }

// maxUnaccepted is how many streams may wait to be accepted, as in yamux.
const maxUnaccepted = 256

// cable is what the two ends of a link share.
type cable struct {
	once    sync.Once
	done    chan struct{}
	mu      sync.Mutex
	streams map[*pipe.Conn]struct{} // one end of each; nil after cut
	moved   [2]atomic.Uint64        // bytes towards end 0 and end 1
	frozen  chan struct{}           // nil, or closed when the cable carries again
}

// end is one end of a link.
type end struct {
	*cable
	side     int
	peer     *end
	incoming chan net.Conn
	local    net.Addr
}

func newPair(a, b net.Addr) (*end, *end) {
	c := &cable{done: make(chan struct{}), streams: map[*pipe.Conn]struct{}{}}
	x := &end{cable: c, side: 0, incoming: make(chan net.Conn, maxUnaccepted), local: a}
	y := &end{cable: c, side: 1, incoming: make(chan net.Conn, maxUnaccepted), local: b, peer: x}
	x.peer = y
	return x, y
}

func (e *end) Open(ctx context.Context) (net.Conn, error) {
	near, far := pipe.New(e.local, e.peer.local)
	e.mu.Lock()
	if e.streams == nil {
		e.mu.Unlock()
		return nil, link.ErrClosed
	}
	e.streams[near] = struct{}{}
	e.mu.Unlock()
	mine, theirs := newStream(near, e, near), newStream(far, e.peer, near)
	select {
	case e.peer.incoming <- theirs:
		return mine, nil
	case <-e.done:
		return nil, link.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (e *end) Accept() (net.Conn, error) {
	select {
	case s := <-e.incoming:
		return s, nil
	case <-e.done:
		return nil, link.ErrClosed
	}
}

func (e *end) Close() error {
	e.once.Do(func() {
		close(e.done)
		e.mu.Lock()
		streams := e.streams
		e.streams = nil
		e.mu.Unlock()
		for s := range streams {
			s.Break(link.ErrClosed)
		}
	})
	return nil
}

func (e *end) Done() <-chan struct{} { return e.done }

func (e *end) Traffic() (received, sent uint64) {
	return e.moved[e.side].Load(), e.moved[1-e.side].Load()
}

func (e *end) LocalAddr() net.Addr  { return e.local }
func (e *end) RemoteAddr() net.Addr { return e.peer.local }

// Freeze makes a link of this package a black hole: what is written is
// neither refused nor delivered, until the returned function is called.
func Freeze(l link.Link) (thaw func()) {
	e := l.(*end)
	ch := make(chan struct{})
	e.mu.Lock()
	e.frozen = ch
	e.mu.Unlock()
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.frozen = nil
		close(ch)
	}
}

// stream counts a pipe's traffic, and waits while the cable is frozen.
type stream struct {
	*pipe.Conn
	end    *end
	key    *pipe.Conn
	once   sync.Once
	closed chan struct{} // by this end
}

func newStream(c *pipe.Conn, e *end, key *pipe.Conn) *stream {
	return &stream{Conn: c, end: e, key: key, closed: make(chan struct{})}
}

func (s *stream) Write(p []byte) (int, error) {
	s.end.mu.Lock()
	frozen := s.end.frozen
	s.end.mu.Unlock()
	if frozen != nil {
		select {
		case <-frozen:
		case <-s.end.done:
		case <-s.closed:
		}
	}
	n, err := s.Conn.Write(p)
	s.end.moved[1-s.end.side].Add(uint64(n))
	return n, err
}

func (s *stream) Close() error {
	s.once.Do(func() { close(s.closed) })
	s.end.mu.Lock()
	delete(s.end.streams, s.key)
	s.end.mu.Unlock()
	return s.Conn.Close()
}
