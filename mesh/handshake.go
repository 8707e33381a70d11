package mesh

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/routing"
)

const (
	// handshakeTime is how long a peer may take until it is known.
	handshakeTime = 5 * time.Second
	// When another process claims the id of a linked one, the link is taken for
	// dead if it is asked and gives no sign of life for probeTime. Silence alone
	// says little: a leaf's link is quiet for many seconds.
	probeTime = time.Second
)

// greet makes a neighbour of a link that this node dialled: it opens the
// control stream and says Hello, and the peer's Hello means that it accepts.
func (m *Mesh) greet(ctx context.Context, l link.Link, peer PeerConfig) (*neighbour, error) {
	control, err := l.Open(ctx)
	if err != nil {
		return nil, m.noHello(err)
	}
	defer guard(ctx, l, control)()
	start := time.Now()
	if err := m.sendHello(control, peer.Cost); err != nil {
		return nil, m.noHello(err) // it has closed the link already
	}
	hello, member, err := m.readHello(l, control, wanted{peer.AllowedPeers, peer.Check}, true)
	if err != nil {
		return nil, cmp.Or(m.cutOff(), err) // the peer may have shown the list
	}
	n := m.newNeighbour(l, control, hello, peer.Cost, true)
	n.member, n.rtt = member, time.Since(start)
	if err := m.mayJoin(ctx, n); err != nil {
		n.refuse(err)
		return nil, err
	}
	link.Known(l)
	// The first Heartbeat confirms to the peer that its Hello has come.
	frame, err := wire.Heartbeat{}.Append(nil)
	if err == nil {
		_, err = control.Write(frame)
	}
	return n, err
}

// welcome makes a neighbour of a link that this node accepted: the peer speaks
// first, and once it has confirmed our Hello both ends know that the link is up.
func (m *Mesh) welcome(ctx context.Context, l link.Link, cfg ListenerConfig) (*neighbour, error) {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	control, err := l.Accept()
	if !stop() {
		return nil, fmt.Errorf("the peer said nothing in %v (is it a Ranvier node?)", handshakeTime)
	}
	if err != nil {
		return nil, m.noHello(err)
	}
	defer guard(ctx, l, control)()
	if err := m.turnAway(l, control); err != nil {
		return nil, err
	}
	hello, member, err := m.readHello(l, control, wanted{cfg.AllowedPeers, cfg.Check}, false)
	if err != nil {
		return nil, err
	}
	cost := cfg.wish(hello.ID)
	n := m.newNeighbour(l, control, hello, cost, false)
	n.member = member
	if err := m.mayJoin(ctx, n); err != nil {
		n.refuse(err)
		return nil, err
	}
	link.Known(l) // its streams may come with its confirmation
	start := time.Now()
	if err := m.sendHello(control, cost); err != nil {
		return nil, err
	}
	t, body, err := wire.ReadFrame(control, nil, wire.MaxHelloFrame)
	if err != nil {
		return nil, fmt.Errorf("node %s did not confirm: %w", hello.ID, err)
	}
	n.rtt = time.Since(start)
	return n, confirmed(t, body)
}

func confirmed(t wire.Type, body []byte) error {
	msg, err := wire.ParseControl(t, body)
	if err != nil {
		return err
	}
	switch msg := msg.(type) {
	case wire.Heartbeat:
		return nil
	case wire.GoAway:
		return &RefusedError{Code: msg.Code, Node: msg.Node, Reason: msg.Reason}
	}
	return fmt.Errorf("%w: %v in place of the confirmation", wire.ErrMalformed, t)
}

// guard bounds the handshake by ctx and by handshakeTime; the returned function lifts both.
func guard(ctx context.Context, l link.Link, control net.Conn) func() {
	control.SetDeadline(time.Now().Add(handshakeTime))
	stop := context.AfterFunc(ctx, func() { l.Close() })
	return func() {
		stop()
		control.SetDeadline(time.Time{})
	}
}

func (m *Mesh) sendHello(control net.Conn, cost routing.Cost) error {
	if err := m.sendRevoked(control); err != nil {
		return err
	}
	frame, err := wire.Hello{
		Protocol: wire.Protocol, ID: m.cfg.ID, Epoch: m.epoch.Load(), Nonce: m.nonce, Role: m.cfg.Role,
		Cost: cost, Features: []string{featureCost}, Software: m.cfg.Software, Insecure: m.cfg.Insecure,
	}.Append(nil)
	if err != nil {
		return err
	}
	_, err = control.Write(frame)
	return err
}

