package routing

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// bytesReader turns a fuzzer's bytes into choices.
type bytesReader struct{ b []byte }

func (r *bytesReader) n(limit int) int {
	if len(r.b) == 0 {
		return 0
	}
	v := int(r.b[0])
	r.b = r.b[1:]
	return v % limit
}

func (r *bytesReader) id() NodeID {
	if r.n(20) == 19 {
		return NodeID([]string{"", "bad id", "self!"}[r.n(3)])
	}
	return NodeID([]string{"self", "p", "q", "x", "y", "z", "l1", "l2"}[r.n(8)])
}

func (r *bytesReader) number() uint64 {
	return []uint64{0, 1, 1, 2, 2, 3, 5, 1 << 31, 1<<32 + 3, 1<<64 - 2, 1<<64 - 1}[r.n(11)]
}

func (r *bytesReader) stamp() Stamp {
	frags := []uint16{0, 0, 0, 1, 2, 1023, 1024, 65535}
	return Stamp{Key{r.id(), frags[r.n(8)]}, Version{r.number(), r.number()}}
}

func (r *bytesReader) cost() Cost { return []Cost{1, 2, 3, 1000, MaxCost, 0, MaxCost + 1}[r.n(7)] }

func (r *bytesReader) message() Message {
	switch r.n(6) {
	case 0:
		d := &Digest{More: r.n(4) == 0}
		for range r.n(5) {
			d.Entries = append(d.Entries, r.stamp())
		}
		return d
	case 1:
		a := &Ack{}
		for range r.n(5) {
			a.Entries = append(a.Entries, r.stamp())
		}
		return a
	case 2:
		return Hash(r.n(3))
	}
	s := r.stamp()
	a := &Advert{Key: s.Key, Version: s.Version, Draining: r.n(5) == 0}
	for range r.n(5) {
		a.Links = append(a.Links, Adjacency{r.id(), r.cost()})
	}
	for range r.n(4) {
		a.Leaves = append(a.Leaves, Attachment{Leaf: r.id(), Cost: r.cost()})
	}
	for range r.n(70) {
		a.Services = append(a.Services, Service{Name: fmt.Sprint("s", r.n(9))})
	}
	if r.n(3) == 0 {
		a.Raw = make([]byte, r.n(200))
	}
	return a
}

// FuzzReceive lets anything be said to a core, whose neighbours seldom
// acknowledge: it neither panics nor grows.
func FuzzReceive(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09"))
	for seed := range byte(20) {
		b := make([]byte, 600)
		for i := range b {
			b[i] = byte(i*int(2*seed+7)) ^ seed*31 ^ byte(i>>3)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 4096 {
			t.Skip()
		}
		r := &bytesReader{b}
		now := time.Unix(0, 0)
		c := New(Config{Self: "self", MaxOrigins: 5, MaxBytes: 16 << 10, Window: 3}, now)
		c.AddLink(now, "p", 1000)
		c.AddLink(now, "q", 1000)
		for len(r.b) > 0 {
			now = now.Add([]time.Duration{0, 0, time.Millisecond, time.Second, 20 * time.Minute, 5 * time.Hour}[r.n(6)])
			step(t, c, r, now)
			checkCore(t, c)
		}
	})
}

func step(t *testing.T, c *Core, r *bytesReader, now time.Time) {
	peer := []NodeID{"p", "q", "x"}[r.n(3)]
	switch r.n(12) {
	case 0:
		c.AddLink(now, peer, r.cost())
	case 1:
		c.RemoveLink(now, peer)
	case 2:
		c.AddLeaf(now, Attachment{Leaf: r.id(), Cost: r.cost()})
	case 3:
		c.RemoveLeaf(now, r.id())
	case 4:
		c.SetLocal(now, Local{Draining: r.n(2) == 0, Services: make([]Service, r.n(3))})
	case 5:
		c.Advance(now)
	default:
		err := c.Receive(now, peer, r.message())
		if fault := (*FaultError)(nil); err != nil && !errors.As(err, &fault) {
			t.Fatalf("not a fault: %v", err)
		}
	}
	c.TakeEvents()
	c.TakeSends()
	table := c.Table()
	for _, n := range table.Nodes() {
		hops := table.NextHops(n.ID)
		if n.ID != "self" && n.Reachable != (hops != nil) {
			t.Fatalf("%+v has next hops %v", n, hops)
		}
		if route, best := table.Route(n.ID, nil); !slices.Equal(route[:best], hops) {
			t.Fatalf("to %s next hops %v, but the best of the route are %v of %v", n.ID, hops, best, route)
		}
	}
}

// checkCore checks what holds of a core at any time.
func checkCore(t *testing.T, c *Core) {
	size, refs, homes := 0, make(map[NodeID]int), make(map[NodeID]int)
	for _, o := range c.origins {
		if o.node.origin != o || c.nodes[o.node.id] != o.node {
			t.Fatalf("%s is not its node's origin", o.node.id)
		}
		if o.reachable == (o.queued != nil) || o.reachable && o.dropped {
			t.Fatalf("%s is reachable %v, dropped %v, queued %v", o.node.id, o.reachable, o.dropped, o.queued)
		}
		of := 0
		for _, f := range o.frags {
			of += f.size()
			if f.Epoch != o.epoch {
				t.Fatalf("%s fragment %d is of epoch %d, not %d", o.node.id, f.Fragment, f.Epoch, o.epoch)
			}
			for _, e := range f.ends {
				refs[e.node.id]++
			}
			if f.ends != nil {
				homes[o.node.id] += len(f.Leaves)
			}
		}
		if of != o.size {
			t.Fatalf("%s has size %d, not %d", o.node.id, of, o.size)
		}
		size += of
	}
	if size != c.size {
		t.Fatalf("size %d, not %d", size, c.size)
	}
	if rest := size - c.self.size; rest > c.cfg.MaxBytes || len(c.origins) > c.cfg.MaxOrigins {
		t.Fatalf("%d origins in %d bytes", len(c.origins), rest)
	}
	for id, n := range c.nodes {
		if n.refs != refs[id] || n.refs == 0 && n.origin == nil && n.leaf == nil {
			t.Fatalf("%s has %d refs, not %d", id, n.refs, refs[id])
		}
	}
	homes["self"] = len(c.attached)
	c.sortLeaves()
	for _, l := range c.leaves {
		for _, h := range l.homes {
			homes[h.origin.node.id]--
		}
		if (l.queued != nil) != (len(l.homes) == 0) {
			t.Fatalf("leaf %s with %d homes is queued: %v", l.node.id, len(l.homes), l.queued)
		}
	}
	for id, n := range homes {
		if n != 0 {
			t.Fatalf("%s has %d leaves more than there are", id, n)
		}
	}
	for _, l := range c.links {
		o := &l.out
		if o.flying > o.window || len(o.items) != o.flying+o.live.n+o.bulk.n || len(o.items) > 5000 {
			t.Fatalf("%s: %d in flight, %d and %d wait, of %d", l.peer, o.flying, o.live.n, o.bulk.n, len(o.items))
		}
	}
}
