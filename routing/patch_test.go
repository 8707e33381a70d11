package routing

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// checkComputed compares what a core has computed, from one change to the next,
// with what comes of its database as a whole.
func checkComputed(t testing.TB, c *Core) {
	t.Helper()
	var hash Hash
	for _, o := range c.origins {
		for _, f := range o.frags {
			if o.reachable {
				hash += hashStamp(f.Stamp())
			}
		}
	}
	if hash != c.hash {
		t.Errorf("node %s: its hash is %x, the sum of its stamps %x", c.cfg.Self, c.hash, hash)
	}
	if c.stale {
		return
	}
	g := c.newGraph()
	if !slices.Equal(g.ids, c.graph.ids) || !slices.Equal(g.draining, c.graph.draining) || g.links != c.graph.links ||
		!slices.EqualFunc(g.arcs, c.graph.arcs, slices.Equal[[]arc]) {
		t.Errorf("node %s: the graph is\n%+v\nwant\n%+v", c.cfg.Self, c.graph, g)
	}
	p := g.paths()
	if !slices.Equal(p.dist, c.paths.dist) {
		t.Errorf("node %s: distances %v, want %v", c.cfg.Self, c.paths.dist, p.dist)
	}
	for n := range g.ids {
		if got, want := c.paths.sets[c.paths.hops[n]], p.sets[p.hops[n]]; !slices.Equal(got, want) {
			t.Errorf("node %s: first hops %v to %s, want %v", c.cfg.Self, got, g.ids[n], want)
		}
	}
}

// TestPatched changes links of a mesh one after the other; the graph is made
// anew for none of them, and paths that do not take the link stay as they are.
func TestPatched(t *testing.T) {
	t.Parallel()
	const routers = 40
	name := func(i int) NodeID { return NodeID(fmt.Sprintf("n%02d", i)) }
	rng := rand.New(rand.NewPCG(1, 1))
	links := make([][]Adjacency, routers)
	join := func(i, j int, cost Cost) {
		links[i] = append(links[i], Adjacency{name(j), cost})
		links[j] = append(links[j], Adjacency{name(i), cost})
	}
	for i := range routers {
		join(i, (i+1)%routers, 1000)
		join(i, (i+2+rng.IntN(routers-4))%routers, Cost(1000*(1+rng.IntN(3))))
	}
	now := epoch0
	c := New(Config{Self: name(0)}, now)
	for _, l := range links[0] {
		c.AddLink(now, l.To, l.Cost)
	}
	seq := uint64(0)
	tell := func(i int, draining bool) {
		seq++
		a := &Advert{Key: Key{name(i), 0}, Version: Version{1, seq}, Links: links[i], Draining: draining}
		if err := c.Receive(now, links[0][0].To, a); err != nil {
			t.Fatal(err)
		}
		ackAll(t, c, now, c.TakeSends())
		now = now.Add(time.Second)
		c.Advance(now)
		ackAll(t, c, now, c.TakeSends())
		checkComputed(t, c)
	}
	for i := 1; i < routers; i++ {
		tell(i, false)
	}
	patched, held := 0, 0
	for range 400 {
		i := 1 + rng.IntN(routers-1)
		k := rng.IntN(len(links[i]))
		old := links[i]
		links[i] = slices.Clone(old)
		switch rng.IntN(3) {
		case 0:
			links[i] = slices.Delete(links[i], k, k+1)
		case 1:
			links[i] = append(links[i], Adjacency{name(0), 500}) // which does not name it
		default:
			links[i][k].Cost = Cost(500 * (1 + rng.IntN(8)))
		}
		ids, before := c.graph.ids, c.paths
		tell(i, rng.IntN(8) == 0)
		if &ids[0] == &c.graph.ids[0] {
			patched++
		}
		if c.paths == before {
			held++
		}
		links[i] = old
		tell(i, false)
	}
	if patched < 400 || held < 100 {
		t.Errorf("of 400 changes %d patched the graph and %d held the paths", patched, held)
	}
}
