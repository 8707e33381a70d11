package routing

import (
	"iter"
	"math"
	"slices"
)

const (
	// unreachable is the distance of what no path leads to.
	unreachable = math.MaxUint64
	// detour is added for each draining node in the middle of a path. It is
	// more than any path costs, so such a node is passed only where there is
	// no other way; dist % detour is the cost of the links alone.
	detour = 1 << 46
	// maxGraph is how many routers there may be so that neither the links of
	// a path reach detour nor a path of detours overflows.
	maxGraph = 1 << 16
)

// graph is what the database says of routers and the links between them. Nodes
// are numbers, in the order of their ids; a link is two arcs of equal cost. It
// never changes once made.
type graph struct {
	ids      []NodeID
	origins  []*origin // for the core only
	draining []bool
	self     int32
	arcs     [][]arc // of each node, by target
	links    int     // half of all arcs
}

type arc struct {
	to   int32
	cost Cost
}

func (g *graph) from(n int32) []arc { return g.arcs[n] }

// newGraph makes the graph of the links that both ends advertise, at the
// higher of the two costs.
func (c *Core) newGraph() *graph {
	g := &graph{
		ids:     make([]NodeID, 0, len(c.origins)),
		origins: make([]*origin, 0, len(c.origins)),
	}
	for _, o := range c.origins {
		if o.dropped {
			continue
		}
		o.node.rank = int32(len(g.ids))
		g.ids = append(g.ids, o.node.id)
		g.origins = append(g.origins, o)
	}
	g.self = c.self.node.rank
	g.draining = make([]bool, len(g.ids))
	// Turning the arcs round sorts them: twice gives both directions by node.
	in := c.said(g).reversed()
	both := in.reversed().both(in)
	g.links = len(both.arcs) / 2
	g.arcs = make([][]arc, len(g.ids))
	for n := range g.arcs {
		g.arcs[n] = both.from(n)
	}
	return g
}

// said returns what each node says of its links.
func (c *Core) said(g *graph) arcSet {
	s := arcSet{first: make([]int32, 0, len(g.ids)+1)}
	if c.graph != nil {
		s.arcs = make([]arc, 0, 2*c.graph.links+256) // seldom many more than the last time
	}
	for n, o := range g.origins {
		s.first = append(s.first, int32(len(s.arcs)))
		g.draining[n] = c.drains(o)
		for e := range c.ends(o) {
			if e.node.rank >= 0 {
				s.arcs = append(s.arcs, arc{e.node.rank, e.cost})
			}
		}
	}
	s.first = append(s.first, int32(len(s.arcs)))
	return s
}

// ends are the links that o names. Of its own this node knows better than its
// adverts, which may be held back.
func (c *Core) ends(o *origin) iter.Seq[end] {
	return func(yield func(end) bool) {
		if o == c.self {
			for _, l := range c.links {
				if p := c.nodes[l.peer]; p != nil && !yield(end{p, l.cost}) {
					return
				}
			}
			return
		}
		for _, f := range o.frags {
			for _, e := range f.ends {
				if !yield(e) {
					return
				}
			}
		}
	}
}

// drains tells whether o says that it is about to go. Of this node it does not matter.
func (c *Core) drains(o *origin) bool {
	return o != c.self && len(o.frags) > 0 && o.frags[0].Fragment == 0 && o.frags[0].Draining
}

// arcSet is a set of arcs: node n has arcs[first[n]:first[n+1]].
type arcSet struct {
	first []int32
	arcs  []arc
}

func (s arcSet) from(n int) []arc { return s.arcs[s.first[n]:s.first[n+1]:s.first[n+1]] }

// reversed returns the set with each arc turned round; the arcs of each node
// are sorted by their target.
func (s arcSet) reversed() arcSet {
	nodes := len(s.first) - 1
	r := arcSet{first: make([]int32, nodes+1), arcs: make([]arc, len(s.arcs))}
	for _, a := range s.arcs {
		r.first[a.to+1]++
	}
	for n := range nodes {
		r.first[n+1] += r.first[n]
	}
	next := slices.Clone(r.first)
	for n := range nodes {
		for _, a := range s.from(n) {
			r.arcs[next[a.to]] = arc{int32(n), a.cost}
			next[a.to]++
		}
	}
	return r
}

// both keeps the arcs that are in the set in both directions, at their highest
// cost. Both s and its reverse are sorted; an arc that an origin named
// several times is merged.
func (s arcSet) both(reverse arcSet) arcSet {
	first := make([]int32, len(s.first))
	arcs := make([]arc, 0, len(s.arcs))
	for n := range len(s.first) - 1 {
		out, in := s.from(n), reverse.from(n)
		for len(out) > 0 && len(in) > 0 {
			to := min(out[0].to, in[0].to)
			cost, counts := Cost(0), out[0].to == in[0].to
			for ; len(out) > 0 && out[0].to == to; out = out[1:] {
				cost = max(cost, out[0].cost)
			}
			for ; len(in) > 0 && in[0].to == to; in = in[1:] {
				cost = max(cost, in[0].cost)
			}
			if counts {
				arcs = append(arcs, arc{to, cost})
			}
		}
		first[n+1] = int32(len(arcs))
	}
	return arcSet{first, arcs}
}
