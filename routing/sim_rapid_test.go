package routing

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestRingChangeIsFinite is about the flood that never ends: in a ring each
// advert arrives on two ways.
func TestRingChangeIsFinite(t *testing.T) {
	t.Parallel()
	s := newSim(t)
	for _, id := range []NodeID{"a", "b", "c"} {
		s.boot(id)
	}
	s.link("a", "b", 1000)
	s.link("b", "c", 1000)
	s.link("c", "a", 1000)
	s.run(time.Minute)
	if err := s.checkQuiet(); err != nil {
		t.Fatal(err)
	}
	before, adverts := s.sends, 0
	s.onSend = func(_ NodeID, m Send) {
		if _, ok := m.Msg.(*Advert); ok {
			adverts++
		}
	}
	a := s.nodes["a"]
	a.core.SetLocal(s.now, Local{Services: []Service{{Name: "x"}}})
	s.pump(a)
	s.run(24 * time.Hour)
	// a tells b and c, who acknowledge it and tell each other: 4 adverts, of
	// which the last two acknowledge one another.
	if got := s.sends - before; got != 6 || adverts != 4 {
		t.Errorf("%d messages with %d adverts for one change, want 6 with 4", got, adverts)
	}
	if _, ok := a.core.NextTimer(); ok {
		t.Error("a quiet node has a timer")
	}
}

// TestAgree lets random things happen to a random mesh with random delays, and
// checks it whenever it has become quiet.
func TestAgree(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		s := newSim(t)
		failed := ""
		s.onFault = func(at, from NodeID, err error) { failed = fmt.Sprintf("%s from %s: %v", at, from, err) }
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 1))
		s.delay = func(NodeID, NodeID) time.Duration { return time.Duration(rng.IntN(50_000)) * time.Microsecond }
		window := rapid.IntRange(1, 3).Draw(r, "window")
		s.configure = func(c *Config) { c.Window, c.Nonce = window, rng.Uint32() }

		n := rapid.IntRange(2, 8).Draw(r, "nodes")
		ids := make([]NodeID, n)
		for i := range ids {
			ids[i] = NodeID(fmt.Sprintf("n%d", i))
			s.boot(ids[i])
		}
		id := rapid.SampledFrom(ids)
		for range rapid.IntRange(1, 4).Draw(r, "rounds") {
			amnesia := false
			for range rapid.IntRange(1, 20).Draw(r, "steps") {
				a, b := id.Draw(r, "a"), id.Draw(r, "b")
				amnesia = act(r, s, a, b) == "amnesia" || amnesia
				s.run(time.Duration(rng.IntN(300)) * time.Millisecond)
			}
			s.run(time.Minute)
			if amnesia {
				// What is left of a life whose numbers were used again may
				// be far away: only the hashes tell.
				s.beat()
				s.run(time.Minute)
			}
			if err := s.checkQuiet(); err != nil {
				r.Fatal(err)
			}
		}
		if failed != "" {
			r.Fatal(failed)
		}
	})
}

func act(r *rapid.T, s *sim, a, b NodeID) string {
	na := s.nodes[a]
	what := rapid.SampledFrom([]string{"link", "link", "link", "cut", "restart", "amnesia", "local", "leaf", "cost"}).Draw(r, "act")
	switch what {
	case "link":
		if a != b {
			s.link(a, b, Cost(rapid.IntRange(1, 3).Draw(r, "cost")))
		}
	case "cut":
		s.cut(a, b)
	case "restart":
		s.boot(a)
	case "amnesia":
		na.epoch = 0
		s.boot(a)
	case "local":
		services := make([]Service, rapid.IntRange(0, 150).Draw(r, "services"))
		for i := range services {
			services[i].Name = fmt.Sprintf("s%d", i)
		}
		na.core.SetLocal(s.now, Local{Services: services})
		s.pump(na)
	case "leaf":
		na.core.AddLeaf(s.now, Attachment{Leaf: "leaf", Cost: 5})
		s.pump(na)
	case "cost":
		l := s.links[pair(a, b)]
		if l == nil {
			break
		}
		l.cost = 7
		for _, ends := range [][2]NodeID{{a, b}, {b, a}} {
			s.nodes[ends[0]].core.SetCost(s.now, ends[1], l.cost)
			s.pump(s.nodes[ends[0]])
		}
	}
	return what
}

// TestOracle compares tables with what Floyd and Warshall say.
func TestOracle(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(r, "nodes")
		o := newOracle(n)
		for range rapid.IntRange(0, 3*n).Draw(r, "links") {
			i, j := rapid.IntRange(0, n-1).Draw(r, "i"), rapid.IntRange(0, n-1).Draw(r, "j")
			if i != j {
				o.said[i][j] = Cost(rapid.IntRange(1, 3).Draw(r, "cost"))
			}
		}
		for i := range n {
			o.draining[i] = rapid.IntRange(0, 5).Draw(r, "draining") == 0
		}
		for i, homes := 0, rapid.IntRange(0, 3).Draw(r, "homes"); i < homes; i++ {
			o.homes[rapid.IntRange(0, n-1).Draw(r, "home")] = Cost(rapid.IntRange(1, 3).Draw(r, "cost"))
		}
		o.check(r)
	})
}

