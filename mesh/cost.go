package mesh

import (
	"cmp"
	"slices"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/routing"
)

// featureCost is named in the Hello of who takes a new wish for a link's cost
// while the link is up (docs/protocol.md section 4.6).
const featureCost = "cost"

// wish is what this end wishes a link to id to cost.
func (c *ListenerConfig) wish(id routing.NodeID) routing.Cost {
	if cost, ok := c.NodeCost[id]; ok {
		return cost
	}
	return c.Cost
}

// cost is what the link costs now: the higher of the two wishes.
func (n *neighbour) cost() routing.Cost {
	n.mu.Lock()
	defer n.mu.Unlock()
	return cmp.Or(max(n.wish, n.peersWish), routing.CostUnit)
}

// wishes takes what either end wishes from now on; nil: as before.
func (n *neighbour) wishes(own, peers *routing.Cost) {
	n.mu.Lock()
	if own != nil {
		n.wish = *own
	}
	if peers != nil {
		n.peersWish = *peers
	}
	n.mu.Unlock()
	m := n.mesh
	m.change(m.running, func(c *routing.Core, now time.Time) {
		if m.neighbour(n.id) == n {
			c.SetCost(now, n.id, n.cost())
		}
	})
}

// reprice has the link cost what this end wishes now, and tells the peer. The
// link of a peer that does not know of that has to be made anew.
func (n *neighbour) reprice(wish routing.Cost) {
	n.mu.Lock()
	same := n.wish == wish
	n.mu.Unlock()
	switch {
	case same:
	case slices.Contains(n.hello.Features, featureCost):
		n.wishes(&wish, nil)
		n.push(wire.Heartbeat{Cost: wish, HasCost: true})
	default:
		n.push(wire.GoAway{Code: wire.CodeShutdown, Node: n.mesh.cfg.ID, Reason: "the cost of the link has changed: link again"})
	}
}
