package mesh

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/mesh/secure"
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

// Conn is a stream across the mesh: a net.Conn with half-close. When the way
// breaks, it goes on over another one and its users see a pause. Only after
// Config.ResumeTime without a way, or when the other end is lost, Read and Write
// give an error at both ends, never io.EOF (*session.BrokenError).
type Conn struct {
	*session.Conn
	session       *session.Conn
	mesh          *Mesh
	local, remote Addr
	dialled       bool   // by this node
	trail         string // see Trail
	token         sessionToken
	peerKey       [32]byte
	member        identity.Member                 // where the mesh has identities
	proof         atomic.Pointer[identity.Member] // the member as the last carrier showed him
	path          atomic.Pointer[[]routing.NodeID]

	// Of redial, which runs once at a time.
	fouled bool  // the last carrier ended in a foul way (foul)
	why    error // that
	turn   int   // of avoid

	moving moving // of Mesh.move
}

type sessionToken = [wire.TokenLen]byte

// newConn starts a session over its first carrier.
func (m *Mesh) newConn(carrier *secure.Conn, path []routing.NodeID, local, remote Addr, trail string, dialled bool) (*Conn, error) {
	c := &Conn{mesh: m, local: local, remote: remote, trail: trail, dialled: dialled, peerKey: carrier.PeerKey()}
	var err error
	if c.token, err = carrier.Token(); err != nil {
		return nil, err
	}
	if self := m.cfg.Self; self != nil {
		if c.member, err = self.Trust().Peer(carrier.PeerChain(), dialled); err != nil {
			return nil, err
		}
		c.proof.Store(&c.member)
	}
	cfg := session.Config{
		Name: remote.String(), Local: local, Remote: remote, Token: c.token,
		GiveUp: m.cfg.ResumeTime, Budget: m.budget, Done: func() { m.removeConn(c, dialled) },
	}
	if dialled {
		cfg.Redial = c.redial
	} else if cfg.Budget, err = m.limits.enter(time.Now(), c.whose(), m.budget); err != nil {
		return nil, err
	}
	m.mu.Lock() // until the conn is in the maps: Done takes it out
	defer m.mu.Unlock()
	if m.left || m.running.Err() != nil {
		if !dialled {
			m.limits.leave(c.whose())
		}
		return nil, ErrClosed
	}
	c.session = session.New(c.carrier(carrier, path), cfg)
	c.Conn = c.session
	m.conns[c] = struct{}{}
	if !dialled {
		m.accepted[c.token] = c
	} else {
		m.moves.check(path)
	}
	return c, nil
}

// whose is the identity that has opened the stream: all nodes of a member are one.
func (c *Conn) whose() routing.NodeID {
	if c.mesh.cfg.Self != nil {
		return c.member.ID
	}
	return c.remote.Node
}

// prove notes until when the certificate holds that a further carrier showed.
func (c *Conn) prove(k *secure.Conn) {
	if self := c.mesh.cfg.Self; self != nil {
		if member, err := self.Trust().Peer(k.PeerChain(), c.dialled); err == nil {
			c.proof.Store(&member)
		}
	}
}

func (m *Mesh) removeConn(c *Conn, dialled bool) {
	if !dialled {
		m.limits.leave(c.whose())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.conns, c)
	if !dialled {
		delete(m.accepted, c.token)
	}
}

// carrier notes the path of a carrier and is what the session is told of it.
func (c *Conn) carrier(k *secure.Conn, path []routing.NodeID) session.Carrier {
	c.path.Store(&path)
	return carrierOf(k, path)
}

func carrierOf(k *secure.Conn, path []routing.NodeID) session.Carrier {
	return session.Carrier{Conn: k, Way: "via " + joinIDs(path, " → "), RTT: k.RTT()}
}

// redial makes another carrier for a session whose last one broke, around
// relays of that one (avoid), since nobody says which of them it was, or any way.
func (c *Conn) redial(ctx context.Context, attempt int, cause error) (session.Carrier, error) {
	if attempt == 0 || foul(cause) {
		c.fouled, c.why = foul(cause), cause
	}
	before := c.Path()
	k, path, err := c.another(ctx, c.avoid(attempt))
	if err != nil {
		return session.Carrier{}, err
	}
	c.mesh.log.Debug("a stream goes on over another way", "stream", c.remote, "path", joinIDs(path, " → "))
	c.around(before, path)
	next := c.carrier(k, path)
	c.prove(k)
	c.mesh.moves.check(path)
	return next, nil
}

// another makes a further carrier for a session, around some nodes.
func (c *Conn) another(ctx context.Context, avoid []routing.NodeID) (*secure.Conn, []routing.NodeID, error) {
	ctx, cancel := context.WithTimeout(ctx, resumeTimeout)
	defer cancel()
	open := wire.Open{To: c.remote.Node, Service: c.remote.Service, Job: c.trail, Resume: true, Avoid: avoid}
	k, path, err := c.mesh.connect(ctx, open)
	if err == nil && k.PeerKey() != c.peerKey {
		k.Close()
		return nil, nil, fmt.Errorf("node %s has another key: %w", c.remote.Node, session.ErrLost)
	}
	return k, path, err
}

// LocalAddr returns this end as an Addr.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the other end as an Addr.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// PeerIdentity returns the id of the node at the other end.
func (c *Conn) PeerIdentity() routing.NodeID { return c.remote.Node }

// Member returns who the other end has proved to be; ok is false where the
// mesh has no identities.
func (c *Conn) Member() (m identity.Member, ok bool) { return c.member, c.mesh.cfg.Self != nil }

// Path returns the nodes that the stream passes now, or passed before its way
// broke, the dialling one first.
func (c *Conn) Path() []routing.NodeID { return *c.path.Load() }
