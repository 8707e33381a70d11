package routing

import (
	"slices"
	"strings"
	"time"
)

// NodeInfo is what is known of one node.
type NodeInfo struct {
	ID        NodeID
	Leaf      bool
	Reachable bool
	Since     time.Time // it is reachable, or not; in the time of the Core's caller
	Cost      uint64    // of the cheapest path; 0 if unreachable
	NextHops  []NodeID  // as from Table.NextHops

	// Of a router, as it said last.
	Epoch     uint64
	Draining  bool
	Insecure  bool       // of a leaf: one of its homes is, and so is it
	Services  []Service  // sorted by name
	WorkTypes []WorkType // sorted by name
	// Links are those that both ends advertise, with the cost that counts,
	// sorted by id. They are told of unreachable routers too, as it was.
	Links []Adjacency

	// Homes are the routers that say a leaf is attached to them, sorted by id.
	Homes []Adjacency
}

// Nodes returns everything that is known, this node included, sorted by id.
func (t *Table) Nodes() []NodeInfo {
	infos := make([]NodeInfo, 0, len(t.routers)+len(t.leaves))
	for i, id := range t.graph.ids {
		if _, l := t.find(id); l == nil {
			infos = append(infos, t.routerInfo(int32(i)))
		}
	}
	for i := range t.leaves {
		if _, l := t.find(t.leaves[i].id); l != nil {
			infos = append(infos, t.leafInfo(l))
		}
	}
	slices.SortFunc(infos, func(a, b NodeInfo) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return infos
}

// Node returns what is known of one node, and whether anything is.
func (t *Table) Node(id NodeID) (NodeInfo, bool) {
	n, l := t.find(id)
	switch {
	case n >= 0:
		return t.routerInfo(n), true
	case l != nil:
		return t.leafInfo(l), true
	}
	return NodeInfo{}, false
}

func (t *Table) routerInfo(n int32) NodeInfo {
	r := t.routers[n]
	info := NodeInfo{
		ID:        t.graph.ids[n],
		Reachable: t.reachable(n),
		Since:     r.since,
		NextHops:  t.hops[t.paths.hops[n]],
	}
	if info.Reachable {
		info.Cost = t.paths.dist[n] % detour
	}
	for _, f := range r.frags {
		info.Epoch = f.Epoch
		if f.Fragment == 0 {
			info.Draining, info.Insecure = f.Draining, f.Insecure
		}
		info.Services = append(info.Services, f.Services...)
		info.WorkTypes = append(info.WorkTypes, f.WorkTypes...)
	}
	slices.SortStableFunc(info.Services, func(a, b Service) int { return strings.Compare(a.Name, b.Name) })
	slices.SortStableFunc(info.WorkTypes, func(a, b WorkType) int { return strings.Compare(a.Name, b.Name) })
	for _, a := range t.graph.from(n) {
		info.Links = append(info.Links, Adjacency{To: t.graph.ids[a.to], Cost: a.cost})
	}
	return info
}

func (t *Table) leafInfo(l *leafView) NodeInfo {
	info := NodeInfo{ID: l.id, Leaf: true, Reachable: l.reachable, Since: l.since, NextHops: t.NextHops(l.id)}
	info.Cost, _ = t.Cost(l.id)
	for _, h := range l.homes {
		info.Homes = append(info.Homes, Adjacency{To: t.graph.ids[h.rank], Cost: h.cost})
		for _, f := range t.routers[h.rank].frags {
			info.Insecure = info.Insecure || f.Fragment == 0 && f.Insecure
		}
	}
	return info
}
