package routing

import (
	"bytes"
	"container/list"
	"slices"
	"strings"
	"time"
)

// node is an id that is named in the database: as an origin, as a leaf or only
// as the far end of a link.
type node struct {
	id     NodeID
	refs   int   // links in adverts that lead to it
	rank   int32 // its place in the graph, -1 if it has none
	origin *origin
	leaf   *leaf
}

// origin is a router and what it says of itself.
//
//	        advert          computed: there is a path
//	nothing ──────► lost ────────────────────────────► reachable
//	   ▲            ▲  │ ◄────────────────────────────
//	   │ Tombstone  │  │ Expiry       no path any more
//	   │     advert │  ▼
//	   └───────── dropped
//
// All fragments are of one epoch: the first advert of a new epoch replaces
// everything that the origin said in the old one (docs/protocol-routing.md
// section 5.2).
type origin struct {
	node      *node
	epoch     uint64
	frags     []fragment // by number; replaced as a whole, because tables share it
	reachable bool
	dropped   bool
	moved     bool          // in Core.moved
	sum       Hash          // of the stamps of frags
	since     time.Time     // of its state
	queued    *list.Element // in Core.lost or Core.tombs, unless reachable
	size      int
}

// fragment is one advert as stored. A stub is what a tombstone keeps of it:
// its version.
type fragment struct {
	*Advert
	ends []end // of Advert.Links; nil while they do not count
	stub bool
}

type end struct {
	node *node
	cost Cost
}

func (o *origin) find(number uint16) (int, bool) {
	return slices.BinarySearchFunc(o.frags, number, func(f fragment, n uint16) int {
		return int(f.Fragment) - int(n)
	})
}

// compare tells whether a is older than, the same as or newer than what we
// have. Adverts of the same version whose bytes differ come from two nodes with
// one id; an arbitrary but common order makes all routers keep the same one, so
// that the other node hears of it.
func (o *origin) compare(a *Advert) int {
	if a.Epoch != o.epoch {
		return Version{Epoch: a.Epoch}.Compare(Version{Epoch: o.epoch})
	}
	i, ok := o.find(a.Fragment)
	if !ok {
		return 1
	}
	if d := a.Version.Compare(o.frags[i].Version); d != 0 || o.frags[i].stub {
		return d
	}
	return bytes.Compare(a.Raw, o.frags[i].Raw)
}

func byID(o *origin, id NodeID) int { return strings.Compare(string(o.node.id), string(id)) }

// node returns the node of id, made if need be. Who makes it sets what it is
// for and calls release when that ends.
func (c *Core) node(id NodeID) *node {
	n := c.nodes[id]
	if n == nil {
		n = &node{id: id, rank: -1}
		c.nodes[id] = n
	}
	return n
}

func (c *Core) release(n *node) {
	if n.refs == 0 && n.origin == nil && n.leaf == nil {
		delete(c.nodes, n.id)
	}
}

func (c *Core) origin(id NodeID) *origin {
	if n := c.nodes[id]; n != nil {
		return n.origin
	}
	return nil
}

// content returns the advert of k that can be sent, or nil.
func (c *Core) content(k Key) *Advert {
	o := c.origin(k.Origin)
	if o == nil {
		return nil
	}
	if i, ok := o.find(k.Fragment); ok && !o.frags[i].stub {
		return o.frags[i].Advert
	}
	return nil
}

// newOrigin adds an origin, unreachable until a path is computed.
func (c *Core) newOrigin(id NodeID) *origin {
	o := &origin{node: c.node(id), since: c.now}
	o.node.origin = o
	i, _ := slices.BinarySearchFunc(c.origins, id, byID)
	c.origins = slices.Insert(c.origins, i, o)
	o.queued = c.lost.PushBack(o)
	c.touchMembers()
	return o
}