// oracle computes distances the slow and plain way. Node 0 is the table's.
type oracle struct {
	said     [][]Cost // 0: no link
	draining []bool
	homes    map[int]Cost
}

func newOracle(n int) *oracle {
	o := &oracle{said: make([][]Cost, n), draining: make([]bool, n), homes: make(map[int]Cost)}
	for i := range o.said {
		o.said[i] = make([]Cost, n)
	}
	return o
}

func oracleID(i int) NodeID { return NodeID(fmt.Sprintf("n%02d", i)) }

// matrix returns the distances between all, the leaf being the last, with
// nodes that are passed by left out.
func (o *oracle) matrix(skip func(int) bool) (direct, dist [][]uint64) {
	n := len(o.said)
	for i := range n + 1 {
		direct = append(direct, make([]uint64, n+1))
		for j := range n + 1 {
			direct[i][j] = unreachable
			if skip(i) || skip(j) {
				continue
			}
			switch {
			case i == n || j == n:
				if c, ok := o.homes[min(i, j)]; ok {
					direct[i][j] = uint64(c)
				}
			case o.said[i][j] > 0 && o.said[j][i] > 0:
				direct[i][j] = uint64(max(o.said[i][j], o.said[j][i]))
			}
			if i == j {
				direct[i][j] = 0
			}
		}
	}
	for i := range direct {
		dist = append(dist, slices.Clone(direct[i]))
	}
	for k := range n { // the leaf is never in the middle
		via := uint64(0)
		if o.draining[k] {
			via = detour
		}
		for i := range n + 1 {
			for j := range n + 1 {
				if i != k && j != k && i != j && dist[i][k] != unreachable && dist[k][j] != unreachable {
					dist[i][j] = min(dist[i][j], dist[i][k]+via+dist[k][j])
				}
			}
		}
	}
	return direct, dist
}

func (o *oracle) check(r *rapid.T) {
	n := len(o.said)
	ids := make([]NodeID, n+1)
	for i := range n {
		ids[i] = oracleID(i)
	}
	ids[n] = "leaf"
	now := time.Unix(0, 0)
	c := New(Config{Self: ids[0]}, now)
	for j, cost := range o.said[0] {
		if cost > 0 {
			c.AddLink(now, ids[j], cost)
		}
	}
	if cost, ok := o.homes[0]; ok {
		c.AddLeaf(now, Attachment{Leaf: "leaf", Cost: cost})
	}
	c.AddLink(now, "feed", 1)
	for i := 1; i < n; i++ {
		a := &Advert{Key: Key{Origin: ids[i]}, Version: Version{1, 1}, Draining: o.draining[i]}
		for j, cost := range o.said[i] {
			if cost > 0 {
				a.Links = append(a.Links, Adjacency{ids[j], cost})
			}
		}
		if cost, ok := o.homes[i]; ok {
			a.Leaves = []Attachment{{Leaf: "leaf", Cost: cost}}
		}
		if err := c.Receive(now, "feed", a); err != nil {
			r.Fatal(err)
		}
	}
	c.Advance(now.Add(time.Second))
	table := c.Table()

	direct, dist := o.matrix(func(int) bool { return false })
	avoided := rapid.IntRange(1, n).Draw(r, "avoided")
	_, rest := o.matrix(func(i int) bool { return i == 0 || i == avoided })
	for j := 1; j <= n; j++ {
		cost, ok := table.Cost(ids[j])
		if ok != (dist[0][j] != unreachable) || ok && cost != dist[0][j]%detour {
			r.Fatalf("cost to %s: %d %v, want %d", ids[j], cost, ok, dist[0][j])
		}
		var hops []NodeID
		var ways []way
		for v := 1; v <= n; v++ {
			if direct[0][v] == unreachable {
				continue
			}
			if d := o.via(direct[0][v], v, j, dist); d != unreachable && d == dist[0][j] {
				hops = append(hops, ids[v])
			}
			if d := o.via(direct[0][v], v, j, rest); d != unreachable && v != avoided && j != avoided {
				ways = append(ways, way{d, ids[v]})
			}
		}
		slices.Sort(hops)
		if got := table.NextHops(ids[j]); !slices.Equal(got, hops) {
			r.Fatalf("next hops to %s: %v, want %v", ids[j], got, hops)
		}
		slices.SortFunc(ways, way.compare)
		var route []NodeID
		for _, w := range ways {
			route = append(route, w.hop)
		}
		got, best := table.Route(ids[j], func(id NodeID) bool { return id == ids[avoided] })
		if !slices.Equal(got, route) {
			r.Fatalf("route to %s avoiding %s: %v, want %v", ids[j], ids[avoided], got, route)
		}
		if n := len(slices.DeleteFunc(ways, func(w way) bool { return w.dist > ways[0].dist })); best != n {
			r.Fatalf("route to %s avoiding %s: %d of %v cost the same, want %d", ids[j], ids[avoided], best, got, n)
		}
	}
}

// via is the distance to j when the first hop is v.
func (o *oracle) via(first uint64, v, j int, dist [][]uint64) uint64 {
	switch {
	case v == j:
		return first
	case v == len(o.said) || dist[v][j] == unreachable:
		return unreachable
	case o.draining[v]:
		return first + detour + dist[v][j]
	}
	return first + dist[v][j]
}
