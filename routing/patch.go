package routing

import (
	"cmp"
	"slices"
)

// change is a link that is new, gone or of another cost. A cost of 0 is none.
type change struct {
	a, b          int32
	before, after Cost
}

// patched returns the graph in which the links of the routers in moved are as
// they are now, what differs from before, and whether other routers drain. It
// is nil where making the graph anew is less work. The set of routers must be the same.
func (c *Core) patched(before *graph) (g *graph, changes []change, draining bool) {
	next := *before
	next.arcs = slices.Clone(before.arcs)
	left := len(before.ids) + 2*before.links // ends to look at
	for _, o := range c.moved {
		n := o.node.rank
		if d := c.drains(o); d != next.draining[n] {
			if !draining {
				next.draining, draining = slices.Clone(next.draining), true
			}
			next.draining[n] = d
		}
		arcs, ok := c.arcsOf(o, &left)
		if !ok {
			return nil, nil, false
		}
		first := len(changes)
		changes = differences(changes, n, next.arcs[n], arcs)
		next.arcs[n] = arcs
		for _, d := range changes[first:] {
			next.arcs[d.b] = with(next.arcs[d.b], arc{n, d.after})
			switch {
			case d.before == 0:
				next.links++
			case d.after == 0:
				next.links--
			}
		}
	}
	return &next, changes, draining
}

// arcsOf returns the links of o that the other ends name as well, by target. It
// gives up when more ends have to be looked at than are left.
func (c *Core) arcsOf(o *origin, left *int) ([]arc, bool) {
	var arcs []arc
	for e := range c.ends(o) {
		*left--
		if e.node.rank < 0 {
			continue
		}
		cost := Cost(0)
		for back := range c.ends(e.node.origin) {
			if *left--; back.node == o.node {
				cost = max(cost, back.cost)
			}
		}
		if *left < 0 {
			return nil, false
		}
		if cost > 0 {
			arcs = append(arcs, arc{e.node.rank, max(cost, e.cost)})
		}
	}
	// Of a link that was named several times the highest cost counts.
	slices.SortFunc(arcs, func(a, b arc) int { return cmp.Or(cmp.Compare(a.to, b.to), cmp.Compare(b.cost, a.cost)) })
	return slices.CompactFunc(arcs, func(a, b arc) bool { return a.to == b.to }), true
}

// differences appends what differs between the arcs of n before and after.
func differences(changes []change, n int32, before, after []arc) []change {
	for len(before) > 0 || len(after) > 0 {
		switch {
		case len(after) == 0 || len(before) > 0 && before[0].to < after[0].to:
			changes = append(changes, change{n, before[0].to, before[0].cost, 0})
			before = before[1:]
		case len(before) == 0 || after[0].to < before[0].to:
			changes = append(changes, change{n, after[0].to, 0, after[0].cost})
			after = after[1:]
		default:
			if before[0].cost != after[0].cost {
				changes = append(changes, change{n, after[0].to, before[0].cost, after[0].cost})
			}
			before, after = before[1:], after[1:]
		}
	}
	return changes
}

// with returns a copy of the arcs in which the one to a's target is a, or is
// missing where a costs nothing.
func with(arcs []arc, a arc) []arc {
	i, found := slices.BinarySearchFunc(arcs, a.to, func(x arc, to int32) int { return cmp.Compare(x.to, to) })
	after := arcs[i:]
	if found {
		after = arcs[i+1:]
	}
	if a.cost == 0 {
		return slices.Concat(arcs[:i], after)
	}
	return slices.Concat(arcs[:i], []arc{a}, after)
}

// hold tells whether the paths are those of g as well, which differs by the
// changes from the graph that they were found in: none of the links that
// they take has changed, and none is as short now as what they take instead.
func (p *paths) hold(g *graph, changes []change) bool {
	takes := func(u, v int32, cost Cost, shorter bool) bool {
		if cost == 0 || p.dist[u] == unreachable {
			return false
		}
		d := p.dist[u] + uint64(cost)
		if u != g.self && g.draining[u] {
			d += detour
		}
		return d == p.dist[v] || shorter && d < p.dist[v]
	}
	for _, x := range changes {
		if takes(x.a, x.b, x.before, false) || takes(x.b, x.a, x.before, false) ||
			takes(x.a, x.b, x.after, true) || takes(x.b, x.a, x.after, true) {
			return false
		}
	}
	return true
}
