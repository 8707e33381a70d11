package mesh

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/routing"
)

// sendRevoked says before Hello who is revoked.
func (m *Mesh) sendRevoked(control net.Conn) error {
	if m.members == nil {
		return nil
	}
	list := m.members.self.Trust().Revocations()
	if list == nil {
		return nil
	}
	frame, err := wire.Revoked{List: list.Raw}.Append(nil)
	if err != nil {
		return err
	}
	_, err = control.Write(frame)
	return err
}

// revoked applies a list that a peer has sent. The error says why the list is
// not one of the mesh's CA; a node without an identity has no say in it.
func (m *Mesh) revoked(msg wire.Revoked) error {
	if m.members == nil {
		return nil
	}
	newer, err := m.members.self.Trust().Revoke(msg.List)
	if err != nil || !newer {
		return err
	}
	return m.keepRevoked()
}

// Revoke applies a signed list of revocations that has come in another way
// than over a link, as on the CA's own node. It tells whether it was newer than
// what was known; then links and streams of who is on it end, and all
// neighbours hear of it. The error says why the list is not one of the mesh's CA.
func (m *Mesh) Revoke(list []byte) (newer bool, err error) {
	if m.members == nil {
		return false, errors.New("the node has no identity")
	}
	if newer, err = m.members.self.Trust().Revoke(list); err != nil || !newer {
		return newer, err
	}
	return true, m.keepRevoked()
}

// keepRevoked has the list on disk before anybody is told that it holds here.
func (m *Mesh) keepRevoked() error {
	if err := m.members.self.SaveRevocations(); err != nil {
		m.log.Error("who is revoked is not kept; after a restart the node may believe them again", "err", err)
	}
	return nil
}

// guard ends links and streams of who is not a member any more, at every
// change of what is trusted and when a certificate ends, and tells the
// neighbours of new lists.
func (m *Mesh) guard(ctx context.Context) error {
	if m.members == nil {
		return nil
	}
	trust := m.members.self.Trust()
	told := number(trust.Revocations()) // at the Hellos, so far
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	gone := false  // this node is cut off, and has said so
	again := false // what was being checked when the list came may be stored by now
	for {
		changed := trust.Changed() // before the sweep: none between the two is lost
		list := trust.Revocations()
		newer := number(list) > told
		if newer {
			told = number(list)
			m.log.Warn("keys were revoked", "number", list.Number, "keys", len(list.Keys))
			for _, n := range m.allNeighbours() {
				n.push(wire.Revoked{List: list.Raw})
			}
		}
		m.sweep(trust) // who is on the list was sent it
		if err := m.cutOff(); err != nil && !gone {
			gone = true
			m.leave(err)
		}
		if newer || again {
			m.forgetRevoked(ctx)
		}
		again = newer
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// forgetRevoked drops what was signed with revoked keys: whoever has such an id
// next begins at a low epoch, and the last owner may have used up the numbers.
func (m *Mesh) forgetRevoked(ctx context.Context) {
	m.members.forgetRevoked()
	m.change(ctx, func(c *routing.Core, now time.Time) {
		c.Forget(now, func(a *routing.Advert) bool {
			e, err := wire.ParseEnvelope(a.Raw)
			return err != nil || len(e.KeyID) != len(identity.KeyID{}) || m.members.key(identity.KeyID(e.KeyID)) == nil
		})
	})
}

// guardEvery is how late the end of a certificate may be noticed.
const guardEvery = time.Minute

func number(list *identity.Revocations) uint64 {
	if list == nil {
		return 0
	}
	return list.Number
}

// sweep ends what belongs to who is no member any more. A link whose peer has
// renewed goes on: its Cert message said so.
func (m *Mesh) sweep(trust *identity.Trust) {
	for _, n := range m.allNeighbours() {
		err := trust.Still(n.member)
		if late := (*identity.ClockError)(nil); errors.As(err, &late) {
			if in := m.members.id(n.member.ID); in != nil && in.signer.KeyID == n.member.KeyID && trust.Still(in.signer.Member) == nil {
				continue
			}
		}
		if err != nil {
			n.expel(err)
		}
	}
	for _, c := range m.allConns() {
		err := trust.Still(*c.proof.Load())
		switch {
		case errors.Is(err, identity.ErrRevoked):
			c.session.Reset(wire.CodeForbidden, err.Error())
		case err != nil: // its certificate has ended: the next carrier shows a new one, or there is none
			c.session.Detach(err)
		}
	}
}

func (m *Mesh) allConns() []*Conn {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Keys(m.conns))
}

// renewed tells all routers of this node's new certificate.
func (m *Mesh) renewed() {
	in, newer, err := m.members.introduce(m.members.self.Cert())
	if err != nil {
		m.log.Error("the node's own certificate does not hold", "err", err)
	}
	if newer {
		m.passOn(in, nil)
	}
}

// Renewed is called when the node's certificate was renewed.
func (m *Mesh) Renewed() {
	if m.members != nil {
		m.renewed()
	}
}
