package routing

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
)

// bigMesh loads a flat graph of 10,000 routers and 30,000 links into one core.
func bigMesh(tb testing.TB, routers, links int) *Core {
	tb.Helper()
	rng := rand.New(rand.NewPCG(1, 1))
	ends := make([][]Adjacency, routers)
	name := func(i int) NodeID { return NodeID(fmt.Sprintf("site-%05d.example.net", i)) }
	join := func(i, j int) {
		cost := Cost(500 + rng.IntN(1000))
		ends[i] = append(ends[i], Adjacency{name(j), cost})
		ends[j] = append(ends[j], Adjacency{name(i), cost})
	}
	for i := 1; i < routers; i++ {
		join(i, rng.IntN(i))
	}
	for range links - (routers - 1) {
		if i, j := rng.IntN(routers), rng.IntN(routers); i != j {
			join(i, j)
		}
	}
	now := time.Unix(0, 0)
	c := New(Config{Self: name(0)}, now)
	for _, l := range ends[0] {
		c.AddLink(now, l.To, l.Cost)
	}
	c.TakeSends()
	for i := 1; i < routers; i++ {
		for f := 0; f*MaxEntries < len(ends[i]); f++ {
			part := ends[i][f*MaxEntries : min(len(ends[i]), (f+1)*MaxEntries)]
			a := &Advert{Key: Key{name(i), uint16(f)}, Version: Version{1, 1}, Links: part}
			if err := c.Receive(now, ends[0][0].To, a); err != nil {
				tb.Fatal(err)
			}
			for sends := c.TakeSends(); len(sends) > 0; sends = c.TakeSends() {
				ackAll(tb, c, now, sends)
			}
		}
	}
	c.Advance(now.Add(time.Second))
	if n := len(c.Table().Known(routers)); n != routers {
		tb.Fatalf("%d of %d reachable", n, routers)
	}
	return c
}

// ackAll answers for the neighbours.
func ackAll(tb testing.TB, c *Core, now time.Time, sends []Send) {
	for _, m := range sends {
		if a, ok := m.Msg.(*Advert); ok {
			if err := c.Receive(now, m.To, &Ack{Entries: []Stamp{a.Stamp()}}); err != nil {
				tb.Fatal(err)
			}
		}
	}
}

func heapBytes() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkCompute is one run of the path computation, graph and table
// included, on 10,000 routers and 30,000 links; held-MiB is what core and
// table keep.
func BenchmarkCompute(b *testing.B) {
	before := heapBytes()
	c := bigMesh(b, 10_000, 30_000)
	held := heapBytes() - before
	b.ReportAllocs()
	for b.Loop() {
		c.members = true
		c.compute()
		c.Table()
	}
	b.ReportMetric(float64(held)/(1<<20), "held-MiB")
}

// BenchmarkRoute is a search for alternatives on the same graph.
func BenchmarkRoute(b *testing.B) {
	t := bigMesh(b, 10_000, 30_000).Table()
	ids := t.Known(10_000)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		t.Route(ids[1+i*7919%9_999], nil)
		i++
	}
}

// BenchmarkNextHops is what each new stream costs at a relay.
func BenchmarkNextHops(b *testing.B) {
	t := bigMesh(b, 10_000, 30_000).Table()
	ids := t.Known(10_000)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		t.NextHops(ids[1+i*7919%9_999])
		i++
	}
}
