package mesh

import (
	"net"

	"github.com/ranvier-mesh/ranvier/mesh/session"
	"github.com/ranvier-mesh/ranvier/routing"
)

// Addr is an end of a stream: a node and a service.
type Addr struct {
	Node    routing.NodeID
	Service string
}

// Network returns "ranvier".
func (Addr) Network() string { return "ranvier" }

// String returns "node:service".
func (a Addr) String() string { return string(a.Node) + ":" + a.Service }

// Conn is a stream across the mesh: a net.Conn with half-close. A way that
// breaks is an error from Read and Write at both ends, never io.EOF
// (*session.BrokenError).
type Conn struct {
	*session.Conn
	session       *session.Conn
	local, remote Addr
	path          []routing.NodeID
}

// newConn starts a session over carrier.
func (m *Mesh) newConn(carrier net.Conn, local, remote Addr, path []routing.NodeID) *Conn {
	c := &Conn{local: local, remote: remote, path: path}
	registered := make(chan struct{})
	c.session = session.New(carrier, remote.String()+" (via "+joinIDs(path, " → ")+")", func() {
		<-registered
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.conns, c)
	})
	c.Conn = c.session
	m.mu.Lock()
	m.conns[c] = struct{}{}
	m.mu.Unlock()
	close(registered)
	return c
}

// LocalAddr returns this end as an Addr.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the other end as an Addr.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// PeerIdentity returns the id of the node at the other end.
func (c *Conn) PeerIdentity() routing.NodeID { return c.remote.Node }

// Path returns the nodes that the stream passes, the dialling one first.
func (c *Conn) Path() []routing.NodeID { return c.path }
