package routing

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
)

// TestAMillionAdverts (fewer, but in a soak): what a neighbour makes up costs bounded memory, however
// much of it there is, and who was known before stays known.
func TestAMillionAdverts(t *testing.T) {
	count := 50_000                      // not in parallel: it looks at the whole heap
	if os.Getenv("RANVIER_SOAK") != "" { // make soak
		count = 1_000_000
	}
	c := New(Config{Self: "self", MaxOrigins: 2000}, epoch0)
	now := epoch0
	c.AddLink(now, "eve", 1)
	c.AddLink(now, "friend", 1)
	receive(t, c, now, "eve", advert("eve", Version{1, 1}, "self"))
	receive(t, c, now, "friend", advert("friend", Version{1, 1}, "self", "far"), advert("far", Version{1, 1}, "friend"))
	sends := 0
	heap := func() int {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before, most := heap(), 0
	for i := range count {
		origin := NodeID(fmt.Sprint("fake", i))
		if i%4 == 3 {
			origin = NodeID(fmt.Sprint("fake", i%500)) // again, and newer
		}
		receive(t, c, now, "eve", advert(origin, Version{uint64(i + 1), 1}, "eve", NodeID(fmt.Sprint("fake", i+1))))
		if i%100 == 0 {
			now = now.Add(10 * time.Millisecond)
			c.Advance(now)
			for _, s := range c.TakeSends() {
				sends++
				if a, ok := s.Msg.(*Advert); ok && s.To == "friend" { // friend takes all
					receive(t, c, now, "friend", &Ack{Entries: []Stamp{a.Stamp()}})
				}
			}
			c.TakeEvents()
		}
		if i%25_000 == 24_999 {
			most = max(most, heap())
		}
	}
	now = now.Add(time.Minute)
	c.Advance(now)
	if grown := (most - before) >> 20; grown > 32 {
		t.Errorf("%d adverts took %d MiB", count, grown)
	}
	if n := len(c.origins); n > 2000 {
		t.Errorf("%d origins", n)
	}
	if hops := c.Table().NextHops("far"); len(hops) != 1 || hops[0] != "friend" {
		t.Errorf("the way to far begins with %v", hops)
	}
	t.Logf("%d adverts, %d messages sent, the heap grew by %d MiB at most", count, sends, (most-before)>>20)
}
