package mesh

import (
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/routing"
)

// acceptBacklog is how many streams may wait for a service's Accept.
const acceptBacklog = 128

// ErrServiceInUse is returned by Listen for a name that is listened on.
var ErrServiceInUse = errors.New("the service has a listener already")

// Listener is a net.Listener for a service of this node.
type Listener struct {
	mesh    *Mesh
	service string
	backlog chan *Conn
	done    chan struct{}

	mu     sync.Mutex // of closed, and of what is put into backlog
	closed bool
}

// Listen takes streams that are opened to service on this node. The error
// wraps ErrServiceInUse, or says what is wrong with the name.
func (m *Mesh) Listen(service string) (*Listener, error) {
	if err := wire.CheckService(routing.Service{Name: service}); err != nil {
		return nil, fmt.Errorf("listen on service %q: %w", service, err)
	}
	l := &Listener{mesh: m, service: service, backlog: make(chan *Conn, acceptBacklog), done: make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.services[service] != nil {
		return nil, fmt.Errorf("listen on service %q: %w", service, ErrServiceInUse)
	}
	m.services[service] = l
	return l, nil
}

// Accept implements net.Listener; what it returns is a *Conn. It returns
// net.ErrClosed after Close and when the node stops.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.backlog:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. Streams that were accepted go on; those that
// wait are closed.
func (l *Listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	l.mesh.forget(l.service)
	close(l.done)
	for {
		select {
		case c := <-l.backlog:
			c.Close()
		default:
			return nil
		}
	}
}

func (m *Mesh) forget(service string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.services, service)
}

// Addr implements net.Listener with an Addr.
func (l *Listener) Addr() net.Addr { return Addr{l.mesh.cfg.ID, l.service} }

// deliver answers an Open for this node and hands the stream to its service.
// It returns when the stream is over, since its caller closes it.
func (m *Mesh) deliver(stream net.Conn, open wire.Open) {
	accepted := wire.Answer{Node: m.cfg.ID, Path: []wire.Hop{{Node: m.cfg.ID}}}
	if open.Service == "" {
		m.answer(stream, accepted)
		return
	}
	m.mu.Lock()
	l := m.services[open.Service]
	m.mu.Unlock()
	switch {
	case l == nil:
		m.answer(stream, m.refusal(open, wire.CodeNoService, fmt.Sprintf("no service %q", open.Service)))
		return
	case len(l.backlog) == cap(l.backlog):
		m.answer(stream, m.refusal(open, wire.CodeBusy, fmt.Sprintf("service %q has too many streams waiting", open.Service)))
		return
	case !m.answer(stream, accepted):
		return
	}
	path := append(open.Path, m.cfg.ID)
	c := m.newConn(stream, Addr{m.cfg.ID, open.Service}, Addr{open.From, open.Service}, path)
	if !l.offer(c) {
		c.session.Reset(wire.CodeBusy, "the service does not accept")
	}
	<-c.session.Gone()
}

// offer queues a stream for Accept; false means that the listener is closed or full.
func (l *Listener) offer(c *Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	select {
	case l.backlog <- c:
		return true
	default:
		return false
	}
}

// dialSelf opens a stream to a service of this node, through memory.
func (m *Mesh) dialSelf(near, far net.Conn, open wire.Open) (net.Conn, wire.Answer) {
	go func() {
		defer far.Close()
		m.deliver(far, open)
	}()
	var answer wire.Answer
	t, body, err := wire.ReadFrame(near, nil, wire.MaxFrame)
	if err == nil && t == wire.TypeAnswer {
		answer, err = wire.ParseAnswer(body)
	}
	if err != nil {
		answer = m.refusal(open, wire.CodeInternal, err.Error())
	}
	return near, answer
}