// install stores a, which is newer than what we have of its key.
func (c *Core) install(o *origin, a *Advert) {
	if a.Epoch != o.epoch || o.dropped {
		c.strip(o, a.Epoch != o.epoch)
		o.epoch = a.Epoch
	}
	frags := slices.Clone(o.frags)
	i, ok := o.find(a.Fragment)
	if !ok {
		frags = slices.Insert(frags, i, fragment{Advert: &Advert{}, ends: []end{}})
	} else {
		c.resize(o, -frags[i].size())
		c.rehash(o, -hashStamp(frags[i].Stamp()))
	}
	old, moved := frags[i], a.Draining != frags[i].Draining
	frags[i] = fragment{Advert: a}
	if o != c.self { // our own links and leaves count as they are, told or not
		frags[i] = c.replace(o, old, a)
		moved = moved || c.counts(o, old.ends, frags[i].ends)
	}
	o.frags = frags
	c.resize(o, a.size())
	c.rehash(o, hashStamp(a.Stamp()))
	if moved {
		c.touchLinks(o)
	}
	c.touch()
}

// strip removes what an origin said in an epoch that is over, or, when it comes
// back from being dropped in the same epoch, the stubs.
func (c *Core) strip(o *origin, all bool) {
	if o.dropped {
		o.dropped, o.since = false, c.now
		c.tombs.Remove(o.queued)
		o.queued = c.lost.PushBack(o)
		c.touchMembers()
	}
	var kept []fragment
	for _, f := range o.frags {
		if !all && !f.stub {
			kept = append(kept, c.attach(o, f))
			continue
		}
		c.detach(o, f)
		c.resize(o, -f.size())
		c.rehash(o, -hashStamp(f.Stamp()))
	}
	o.frags = kept
	c.touchLinks(o)
}

// replace makes the links and leaves of a known in the place of those of old.
// Of the leaves it looks at those that differ: hubs have many, and few change.
func (c *Core) replace(o *origin, old fragment, a *Advert) fragment {
	f := fragment{Advert: a, ends: old.ends}
	if !slices.Equal(old.Links, a.Links) {
		f.ends = c.addEnds(a.Links)
		c.removeEnds(old.ends)
	}
	// A leaf that only changes its cost is never without a home meanwhile.
	forNew(old.Leaves, a.Leaves, func(l Attachment) { c.addHome(l.Leaf, o, l.Cost) })
	forNew(a.Leaves, old.Leaves, func(l Attachment) { c.removeHome(l.Leaf, o, l.Cost) })
	return f
}

// forNew calls do for what is in b and not in a. Both are sorted where they come
// from us; where they are not, do may be called for what is in both as well.
func forNew(a, b []Attachment, do func(Attachment)) {
	for _, l := range b {
		for len(a) > 0 && a[0].before(l) {
			a = a[1:]
		}
		if len(a) > 0 && a[0].Leaf == l.Leaf && a[0].Cost == l.Cost {
			a = a[1:]
			continue
		}
		do(l)
	}
}

func (l Attachment) before(o Attachment) bool {
	return l.Leaf < o.Leaf || l.Leaf == o.Leaf && l.Cost < o.Cost
}

// counts tells whether the difference between the links that o has named so far
// and those that it names now can be seen in the graph: a link that the other end
// does not name, not yet or not any more, is none.
func (c *Core) counts(o *origin, before, now []end) bool {
	differs := func(e end, others []end) bool { return !slices.Contains(others, e) && c.names(e.node, o.node) }
	return slices.ContainsFunc(now, func(e end) bool { return differs(e, before) }) ||
		slices.ContainsFunc(before, func(e end) bool { return differs(e, now) })
}

// names tells whether a names b as a neighbour. Of one that names very many it is
// taken for granted, so that nobody can make us search for long.
func (c *Core) names(a, b *node) bool {
	const many = 16 // fragments
	if a == c.self.node {
		_, ok := c.findLink(b.id)
		return ok
	}
	if a.origin == nil || len(a.origin.frags) > many {
		return a.origin != nil
	}
	return slices.ContainsFunc(a.origin.frags, func(f fragment) bool {
		return slices.ContainsFunc(f.ends, func(e end) bool { return e.node == b })
	})
}

