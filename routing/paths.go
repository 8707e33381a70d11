package routing

import "slices"

// paths are the shortest paths from the graph's self to every node.
type paths struct {
	dist []uint64 // with detours; unreachable where there is no path
	// hops says with which set of neighbours the shortest paths to a node
	// begin. Few of the sets differ, so they are numbered.
	hops []int32
	sets [][]int32 // sorted; set 0 is empty
}

// start is where a search begins, and at what distance.
type start struct {
	node int32
	dist uint64
	end  bool // it is an end of the path, not in its middle
}

// search finds the shortest distance of each node from the nearest of starts
// (Dijkstra). Links cost the same both ways, so it may begin at either end of
// a path. Nodes in skip are passed by. visit, unless nil, sees each node with its final
// distance and ends the search by returning false. relax, unless nil, sees
// each arc that leads to v on a path through u that is shorter than the ones
// before, or as short.
func (g *graph) search(starts []start, skip []bool, visit func(n int32, dist uint64) bool, relax func(u, v int32, shorter bool)) []uint64 {
	dist := make([]uint64, len(g.ids))
	for i := range dist {
		dist[i] = unreachable
	}
	q := make(queue, 0, 64)
	end := int32(-1)
	for _, s := range starts {
		if s.dist < dist[s.node] {
			dist[s.node] = s.dist
			q.push(reached{s.dist, s.node})
		}
		if s.end {
			end = s.node
		}
	}
	for len(q) > 0 {
		at := q.pop()
		u := at.node
		if at.dist != dist[u] {
			continue // a shorter path was found after this was queued
		}
		if visit != nil && !visit(u, at.dist) {
			break
		}
		through := at.dist
		if u != end && g.draining[u] {
			through += detour
		}
		for _, a := range g.from(u) {
			d := through + uint64(a.cost)
			if d > dist[a.to] || skip != nil && skip[a.to] {
				continue
			}
			shorter := d < dist[a.to]
			if shorter {
				dist[a.to] = d
				q.push(reached{d, a.to})
			}
			if relax != nil {
				relax(u, a.to, shorter)
			}
		}
	}
	return dist
}

// paths finds the shortest paths from self.
func (g *graph) paths() *paths {
	p := &paths{hops: make([]int32, len(g.ids)), sets: [][]int32{nil}}
	single := make(map[int32]int32) // the set of one neighbour
	for _, a := range g.from(g.self) {
		single[a.to] = int32(len(p.sets))
		p.sets = append(p.sets, []int32{a.to})
	}
	unions := make(map[[2]int32]int32)
	p.dist = g.search([]start{{node: g.self, end: true}}, nil, nil, func(u, v int32, shorter bool) {
		hops := p.hops[u]
		if u == g.self {
			hops = single[v]
		}
		if !shorter && p.hops[v] != hops {
			hops = p.union(unions, p.hops[v], hops)
		}
		p.hops[v] = hops
	})
	return p
}

func (p *paths) union(known map[[2]int32]int32, a, b int32) int32 {
	key := [2]int32{min(a, b), max(a, b)}
	if u, ok := known[key]; ok {
		return u
	}
	set := slices.Concat(p.sets[a], p.sets[b])
	slices.Sort(set)
	set = slices.Clip(slices.Compact(set))
	u := int32(len(p.sets))
	switch len(set) {
	case len(p.sets[a]):
		u = a // b is part of it
	case len(p.sets[b]):
		u = b
	default:
		p.sets = append(p.sets, set)
	}
	known[key] = u
	return u
}

// reached is a node and the distance at which the search has come to it.
type reached struct {
	dist uint64
	node int32
}

// queue is a heap with four children a node, the nearest first.
type queue []reached

func (q *queue) push(r reached) {
	h := append(*q, r)
	i := len(h) - 1
	for i > 0 {
		parent := (i - 1) / 4
		if h[parent].dist <= r.dist {
			break
		}
		h[i] = h[parent]
		i = parent
	}
	h[i] = r
	*q = h
}

func (q *queue) pop() reached {
	h := *q
	top, last := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	*q = h
	if len(h) == 0 {
		return top
	}
	i := 0
	for {
		least, child := -1, 4*i+1
		for c := child; c < min(child+4, len(h)); c++ {
			if least < 0 || h[c].dist < h[least].dist {
				least = c
			}
		}
		if least < 0 || h[least].dist >= last.dist {
			break
		}
		h[i] = h[least]
		i = least
	}
	h[i] = last
	return top
}
