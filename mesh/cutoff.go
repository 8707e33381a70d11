package mesh

import (
	"fmt"
	"net"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/mesh/link"
)

// cutOff returns an *identity.CutOffError once this node's own key was revoked.
func (m *Mesh) cutOff() error {
	if m.members == nil {
		return nil
	}
	return m.members.self.CutOff()
}

// turnAway tells a peer whose key was revoked so, with the CA's list, and hears
// nothing from it. The error says that it was turned away.
func (m *Mesh) turnAway(l link.Link, control net.Conn) error {
	if m.members == nil {
		return nil
	}
	secured, ok := l.(link.Authenticated)
	if !ok {
		return nil
	}
	chain := secured.PeerCertificates()
	if len(chain) == 0 || !m.members.self.Trust().RevokedKey(chain[0]) {
		return nil
	}
	err := m.sendRevoked(control)
	if err == nil {
		sendGoAway(l, control, wire.GoAway{Code: wire.CodeForbidden, Node: m.cfg.ID, Reason: "your key was revoked"})
	}
	return fmt.Errorf("a key that was revoked, of %q", chain[0].Subject.CommonName)
}

// expel ends the link of who is no member any more, and lets it read why first.
// Meanwhile nothing is taken from it.
func (n *neighbour) expel(err error) {
	if n.expelled.Swap(true) {
		return
	}
	n.mu.Lock()
	if n.end == nil {
		n.end = fmt.Errorf("link to %s: %w", n.id, err)
	}
	n.mu.Unlock()
	n.push(wire.GoAway{Code: wire.CodeForbidden, Node: n.mesh.cfg.ID, Reason: err.Error()})
	time.AfterFunc(partingTime, func() { n.link.Close() })
}

// leave ends all of a node that is cut off: nobody talks to it any more, and
// whoever waits is to know.
func (m *Mesh) leave(why error) {
	m.log.Error("this node is cut off", "err", why)
	for _, n := range m.allNeighbours() {
		n.fail(why)
	}
	for _, c := range m.allConns() {
		c.session.Reset(wire.CodeForbidden, why.Error())
	}
}