func (c *Core) addEnds(links []Adjacency) []end {
	ends := make([]end, len(links))
	for i, l := range links {
		ends[i] = end{c.node(l.To), l.Cost}
		ends[i].node.refs++
	}
	return ends
}

func (c *Core) removeEnds(ends []end) {
	for _, e := range ends {
		e.node.refs--
		c.release(e.node)
	}
}

// attach makes the links and leaves of a stored fragment known.
func (c *Core) attach(o *origin, f fragment) fragment {
	f.ends = c.addEnds(f.Links)
	for _, l := range f.Leaves {
		c.addHome(l.Leaf, o, l.Cost)
	}
	return f
}

// detach undoes attach.
func (c *Core) detach(o *origin, f fragment) {
	if f.ends == nil {
		return
	}
	c.removeEnds(f.ends)
	for _, l := range f.Leaves {
		c.removeHome(l.Leaf, o, l.Cost)
	}
}

func (c *Core) resize(o *origin, by int) {
	o.size += by
	c.size += by
}

// rehash notes that the stamps of o add up to so much more.
func (c *Core) rehash(o *origin, by Hash) {
	o.sum += by
	if o.reachable {
		c.hash += by
	}
}

// makeRoom tells whether need more bytes, and one more origin if o is nil, fit
// into the database. It gives up tombstones, then what has been unreachable
// longest, but nothing reachable.
func (c *Core) makeRoom(o *origin, need int) bool {
	for c.size+need > c.cfg.MaxBytes || o == nil && len(c.origins) >= c.cfg.MaxOrigins {
		e := firstBut(c.tombs, o)
		if e == nil {
			e = firstBut(c.lost, o)
		}
		if e == nil {
			return false
		}
		c.remove(e.Value.(*origin))
	}
	return true
}

func firstBut(l *list.List, o *origin) *list.Element {
	e := l.Front()
	if e != nil && e.Value.(*origin) == o {
		e = e.Next()
	}
	return e
}

// setReachable moves o between the states of its comment.
func (c *Core) setReachable(o *origin, up bool) {
	o.reachable, o.since = up, c.now
	if up {
		c.hash += o.sum
		c.lost.Remove(o.queued)
		o.queued = nil
		c.events = append(c.events, NodeUp{Node: o.node.id})
	} else {
		c.hash -= o.sum
		o.queued = c.lost.PushBack(o)
		c.events = append(c.events, NodeDown{Node: o.node.id})
	}
}

// drop makes a tombstone of an unreachable origin. It keeps the versions, and
// its first advert whole: should the origin come back with numbers that it
// lost count of, that one tells it where to go on from.
func (c *Core) drop(o *origin) {
	o.dropped, o.since, o.node.rank = true, c.now, -1
	c.lost.Remove(o.queued)
	o.queued = c.tombs.PushBack(o)
	frags := slices.Clone(o.frags)
	for i, f := range frags {
		c.detach(o, f)
		frags[i].ends = nil
		if i > 0 {
			c.resize(o, -f.size())
			frags[i] = fragment{Advert: &Advert{Key: f.Key, Version: f.Version}, stub: true}
			c.resize(o, frags[i].size())
		}
	}
	o.frags = frags
	c.events = append(c.events, NodeForgotten{Node: o.node.id})
	c.touchMembers()
}

// remove forgets an origin without trace.
func (c *Core) remove(o *origin) {
	if o.dropped {
		c.tombs.Remove(o.queued)
	} else {
		c.lost.Remove(o.queued)
	}
	for _, f := range o.frags {
		c.detach(o, f)
	}
	c.resize(o, -o.size)
	i, _ := slices.BinarySearchFunc(c.origins, o.node.id, byID)
	c.origins = slices.Delete(c.origins, i, i+1)
	o.node.origin, o.node.rank = nil, -1
	c.release(o.node)
	c.touchMembers()
}