// wanted is whom a listener or a peer of the configuration is for.
type wanted struct {
	allowed []routing.NodeID // empty: all
	check   func(routing.NodeID, []*x509.Certificate) error
}

// readHello reads the peer's Hello and refuses a peer that may not connect.
func (m *Mesh) readHello(l link.Link, control net.Conn, admit wanted, dialled bool) (wire.Hello, identity.Member, error) {
	hello, err := m.parseHello(control)
	if err != nil {
		return hello, identity.Member{}, err
	}
	refuse := func(code wire.Code, format string, args ...any) (wire.Hello, identity.Member, error) {
		reason := fmt.Sprintf(format, args...)
		sendGoAway(l, control, wire.GoAway{Code: code, Node: m.cfg.ID, Reason: reason})
		return hello, identity.Member{}, &RefusedError{Code: code, Node: m.cfg.ID, Reason: reason}
	}
	member, stranger := m.identify(l, hello, admit, dialled)
	switch {
	case hello.Protocol != wire.Protocol:
		return refuse(wire.CodeVersion, "it speaks protocol version %d, this node speaks %d", hello.Protocol, wire.Protocol)
	case stranger != nil:
		return refuse(wire.CodeForbidden, "node %s: %v", hello.ID, stranger)
	case hello.Role == Ephemeral && m.knows(hello.ID):
		return refuse(wire.CodeDuplicateID, "node id %s belongs to a node of the mesh: leave the id of a short-lived node to chance, or take another", hello.ID)
	case hello.ID == m.cfg.ID:
		return refuse(wire.CodeDuplicateID, "node id %s is this node's own: give each node an id of its own", hello.ID)
	case len(admit.allowed) > 0 && !slices.Contains(admit.allowed, hello.ID):
		return refuse(wire.CodeForbidden, "node %s is not among the allowed peers", hello.ID)
	}
	return hello, member, nil
}

// knows tells whether the routes have a node of that id, near or far.
func (m *Mesh) knows(id routing.NodeID) bool {
	info, ok := m.table.Load().Node(id)
	return ok && info.Reachable && id != m.cfg.ID
}

// parseHello reads the peer's Hello, and before it who is revoked.
func (m *Mesh) parseHello(control net.Conn) (wire.Hello, error) {
	limit := wire.MaxHelloFrame
	if m.members != nil {
		limit = wire.MaxFrame // TLS knows the peer for a member already
	}
	t, body, err := wire.ReadFrame(control, nil, limit)
	if err == nil && t == wire.TypeRevoked {
		var list wire.Revoked
		if list, err = wire.ParseRevoked(body); err == nil {
			err = m.revoked(list)
		}
		if err != nil {
			return wire.Hello{}, err
		}
		t, body, err = wire.ReadFrame(control, nil, wire.MaxHelloFrame)
	}
	if err != nil {
		return wire.Hello{}, m.noHello(err)
	}
	msg, err := wire.ParseControl(t, body)
	if err != nil {
		return wire.Hello{}, err
	}
	switch msg := msg.(type) {
	case wire.Hello:
		return msg, nil
	case wire.GoAway:
		return wire.Hello{}, &RefusedError{Code: msg.Code, Node: msg.Node, Reason: msg.Reason}
	}
	return wire.Hello{}, fmt.Errorf("%w: %v in place of a Hello", wire.ErrMalformed, t)
}

// noHello says that a link ended, or turned into nonsense, before the peer was
// known. The addresses in err say nothing new.
func (m *Mesh) noHello(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		err = op.Err
		if op.Op == "remote error" && m.members == nil { // an alert of TLS
			return fmt.Errorf("the peer does not take this node's certificate, its log says why: %w", err)
		}
	}
	if m.members != nil {
		return fmt.Errorf("the peer said no Hello (is it a node of mesh %s, and does it accept this node's certificate?): %w", m.members.self.Mesh, err)
	}
	return fmt.Errorf("the peer said no Hello (is it a Ranvier node?): %w", err)
}

