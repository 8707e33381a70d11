package sim

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/routing"
)

var (
	seed  = flag.Uint64("seed", 1, "the first seed of the scenarios")
	seeds = flag.Uint64("seeds", 1, "how many seeds of each scenario")
)

// scenarios are what meshes have to live through.
var scenarios = []struct {
	name string
	run  func(*world)
}{
	{"ColdStart", coldStart},
	{"HubDeath", hubDeath},
	{"PartitionAndHeal", partitionAndHeal},
	{"FlappingLink", flappingLink},
	{"RollingRestart", rollingRestart},
	{"LostEpochs", lostEpochs},
	{"GoneForGood", goneForGood},
	{"ClocksOfAllTimes", clocksOfAllTimes},
	{"Churn", func(w *world) { churn(w, w.graph(30, 75), w.leaves(400, 2), time.Hour, 8*time.Second) }},
}

func TestScenarios(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			for i := range *seeds {
				s.run(newWorld(t, *seed+i))
			}
		})
	}
}

// TestSameSeedSameRun is what makes a failure worth looking at.
func TestSameSeedSameRun(t *testing.T) {
	t.Parallel()
	play := func(seed uint64) (uint64, int) {
		w := newWorld(t, seed)
		churn(w, w.graph(20, 40), w.leaves(50, 2), 10*time.Minute, time.Second)
		return w.trace, w.delivered
	}
	a, n := play(*seed)
	b, m := play(*seed)
	if a != b || n != m {
		t.Errorf("two runs of seed %d: trace %x of %d messages, and %x of %d", *seed, a, n, b, m)
	}
	if c, _ := play(*seed + 1); c == a {
		t.Error("another seed has the same trace: it does not tell runs apart")
	}
}

// TestCheckerSeesLies shows the checker what it has to find.
func TestCheckerSeesLies(t *testing.T) {
	t.Parallel()
	lies := map[string]func(*world){
		"a zombie":             func(w *world) { w.nodes[3].alive = false },
		"a link that is there": func(w *world) { w.edges[0].conn.open[1] = false },
		"a leaf's home":        func(w *world) { w.edges[len(w.edges)-1].ends[1] = w.nodes[0] },
		"a cost":               func(w *world) { w.edges[0].cost = 77 },
		"an advert": func(w *world) {
			w.nodes[0].core.SetLocal(w.clock(w.nodes[0]), routing.Local{Services: []routing.Service{{Name: "x"}}})
			w.nodes[0].core.Advance(w.clock(w.nodes[0]).Add(time.Minute))
		},
	}
	for name, lie := range lies {
		seen := &witness{TB: t}
		w := newWorld(t, 1)
		w.t = seen
		w.graph(5, 7)
		w.leaves(1, 1)
		w.bootAll()
		w.run(time.Minute)
		w.checkQuiet()
		if seen.errors != "" {
			t.Fatal(seen.errors)
		}
		lie(w)
		w.checkQuiet()
		if seen.errors == "" {
			t.Errorf("%s is not seen", name)
		}
	}
}

// witness collects errors instead of failing.
type witness struct {
	testing.TB
	errors string
}

func (s *witness) Errorf(format string, args ...any) { s.errors += fmt.Sprintf(format, args...) }

// graph makes routers and links: a random tree, and random links more.
func (w *world) graph(routers, links int) []*node {
	var all []*node
	linked := map[[2]*node]bool{}
	for i := range routers {
		n := w.addNode(fmt.Sprintf("r%03d", i), false)
		all = append(all, n)
		if i > 0 {
			to := all[w.rng.IntN(i)]
			linked[[2]*node{to, n}] = true
			w.connect(n, to, w.cost())
		}
	}
	for len(linked) < links {
		i, j := w.rng.IntN(routers), w.rng.IntN(routers)
		if i >= j || linked[[2]*node{all[i], all[j]}] {
			continue
		}
		linked[[2]*node{all[i], all[j]}] = true
		w.connect(all[j], all[i], w.cost())
	}
	return all
}

// cost is often the same, so that there are equal ways.
func (w *world) cost() routing.Cost { return routing.CostUnit * routing.Cost(1+w.rng.IntN(3)) }

