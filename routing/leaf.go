package routing

import (
	"container/list"
	"slices"
	"strings"
	"time"
)

// leaf is a node that is reached through its homes.
type leaf struct {
	node      *node
	homes     []home // sorted by home, then cost; replaced as a whole, because tables share it
	reachable bool
	shadowed  bool // a reachable router has its id: the leaf is not reached
	touched   bool // in Core.touched: reachable has to be looked at again
	since     time.Time
	queued    *list.Element // in Core.gone when it has no home any more
	goneAt    time.Time
}

type home struct {
	origin *origin
	cost   Cost
}

func (h home) compare(o home) int {
	if d := strings.Compare(string(h.origin.node.id), string(o.origin.node.id)); d != 0 {
		return d
	}
	return int(h.cost) - int(o.cost)
}

func byLeaf(l *leaf, id NodeID) int { return strings.Compare(string(l.node.id), string(id)) }

// addHome notes that o says the leaf is attached to it.
func (c *Core) addHome(id NodeID, o *origin, cost Cost) {
	n := c.node(id)
	l := n.leaf
	if l == nil {
		l = &leaf{node: n, since: c.now}
		n.leaf = l
		c.fresh = append(c.fresh, l)
	}
	if l.queued != nil {
		c.gone.Remove(l.queued)
		l.queued = nil
	}
	h := home{o, cost}
	i, _ := slices.BinarySearchFunc(l.homes, h, home.compare)
	l.homes = slices.Insert(slices.Clone(l.homes), i, h)
	c.touchLeaf(l)
}

// removeHome undoes addHome. A leaf that lost its last home stays visible as
// unreachable for the time of Config.Expiry.
func (c *Core) removeHome(id NodeID, o *origin, cost Cost) {
	l := c.nodes[id].leaf
	i, _ := slices.BinarySearchFunc(l.homes, home{o, cost}, home.compare)
	l.homes = slices.Delete(slices.Clone(l.homes), i, i+1)
	if len(l.homes) == 0 {
		l.goneAt = c.now
		l.queued = c.gone.PushBack(l)
		if c.gone.Len() > c.cfg.MaxOrigins {
			c.removeLeaf(c.gone.Front().Value.(*leaf))
		}
	}
	c.touchLeaf(l)
}

func (c *Core) removeLeaf(l *leaf) {
	c.gone.Remove(l.queued)
	c.thinned = true
	l.node.leaf = nil
	c.release(l.node)
	c.events = append(c.events, NodeForgotten{Node: l.node.id, Leaf: true})
	c.touch()
}

// sortLeaves brings leaves up to date, once for all that have come and gone:
// thousands do when a hub starts.
func (c *Core) sortLeaves() {
	if len(c.fresh) == 0 && !c.thinned {
		return
	}
	slices.SortFunc(c.fresh, func(a, b *leaf) int { return byLeaf(a, b.node.id) })
	old, fresh := c.leaves, c.fresh
	c.leaves = make([]*leaf, 0, len(old)+len(fresh))
	for len(old)+len(fresh) > 0 {
		var l *leaf
		if len(old) > 0 && (len(fresh) == 0 || byLeaf(old[0], fresh[0].node.id) <= 0) {
			l, old = old[0], old[1:]
		} else {
			l, fresh = fresh[0], fresh[1:]
		}
		if l.node.leaf == l { // else it was forgotten
			c.leaves = append(c.leaves, l)
		}
	}
	c.fresh, c.thinned = nil, false
}

func (c *Core) touchLeaf(l *leaf) {
	c.touch()
	if !l.touched {
		l.touched = true
		c.touched = append(c.touched, l)
	}
}

// touchLeavesOf has all leaves looked at that depend on whether o is reachable.
func (c *Core) touchLeavesOf(o *origin) {
	if l := o.node.leaf; l != nil {
		c.touchLeaf(l)
	}
	for _, f := range o.frags {
		for _, a := range f.Leaves {
			if n := c.nodes[a.Leaf]; n != nil && n.leaf != nil {
				c.touchLeaf(n.leaf)
			}
		}
	}
}

// settleLeaves finds out which of the touched leaves are reachable now. An id
// that a reachable router has is that router's (docs/protocol-routing.md
// section 5.7).
func (c *Core) settleLeaves() {
	slices.SortFunc(c.touched, func(a, b *leaf) int { return byLeaf(a, b.node.id) })
	for _, l := range c.touched {
		l.touched = false
		if l.node.leaf != l {
			continue // forgotten meanwhile
		}
		i := slices.IndexFunc(l.homes, func(h home) bool { return h.origin.reachable })
		shadowed := i >= 0 && l.node.origin != nil && l.node.origin.reachable
		if shadowed && !l.shadowed {
			c.tell(&c.told.duplicate, DuplicateID{ID: l.node.id, From: l.homes[i].origin.node.id})
		}
		l.shadowed = shadowed
		up := i >= 0 && !shadowed
		if up == l.reachable {
			continue
		}
		l.reachable, l.since = up, c.now
		if up {
			c.events = append(c.events, NodeUp{Node: l.node.id, Leaf: true})
		} else {
			c.events = append(c.events, NodeDown{Node: l.node.id, Leaf: true})
		}
	}
	c.touched = c.touched[:0]
}

// AddLeaf says that a leaf is attached to this node; again for the same leaf,
// that its cost or signature changed. An invalid attachment is told as
// EntryRefused.
func (c *Core) AddLeaf(now time.Time, a Attachment) {
	c.tick(now)
	if err := a.validate(c.cfg.Self); err != nil {
		c.tell(&c.told.entry, EntryRefused{Err: err})
		return
	}
	a.Sig = slices.Clone(a.Sig)
	if old, ok := c.attached[a.Leaf]; ok {
		c.removeHome(a.Leaf, c.self, old.Cost)
	}
	c.attached[a.Leaf] = a
	c.addHome(a.Leaf, c.self, a.Cost)
	c.changed = true
}

// RemoveLeaf says that a leaf is no longer attached to this node. Tables
// change at once. An unknown leaf is ignored.
func (c *Core) RemoveLeaf(now time.Time, id NodeID) {
	c.tick(now)
	old, ok := c.attached[id]
	if !ok {
		return
	}
	delete(c.attached, id)
	c.removeHome(id, c.self, old.Cost)
	c.changed = true
	c.computeAt = c.now
}
