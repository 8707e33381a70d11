package routing

import (
	"slices"
	"strings"
	"time"
)

// Table is which way leads to each node, and all that is known of them, at one
// moment. It never changes and may be used by any number of goroutines. What
// its methods return is shared and must not be changed.
type Table struct {
	graph   *graph
	paths   *paths
	hops    [][]NodeID // by set
	routers []router   // as in graph
	leaves  []leafView // sorted by id
}

type router struct {
	frags []fragment
	since time.Time
}

type leafView struct {
	id        NodeID
	homes     []homeView
	reachable bool
	since     time.Time
}

type homeView struct {
	rank int32
	cost Cost
}

// Table returns the table of now. It is the same pointer for as long as
// nothing that it shows has changed; changes that come in quick succession
// appear together.
func (c *Core) Table() *Table {
	c.settle()
	if c.table != nil {
		return c.table
	}
	c.sortLeaves()
	t := &Table{
		graph:   c.graph,
		paths:   c.paths,
		hops:    make([][]NodeID, len(c.paths.sets)),
		routers: make([]router, len(c.graph.ids)),
		leaves:  make([]leafView, 0, len(c.leaves)),
	}
	for i, set := range c.paths.sets {
		for _, n := range set {
			t.hops[i] = append(t.hops[i], c.graph.ids[n])
		}
	}
	for i, o := range c.graph.origins {
		t.routers[i] = router{frags: o.frags, since: o.since}
	}
	for _, l := range c.leaves {
		v := leafView{id: l.node.id, since: l.since}
		for _, h := range l.homes {
			if rank := h.origin.node.rank; rank >= 0 {
				v.homes = append(v.homes, homeView{rank, h.cost})
				v.reachable = v.reachable || t.reachable(rank)
			}
		}
		if rank := l.node.rank; rank >= 0 && t.reachable(rank) {
			v.reachable = false // the id is that router's
		}
		t.leaves = append(t.leaves, v)
	}
	c.table = t
	return t
}

func (t *Table) reachable(n int32) bool { return t.paths.dist[n] != unreachable }

// Self returns the id of the node whose table this is.
func (t *Table) Self() NodeID { return t.graph.ids[t.graph.self] }

// find returns the number of the router with the id, or the leaf with it, or
// neither. An id that a reachable router has is that router's.
func (t *Table) find(id NodeID) (int32, *leafView) {
	i, isRouter := slices.BinarySearch(t.graph.ids, id)
	if isRouter && t.reachable(int32(i)) {
		return int32(i), nil
	}
	j, isLeaf := slices.BinarySearchFunc(t.leaves, id, func(l leafView, id NodeID) int {
		return strings.Compare(string(l.id), string(id))
	})
	if isLeaf && (t.leaves[j].reachable || !isRouter) {
		return -1, &t.leaves[j]
	}
	if isRouter {
		return int32(i), nil
	}
	return -1, nil
}

// Draining returns the reachable routers that are about to go, sorted, without
// this one.
func (t *Table) Draining() []NodeID {
	var ids []NodeID
	for i, draining := range t.graph.draining {
		if draining && t.reachable(int32(i)) {
			ids = append(ids, t.graph.ids[i])
		}
	}
	return ids
}

// NextHops returns the neighbours with which the cheapest paths to dest begin,
// sorted; all of them cost the same. It is nil when there is no path, and for this
// node itself. For a leaf that is attached to this node it is the leaf.
func (t *Table) NextHops(dest NodeID) []NodeID {
	n, l := t.find(dest)
	switch {
	case n >= 0:
		return t.hops[t.paths.hops[n]]
	case l == nil:
		return nil
	}
	best, _ := t.leafDist(l)
	var hops []NodeID
	for _, h := range l.homes {
		if t.through(h) != best || best == unreachable {
			continue
		}
		if h.rank == t.graph.self {
			hops = append(hops, dest)
		} else {
			hops = append(hops, t.hops[t.paths.hops[h.rank]]...)
		}
	}
	slices.Sort(hops)
	return slices.Compact(hops)
}