// leaves makes leaves of the routers that there are, with up to homes homes each.
func (w *world) leaves(count, homes int) []*node {
	var all []*node
	routers := len(w.nodes)
	for i := range count {
		n := w.addNode(fmt.Sprintf("leaf%05d", i), true)
		all = append(all, n)
		first := w.rng.IntN(routers)
		for h := range 1 + w.rng.IntN(homes) {
			w.connect(n, w.nodes[(first+h)%routers], routing.CostUnit)
		}
	}
	return all
}

func (w *world) bootAll() {
	for _, n := range w.nodes {
		w.boot(n)
	}
}

// calm lets pauses, dead links and hashes come to an end, and looks.
func (w *world) calm() {
	w.t.Helper()
	w.run(3 * time.Minute)
	w.checkQuiet()
}

// coldStart: everybody is switched on at once, as after a power failure.
func coldStart(w *world) {
	w.graph(60, 150)
	w.leaves(200, 3)
	w.bootAll()
	done := func() bool {
		for _, n := range w.nodes {
			if n.core != nil && len(n.core.Table().Known(1000)) < len(w.nodes) {
				return false
			}
		}
		return true
	}
	for !done() && w.now < time.Minute {
		w.run(50 * time.Millisecond)
	}
	if w.now > 2*time.Second {
		w.t.Errorf("it took %v until everybody knew everybody, at most 2 s wanted", w.now)
	}
	w.calm()
}

// hubDeath: one of two hubs dies with 5,000 leaves, which turn to the other one.
func hubDeath(w *world) {
	routers := w.graph(10, 15)
	hub, other := routers[0], routers[1]
	for i := range 5000 {
		n := w.addNode(fmt.Sprintf("leaf%05d", i), true)
		w.connect(n, hub, routing.CostUnit)
		if i%2 == 0 {
			w.connect(n, other, 5*routing.CostUnit)
		}
	}
	w.bootAll()
	w.calm()
	before := w.delivered
	w.kill(hub)
	w.calm()
	if n := w.delivered - before; n > 2000 {
		w.t.Errorf("the hub's death made %d messages", n)
	}
	w.boot(hub)
	w.calm()
	w.kill(other)
	w.run(time.Second)
	w.kill(hub)
	w.calm() // all leaves are gone, and everybody says so
}

// partitionAndHeal: the mesh falls in two, both parts live on, and meet again.
func partitionAndHeal(w *world) {
	routers := w.graph(40, 100)
	w.leaves(100, 2)
	w.bootAll()
	w.calm()
	for _, d := range []time.Duration{10 * time.Minute, 3 * time.Hour, 30 * time.Hour} {
		var cut []*edge
		for _, e := range w.edges {
			if !e.ends[0].leaf && (e.ends[0].index < 20) != (e.ends[1].index < 20) {
				w.sever(e)
				cut = append(cut, e)
			}
		}
		w.calm()
		for range 5 {
			n := routers[w.rng.IntN(len(routers))]
			w.kill(n)
			w.run(time.Minute)
			w.boot(n)
			w.change(routers[w.rng.IntN(len(routers))])
		}
		w.run(d)
		w.checkQuiet()
		for _, e := range cut {
			w.mend(e)
		}
		w.calm()
	}
}

// flappingLink: a link comes and goes for ten minutes.
func flappingLink(w *world) {
	w.graph(30, 60)
	w.bootAll()
	w.calm()
	e := w.edges[40]
	adverts := map[routing.NodeID]map[uint64]bool{}
	w.onSend = func(_ *node, m routing.Message) {
		if a, ok := m.(*routing.Advert); ok {
			if adverts[a.Origin] == nil {
				adverts[a.Origin] = map[uint64]bool{}
			}
			adverts[a.Origin][a.Seq] = true
		}
	}
	for range 600 {
		w.run(time.Second)
		w.breakUp(e)
	}
	for id, told := range adverts {
		// Six while the pause doubles from 100 ms to 5 s, then one each 5 s.
		if w.byID[id] != e.ends[0] && w.byID[id] != e.ends[1] {
			w.t.Errorf("%s, whose links are steady, made %d adverts", id, len(told))
		} else if len(told) > 6+600/5 {
			w.t.Errorf("%s made %d adverts in ten minutes", id, len(told))
		}
	}
	if len(adverts) != 2 {
		w.t.Errorf("%d nodes made adverts, want the two ends", len(adverts))
	}
	w.calm()
}

