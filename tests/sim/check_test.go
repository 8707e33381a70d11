package sim

import (
	"fmt"
	"slices"

	"github.com/ranvier-mesh/ranvier/routing"
)

// truth is what is so, against which tables are held.
type truth struct {
	group map[*node]int                          // which routers are connected, by number
	links map[routing.NodeID][]routing.Adjacency // between routers that live, sorted
	homes map[routing.NodeID][]*node             // of leaves
}

func (w *world) truth() *truth {
	t := &truth{group: map[*node]int{}, links: map[routing.NodeID][]routing.Adjacency{}, homes: map[routing.NodeID][]*node{}}
	for _, e := range w.edges {
		c := e.conn
		if c == nil || !c.open[0] || !c.open[1] {
			continue
		}
		if a, b := e.ends[0], e.ends[1]; a.leaf {
			t.homes[a.id] = append(t.homes[a.id], b)
		} else {
			t.links[a.id] = append(t.links[a.id], routing.Adjacency{To: b.id, Cost: e.cost})
			t.links[b.id] = append(t.links[b.id], routing.Adjacency{To: a.id, Cost: e.cost})
		}
	}
	for _, links := range t.links {
		slices.SortFunc(links, func(a, b routing.Adjacency) int {
			return routing.Key{Origin: a.To}.Compare(routing.Key{Origin: b.To})
		})
	}
	for i, n := range w.nodes {
		if n.leaf || !n.alive || t.group[n] != 0 {
			continue
		}
		t.group[n] = i + 1
		for todo := []*node{n}; len(todo) > 0; {
			at := todo[0]
			todo = todo[1:]
			for _, l := range t.links[at.id] {
				if peer := w.byID[l.To]; t.group[peer] == 0 {
					t.group[peer] = i + 1
					todo = append(todo, peer)
				}
			}
		}
	}
	return t
}

// reachable tells whether from can reach to.
func (t *truth) reachable(from, to *node) bool {
	if !to.leaf {
		return to.alive && t.group[from] == t.group[to]
	}
	return slices.ContainsFunc(t.homes[to.id], func(h *node) bool { return t.group[h] == t.group[from] })
}

// checkQuiet checks what holds when nothing has happened for a while: routers
// that are connected have the same database, which is the truth; next hops lead to
// all that can be reached, to nothing else, and nowhere in a circle.
func (w *world) checkQuiet() {
	w.t.Helper()
	t := w.truth()
	for _, e := range w.edges {
		if live := e.ends[0].alive && e.ends[1].alive && !e.severed; live != (e.conn != nil && e.conn.open[0] && e.conn.open[1]) {
			w.t.Errorf("%v: the link %s-%s: live %v, but the connection is %+v", w.now, e.ends[0].id, e.ends[1].id, live, e.conn)
			return
		}
	}
	hashes := map[int]routing.Hash{}
	tables := map[routing.NodeID]*routing.Table{}
	for _, n := range w.nodes {
		if n.core == nil {
			continue
		}
		h := n.core.Hash()
		if first, ok := hashes[t.group[n]]; ok && h != first {
			w.t.Errorf("%v: the database of %s has hash %x, others of its part of the mesh %x", w.now, n.id, h, first)
			return
		}
		hashes[t.group[n]] = h
		tables[n.id] = n.core.Table()
		if err := w.checkTable(t, n, tables[n.id]); err != nil {
			w.t.Errorf("%v: at %s: %v", w.now, n.id, err)
			return
		}
	}
	for i, dest := range w.nodes {
		if dest.leaf && i%97 != 0 {
			continue // a leaf is where its home is
		}
		if err := w.checkWays(t, tables, dest); err != nil {
			w.t.Errorf("%v: ways to %s: %v", w.now, dest.id, err)
			return
		}
	}
}

// checkTable compares what a node knows with the truth.
func (w *world) checkTable(t *truth, n *node, table *routing.Table) error {
	known := 0
	for _, info := range table.Nodes() {
		is := w.byID[info.ID]
		up := t.reachable(n, is)
		if info.Reachable != up {
			return fmt.Errorf("%s is shown as reachable: %v; it is: %v (alive %v)", info.ID, info.Reachable, up, is.alive)
		}
		if !up {
			continue
		}
		known++
		switch {
		case info.Leaf != is.leaf:
			return fmt.Errorf("%s is shown as a leaf: %v", info.ID, info.Leaf)
		case is.leaf && !sameHomes(info.Homes, t, n, is):
			return fmt.Errorf("leaf %s has the homes %v", info.ID, info.Homes)
		case !is.leaf && !slices.Equal(info.Links, t.links[info.ID]):
			return fmt.Errorf("%s has the links %v, not %v", info.ID, info.Links, t.links[info.ID])
		case !is.leaf && (info.Draining != is.local.Draining || len(info.Services) != len(is.local.Services) || info.Epoch != is.epoch):
			return fmt.Errorf("%s is shown as %+v, it has epoch %d and says %+v", info.ID, info, is.epoch, is.local)
		}
	}
	want := 0
	for _, is := range w.nodes {
		if t.reachable(n, is) {
			want++
		}
	}
	if known != want {
		return fmt.Errorf("%d nodes are reachable, %d should be", known, want)
	}
	return nil
}

// sameHomes compares the homes that can be reached: what others said last is
// still known, and does no harm.
func sameHomes(shown []routing.Adjacency, t *truth, at, leaf *node) bool {
	want := map[routing.NodeID]bool{}
	for _, h := range t.homes[leaf.id] {
		if t.group[h] == t.group[at] {
			want[h.id] = true
		}
	}
	for _, h := range shown {
		delete(want, h.To)
	}
	return len(want) == 0
}

// checkWays follows all next hops to dest at once: they may not lead in a circle
// nor to where there is none.
func (w *world) checkWays(t *truth, tables map[routing.NodeID]*routing.Table, dest *node) error {
	const unseen, onWay, fine = 0, 1, 2
	state := map[routing.NodeID]int{dest.id: fine}
	var walk func(n *node) error
	walk = func(n *node) error {
		hops := tables[n.id].NextHops(dest.id)
		if reachable := t.reachable(n, dest); reachable != (len(hops) > 0) {
			return fmt.Errorf("%s has the next hops %v; it is reachable: %v", n.id, hops, reachable)
		}
		state[n.id] = onWay
		for _, id := range hops {
			hop := w.byID[id]
			switch {
			case n.conns[id] == nil:
				return fmt.Errorf("the next hop of %s is %s, to which it has no link", n.id, id)
			case state[id] == onWay:
				return fmt.Errorf("a loop through %s and %s", n.id, id)
			case state[id] == unseen:
				if err := walk(hop); err != nil {
					return err
				}
			}
		}
		state[n.id] = fine
		return nil
	}
	for _, n := range w.nodes {
		if n.core != nil && state[n.id] == unseen {
			if err := walk(n); err != nil {
				return err
			}
		}
	}
	return nil
}