// through is the distance to a leaf through one of its homes.
func (t *Table) through(h homeView) uint64 {
	d := t.paths.dist[h.rank]
	if d == unreachable {
		return d
	}
	if h.rank != t.graph.self && t.graph.draining[h.rank] {
		d += detour
	}
	return d + uint64(h.cost)
}

func (t *Table) leafDist(l *leafView) (uint64, bool) {
	best := uint64(unreachable)
	for _, h := range l.homes {
		best = min(best, t.through(h))
	}
	return best, best != unreachable
}

// Cost returns the sum of the costs of the links on the cheapest path to dest,
// and whether there is one.
func (t *Table) Cost(dest NodeID) (uint64, bool) {
	d := uint64(unreachable)
	if n, l := t.find(dest); n >= 0 {
		d = t.paths.dist[n]
	} else if l != nil {
		d, _ = t.leafDist(l)
	}
	if d == unreachable {
		return 0, false
	}
	return d % detour, true
}

// Route returns all neighbours through which dest can be reached without
// passing this node again or a node for which avoid (which may be nil) is true,
// the cheapest first and those of equal cost by id. A draining node is passed
// where there is no other way. It is nil when there is no path, when dest
// itself is avoided, and for this node itself. The first best of them cost the same.
func (t *Table) Route(dest NodeID, avoid func(NodeID) bool) (hops []NodeID, best int) {
	if avoid == nil {
		avoid = func(NodeID) bool { return false }
	}
	n, l := t.find(dest)
	if n == t.graph.self || n < 0 && l == nil || avoid(dest) {
		return nil, 0
	}
	skip := make([]bool, len(t.graph.ids))
	for i, id := range t.graph.ids {
		skip[i] = avoid(id)
	}
	skip[t.graph.self] = true

	var ways []way
	var starts []start
	if n >= 0 {
		starts = []start{{node: n, end: true}}
	} else {
		for _, h := range l.homes {
			if h.rank == t.graph.self {
				ways = append(ways, way{uint64(h.cost), dest})
			} else if !skip[h.rank] {
				starts = append(starts, start{node: h.rank, dist: uint64(h.cost)})
			}
		}
	}
	ways = append(ways, t.waysTo(n, starts, skip)...)
	slices.SortFunc(ways, way.compare)
	for _, w := range ways {
		if slices.Contains(hops, w.hop) {
			continue
		}
		hops = append(hops, w.hop)
		if w.dist == ways[0].dist {
			best++
		}
	}
	return hops, best
}

// way is a first hop and what the path costs that begins with it.
type way struct {
	dist uint64
	hop  NodeID
}

func (w way) compare(o way) int {
	switch {
	case w.dist < o.dist:
		return -1
	case w.dist > o.dist:
		return 1
	}
	return strings.Compare(string(w.hop), string(o.hop))
}

// waysTo searches from the destination until all usable neighbours are found.
// dest is -1 for a leaf.
func (t *Table) waysTo(dest int32, starts []start, skip []bool) []way {
	g := t.graph
	left := make(map[int32]Cost)
	for _, a := range g.from(g.self) {
		if !skip[a.to] {
			left[a.to] = a.cost
		}
	}
	var ways []way
	g.search(starts, skip, func(n int32, dist uint64) bool {
		cost, ok := left[n]
		if !ok {
			return true
		}
		delete(left, n)
		dist += uint64(cost)
		if n != dest && g.draining[n] {
			dist += detour
		}
		ways = append(ways, way{dist, g.ids[n]})
		return len(left) > 0
	}, nil)
	return ways
}

// Known returns at most limit ids of reachable nodes, this one included, sorted:
// for people who asked for a node that does not exist.
func (t *Table) Known(limit int) []NodeID {
	var ids []NodeID
	for i, id := range t.graph.ids {
		if t.reachable(int32(i)) {
			ids = append(ids, id)
		}
	}
	for _, l := range t.leaves {
		if l.reachable {
			ids = append(ids, l.id)
		}
	}
	slices.Sort(ids)
	return ids[:min(max(limit, 0), len(ids))]
}