// rollingRestart: every router is restarted, one after the other.
func rollingRestart(w *world) {
	routers := w.graph(30, 75)
	w.leaves(100, 2)
	w.bootAll()
	w.calm()
	for i, n := range routers {
		w.kill(n)
		w.run(w.between(0, 6*time.Second))
		w.boot(n)
		w.run(w.between(0, 20*time.Second))
		if i%10 == 9 {
			w.calm()
		}
	}
	w.calm()
}

// lostEpochs: nodes come back with a disk that is empty, some of them while
// nobody is there to tell them.
func lostEpochs(w *world) {
	routers := w.graph(20, 50)
	w.leaves(20, 2)
	w.bootAll()
	w.calm()
	for range 12 {
		n := routers[w.rng.IntN(len(routers))]
		for range 3 {
			w.kill(n)
			w.run(w.between(0, time.Minute))
			w.boot(n)
			w.run(w.between(0, time.Minute))
		}
		w.kill(n)
		n.epoch = 0
		for _, e := range n.edges {
			if w.rng.IntN(2) == 0 {
				w.sever(e)
			}
		}
		w.run(w.between(0, 90*time.Minute)) // its adverts may be tombstones by now
		w.boot(n)
		w.run(time.Second)
		for _, e := range n.edges {
			w.mend(e)
		}
		w.calm()
	}
}

// goneForGood: what does not come back is shown for an hour, and then nowhere,
// whoever was away in the meantime.
func goneForGood(w *world) {
	routers := w.graph(12, 24)
	w.leaves(30, 2)
	w.bootAll()
	w.calm()
	dead, away := routers[5], routers[7]
	for _, e := range away.edges {
		if e.other(away) != dead {
			w.sever(e)
		}
	}
	w.kill(dead)
	w.run(50 * time.Minute)
	for _, n := range routers {
		if n != dead {
			info, ok := n.core.Table().Node(dead.id)
			if since := info.Since.Sub(time.Unix(0, 0)) - dead.died; !ok || info.Reachable || since < 0 || since > 10*time.Second {
				w.t.Errorf("%s shows %s as %v %+v; it died at %v", n.id, dead.id, ok, info, dead.died)
			}
		}
	}
	w.run(11 * time.Minute)
	for _, e := range away.edges {
		w.mend(e) // it has been alone with what it knows of the dead
	}
	w.calm()
	for _, n := range routers {
		if n == dead {
			continue
		}
		if _, ok := n.core.Table().Node(dead.id); ok {
			w.t.Errorf("%s still shows %s after an hour", n.id, dead.id)
		}
	}
	w.run(26 * time.Hour) // tombstones are gone, too
	w.boot(dead)
	w.calm()
}

// clocksOfAllTimes: nodes boot in 1970, in 2100 and between, and in another time
// after each restart. What is newer is told by the epoch, which is on disk.
func clocksOfAllTimes(w *world) {
	const year = 365 * 24 * time.Hour
	times := []time.Duration{0, 130 * year, 55 * year}
	routers := w.graph(12, 24)
	for i, n := range w.nodes {
		n.skew = times[i%len(times)]
	}
	w.bootAll()
	w.calm()
	for i, n := range routers {
		w.kill(n)
		w.run(time.Second)
		n.skew = times[(i+1)%len(times)]
		n.local = routing.Local{Services: []routing.Service{{Name: "after its restart"}}}
		w.boot(n)
		w.run(5 * time.Second)
	}
	w.calm()
	for _, at := range routers {
		for _, n := range routers {
			info, known := at.core.Table().Node(n.id)
			if !known || len(info.Services) != 1 || at.core.Table().NextHops(n.id) == nil && at != n {
				w.t.Errorf("%s (clock %v) knows of %s (clock %v): %+v", at.id, w.clock(at), n.id, w.clock(n), info)
			}
		}
	}
}
