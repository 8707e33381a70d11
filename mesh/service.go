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
