package mesh

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/routing"
)

func (m *Mesh) newCore(now time.Time) *routing.Core {
	return routing.New(routing.Config{
		Self:  m.cfg.ID,
		Epoch: m.cfg.Epoch,
		Nonce: binary.BigEndian.Uint32(m.nonce),
		Seal: func(a *routing.Advert) {
			seal := wire.SealUnsigned
			if m.members != nil {
				seal = m.members.self.Seal
			}
			if err := seal(a); err != nil {
				m.log.Error("own advert does not encode; neighbours will not hear of the change", "err", err)
			}
		},
	}, now)
}

// route owns the routing core: every change to it is a function sent on
// m.changes and runs here. What the core wants sent goes to the neighbours'
// queues, which never block.
func (m *Mesh) route(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case change := <-m.changes:
			change(m.core, time.Now())
		case <-timer.C:
		}
		now := time.Now()
		m.core.Advance(now)
		m.report(m.core.TakeEvents()) // first: an epoch is on disk before it is used
		m.flood(m.core.TakeSends())
		if t := m.core.Table(); t != m.table.Load() {
			m.table.Store(t)
			close(*m.rerouted.Swap(newSignal()))
			m.drainingAre(t.Draining())
		}
		if next, ok := m.core.NextTimer(); ok {
			timer.Reset(max(0, next.Sub(now)))
		} else {
			timer.Stop()
		}
	}
}

func newSignal() *chan struct{} {
	c := make(chan struct{})
	return &c
}

// Away returns nil where a way to a node is known, or may be by those that this one
// asks for it. Else what it returns is closed when that is worth another look.
func (m *Mesh) Away(to routing.NodeID) <-chan struct{} {
	if m.cfg.Role != Router {
		linked := m.hasNeighbour()
		select {
		case <-linked:
			return nil
		default:
			return linked
		}
	}
	changed := *m.rerouted.Load() // before the look
	if _, known := m.table.Load().Cost(to); known {
		return nil
	}
	return changed
}

// change has route run f; it returns false when the mesh has stopped.
func (m *Mesh) change(ctx context.Context, f func(*routing.Core, time.Time)) bool {
	select {
	case m.changes <- f:
		return true
	case <-ctx.Done():
		return false
	}
}

// withdraw tells the core that n's link is down, unless there is another one to
// the same node by now. That may have told the core of itself before: the end of
// n is told when n has ended, and who redials is fast.
func (m *Mesh) withdraw(c *routing.Core, now time.Time, n *neighbour) {
	if next := m.neighbour(n.id); next != nil && next.hello.Role == n.hello.Role {
		return
	}
	switch n.hello.Role { // what the core does not know it ignores
	case Router:
		c.RemoveLink(now, n.id)
	case Leaf:
		c.RemoveLeaf(now, n.id)
	}
}

func (m *Mesh) flood(sends []routing.Send) {
	for _, s := range sends {
		n := m.neighbour(s.To)
		if n == nil {
			continue // its end is on its way to the core
		}
		frame, err := wire.AppendRouting(nil, s.Msg)
		if err != nil {
			m.log.Error("routing message does not encode", "to", s.To, "err", err)
			continue
		}
		if a, ok := s.Msg.(*routing.Advert); ok && m.members != nil {
			for _, in := range m.members.of(a) {
				n.tellOf(in)
			}
		}
		n.out.push(frame)
		m.floods.Add(1)
	}
}

// tellOf introduces a member to a neighbour before the first advert with its
// signature, and again when its certificate was renewed. It runs in route.
func (n *neighbour) tellOf(in *introduced) {
	key := in.signer.SignKeyID()
	if known, ok := n.knows[key]; ok && !in.signer.NotAfter.After(known) {
		return
	}
	if n.knows == nil {
		n.knows = map[identity.KeyID]time.Time{}
	}
	n.knows[key] = in.signer.NotAfter
	n.out.push(in.frame)
}

// passOn tells all routers but the one that said it of a certificate that was
// not known here, or is newer: who renews stays known.
func (m *Mesh) passOn(in *introduced, from *neighbour) {
	m.change(m.running, func(*routing.Core, time.Time) {
		for _, n := range m.allNeighbours() {
			if n != from && n.hello.Role == Router {
				n.tellOf(in)
			}
		}
	})
}

func (m *Mesh) report(events []routing.Event) {
	for _, e := range events {
		switch e := e.(type) {
		case routing.EpochJumped:
			m.log.Warn("others remember a higher epoch of this node; moved above it", "epoch", e.Epoch)
			m.epoch.Store(e.Epoch)
			m.attachAnew()
			if m.cfg.SaveEpoch != nil {
				m.cfg.SaveEpoch(e.Epoch)
			}
		case routing.NodeUp:
			m.log.Info("node reachable", "node", e.Node)
		case routing.NodeDown:
			m.log.Info("node unreachable", "node", e.Node)
		default:
			m.log.Warn("routing", "event", e)
		}
	}
}

// Advertise sets what this node tells the mesh of itself. The error says which
// name or tag breaks a rule; then nothing changes. It does nothing on a node
// that is no router.
func (m *Mesh) Advertise(ctx context.Context, services []routing.Service, workTypes []routing.WorkType) error {
	for _, s := range services {
		if err := wire.CheckService(s); err != nil {
			return fmt.Errorf("advertise service %q: %w", s.Name, err)
		}
	}
	for _, w := range workTypes {
		if err := wire.CheckWorkType(w); err != nil {
			return fmt.Errorf("advertise work type %q: %w", w.Name, err)
		}
	}
	m.change(ctx, func(c *routing.Core, now time.Time) {
		m.local.Services, m.local.WorkTypes = services, workTypes
		c.SetLocal(now, m.local)
	})
	return nil
}
