package remote

import (
	"net"
	"slices"
	"sync"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/wire"
)

const (
	// keepIdle is how long a connection is kept for the next request: less than
	// idleTime, so that the server's end seldom comes first.
	keepIdle = 15 * time.Second
	// maxIdle is how many connections are kept to all nodes.
	maxIdle = 256
)

// hangUp ends a connection on which nothing is to come: without the goodbyes of
// Close, which would look for a way for them.
func hangUp(conn net.Conn) {
	if c, ok := conn.(interface{ Reset(wire.Code, string) }); ok {
		c.Reset(wire.CodeOK, "nothing more is asked")
	}
	conn.Close()
}

// idle keeps connections on which a request was answered for the next one: to make
// one costs a handshake with certificates at both ends. The zero value is empty.
type idle struct {
	mu     sync.Mutex // guards what is below
	conns  []*idleConn
	closed bool
}

type idleConn struct {
	node  string
	conn  net.Conn
	timer *time.Timer // closes it
}

// take returns a connection to a node, or nil. The latest is taken first, so that
// those nobody needs grow old. One that knows that its way is broken is of no use: a
// new one is refused with a reason, or comes through.
func (i *idle) take(node string) net.Conn {
	i.mu.Lock()
	defer i.mu.Unlock()
	for n := len(i.conns) - 1; n >= 0; n-- {
		c := i.conns[n]
		if c.node != node || !c.timer.Stop() {
			continue
		}
		i.conns = slices.Delete(i.conns, n, n+1)
		if way, ok := c.conn.(interface{ Connected() bool }); ok && !way.Connected() {
			hangUp(c.conn)
			continue
		}
		return c.conn
	}
	return nil
}

// put keeps a connection on which nothing more comes, or closes it.
func (i *idle) put(node string, conn net.Conn) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed || len(i.conns) >= maxIdle {
		hangUp(conn)
		return
	}
	c := &idleConn{node: node, conn: conn}
	c.timer = time.AfterFunc(keepIdle, func() {
		hangUp(conn)
		i.mu.Lock()
		defer i.mu.Unlock()
		i.conns = slices.DeleteFunc(i.conns, func(o *idleConn) bool { return o == c })
	})
	i.conns = append(i.conns, c)
}

// drop closes the connections to a node: another one has just broken.
func (i *idle) drop(node string) { i.closeAll(func(c *idleConn) bool { return c.node == node }) }

// close closes all, and keeps none from now on.
func (i *idle) close() {
	i.closeAll(func(*idleConn) bool { return true })
	i.mu.Lock()
	defer i.mu.Unlock()
	i.closed = true
}

func (i *idle) closeAll(which func(*idleConn) bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.conns = slices.DeleteFunc(i.conns, func(c *idleConn) bool {
		if !which(c) {
			return false
		}
		c.timer.Stop()
		hangUp(c.conn)
		return true
	})
}
