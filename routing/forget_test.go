package routing

import (
	"math"
	"slices"
	"testing"
)

// After Forget an origin begins anew, however high its numbers were, whether it
// was reachable, lost or dropped; a leaf of it is gone as well.
func TestForget(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"reachable", "lost", "dropped"} {
		c := New(Config{Self: "self"}, epoch0)
		c.AddLink(epoch0, "peer", 1000)
		now := epoch0
		high := advert("bad", Version{math.MaxUint64, math.MaxUint64}, "peer")
		high.Leaves = []Attachment{{Leaf: "leaf", Cost: 1}}
		receive(t, c, now, "peer", advert("peer", Version{1, 1}, "self", "bad"), high)
		if state != "reachable" {
			receive(t, c, now, "peer", advert("peer", Version{1, 2}, "self"))
		}
		if state == "dropped" {
			now = now.Add(c.cfg.Expiry)
		}
		c.Advance(now)
		asked := map[NodeID]bool{}
		gone := c.Forget(now, func(a *Advert) bool { asked[a.Origin] = true; return a.Origin == "bad" })
		if !slices.Equal(gone, []NodeID{"bad"}) || asked["self"] || !asked["peer"] {
			t.Fatalf("%s: forgot %v, asked of %v", state, gone, asked)
		}
		now = now.Add(c.cfg.ComputeMax)
		c.Advance(now)
		if _, ok := c.Table().Cost("leaf"); ok {
			t.Errorf("%s: its leaf is still reachable", state)
		}
		receive(t, c, now, "peer", advert("peer", Version{1, 3}, "self", "bad"), advert("bad", Version{1, 1}, "peer"))
		now = now.Add(c.cfg.ComputeMax)
		c.Advance(now)
		if info, ok := c.Table().Node("bad"); !ok || !info.Reachable || info.Epoch != 1 {
			t.Errorf("%s: the next owner of the id is %+v", state, info)
		}
	}
}
