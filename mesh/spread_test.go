package mesh

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ranvier-mesh/ranvier/routing"
)

// Ways of equal cost share the streams, wherever on the way they part: at the
// originator, at a relay, among the homes of a leaf.
func TestWaysOfEqualCostShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		n.start("a")
		n.start("left", "a")
		n.start("right", "a")
		n.start("z", "left", "right")
		n.startWith(Config{ID: "far", Role: Ephemeral}, "a")
		n.startWith(Config{ID: "edge", Role: Leaf}, "left", "right")
		dear := PeerConfig{Address: n.addrs["left"], Cost: 5 * routing.CostUnit}
		n.startWith(Config{ID: "spare", Role: Leaf, Peers: []PeerConfig{dear}}, "right")
		for _, to := range []routing.NodeID{"a", "z", "edge", "spare"} {
			n.reach("a", to)
			n.reach("z", to)
		}
		time.Sleep(time.Second)
		// Who is suspected elsewhere changes nothing.
		n.nodes["a"].suspects.add(time.Now(), []routing.NodeID{"elsewhere"}, "of nothing")
		for _, tt := range []struct {
			from, to routing.NodeID
			shared   bool
		}{{"a", "z", true}, {"far", "z", true}, {"a", "edge", true}, {"edge", "z", true}, {"spare", "z", false}, {"a", "spare", false}} {
			const pings = 200
			left := 0
			for range pings {
				_, path, err := n.nodes[tt.from].Ping(t.Context(), tt.to)
				if err != nil {
					t.Fatal(err)
				}
				for _, hop := range path {
					if hop.Node == "left" {
						left++
					}
				}
			}
			if share := left * 100 / pings; tt.shared && (share < 30 || share > 70) || !tt.shared && share > 0 {
				t.Errorf("from %s to %s %d %% go over one of two ways", tt.from, tt.to, share)
			}
		}
	})
}