// sendGoAway tells a peer that its link is not wanted, and gives it time to
// read that. It is a courtesy: the link ends whether it arrives or not.
func sendGoAway(l link.Link, control net.Conn, g wire.GoAway) {
	frame, err := g.Append(nil)
	if err != nil {
		return
	}
	control.SetDeadline(time.Now().Add(partingTime))
	if _, err := control.Write(frame); err != nil {
		return
	}
	over := time.NewTimer(partingTime)
	defer over.Stop()
	select {
	case <-l.Done():
	case <-over.C:
	}
}

func (m *Mesh) newNeighbour(l link.Link, control net.Conn, hello wire.Hello, wish routing.Cost, dialled bool) *neighbour {
	return &neighbour{
		mesh: m, link: l, control: control, hello: hello, id: hello.ID, wish: wish, peersWish: hello.Cost,
		dialled: dialled, since: time.Now(), out: newOutbox(), beats: make(chan struct{}, 1), gone: make(chan struct{}),
	}
}

// register makes n the neighbour of its id, in place of an older link where
// mayJoin lets it.
func (m *Mesh) register(n *neighbour) error {
	m.mu.Lock()
	old := m.neighbours[n.id]
	if err := m.mayReplace(old, n); err != nil {
		m.mu.Unlock()
		return err
	}
	m.neighbours[n.id] = n
	if old == nil && len(m.neighbours) == 1 {
		close(m.attached)
	}
	m.mu.Unlock()
	if old != nil {
		old.giveWay()
	}
	return nil
}

// unregister takes n out, if it is still the neighbour of its id.
func (m *Mesh) unregister(n *neighbour) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.neighbours[n.id] != n {
		return
	}
	delete(m.neighbours, n.id)
	if len(m.neighbours) == 0 {
		m.attached = make(chan struct{})
	}
}

// mayJoin tells early, while the peer still listens for a refusal, what
// register would decide. Before it calls a node a duplicate, it asks the one
// that has the link whether it is there: it may have been restarted just now.
func (m *Mesh) mayJoin(ctx context.Context, n *neighbour) error {
	old := m.neighbour(n.id)
	err := m.mayReplace(old, n)
	if duplicate(err) && !old.answers(ctx) {
		old.dead.Store(true)
		err = nil
	}
	return err
}

// answers asks the neighbour for a sign of life.
func (n *neighbour) answers(ctx context.Context) bool {
	select {
	case <-n.beats: // an old one
	default:
	}
	n.push(wire.Heartbeat{Ask: true})
	over := time.NewTimer(probeTime)
	defer over.Stop()
	select {
	case <-n.beats:
		return true
	case <-n.gone:
	case <-over.C:
	case <-ctx.Done():
		return true // not known; who asked is gone too
	}
	return false
}

// mayReplace decides between two links of one id (docs/protocol.md section 4.3).
func (m *Mesh) mayReplace(old, n *neighbour) error {
	if old == nil {
		return nil
	}
	keepOld := &RefusedError{Code: wire.CodeSuperseded, Node: m.cfg.ID, peer: n.id, Reason: fmt.Sprintf("node %s is linked already", n.id)}
	switch sameProcess := slices.Equal(old.hello.Nonce, n.hello.Nonce); {
	case !sameProcess && !old.dead.Load():
		return &RefusedError{Code: wire.CodeDuplicateID, Node: m.cfg.ID,
			Reason: fmt.Sprintf("duplicate id: another node %s is linked here from %s: give each node an id of its own", n.id, old.link.RemoteAddr())}
	case !sameProcess:
		return nil // the old process is gone
	case old.dialled && n.dialled:
		return keepOld // this node reached the same peer on a second address
	case !old.dialled && !n.dialled:
		return nil // the peer would not dial again if it had the old link
	case n.dialled == (m.cfg.ID < n.id):
		return nil // of simultaneous dials the one of the lower id stays
	}
	return keepOld
}

// duplicate tells that two processes claim one id.
func duplicate(err error) bool {
	var refused *RefusedError
	return errors.As(err, &refused) && refused.Code == wire.CodeDuplicateID
}

// superseded tells that a link was given up for another one to the same node.
func superseded(err error) bool {
	var refused *RefusedError
	return errors.As(err, &refused) && refused.Code == wire.CodeSuperseded
}
