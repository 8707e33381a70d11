package mesh

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/tcplink"
	"github.com/ranvier-mesh/ranvier/routing"
)

func TestPeersComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		n.start("a")
		n.start("b")
		hub := n.start("hub", "a")
		n.reach("hub", "a")
		near, far := stream(t, hub, n.nodes["a"])
		got := reads(far)
		since := hub.Status().Links[0].Since

		if err := hub.AddPeer(PeerConfig{Address: n.addrs["b"]}); err != nil {
			t.Fatal(err)
		}
		n.reach("hub", "b")
		near.Write([]byte("one"))
		if !hub.RemovePeer(t.Context(), n.addrs["b"]) {
			t.Error("the peer is not known")
		}
		if hub.neighbour("b") != nil {
			t.Error("the link is there after its removal")
		}
		time.Sleep(time.Minute)
		if links := hub.Status().Links; len(links) != 1 || links[0].Since != since {
			t.Errorf("links: %+v", links)
		}
		near.Write([]byte("two"))
		near.Close()
		if c := <-got; c != 6 {
			t.Errorf("%d bytes came through", c)
		}
		if hub.RemovePeer(t.Context(), n.addrs["b"]) {
			t.Error("it was removed twice")
		}
		if err := hub.AddPeer(PeerConfig{Address: "carrier-pigeon://b"}); err == nil || !strings.Contains(err.Error(), "scheme") {
			t.Errorf("add: %v", err)
		}
	})
}

func TestListenersComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		hub := n.start("hub")
		n.start("a", "hub")
		n.reach("a", "hub")
		if err := hub.AddListener(t.Context(), ListenerConfig{Address: "mem://second", Cost: 5000}); err != nil {
			t.Fatal(err)
		}
		n.addrs["second"] = "mem://second"
		n.start("b", "second")
		n.reach("b", "hub")
		if err := hub.AddListener(t.Context(), ListenerConfig{Address: "mem://second"}); err == nil {
			t.Error("an address was bound twice")
		}
		since := hub.neighbour("a").since
		start := time.Now()
		if !hub.RemoveListener(t.Context(), "mem://second") {
			t.Error("the listener is not known")
		}
		if took := time.Since(start); took > 50*time.Millisecond {
			t.Errorf("the peer closed its link only after %v", took)
		}
		if hub.neighbour("b") != nil {
			t.Error("the link is there after its listener's removal")
		}
		if err := hub.AddListener(t.Context(), ListenerConfig{Address: "mem://second", Cost: 7000}); err != nil {
			t.Errorf("the address is not free: %v", err)
		}
		n.reach("b", "hub")
		if c := hub.neighbour("b").cost(); c != 7000 {
			t.Errorf("cost %v", c)
		}
		if hub.neighbour("a").since != since {
			t.Error("the other listener's link was lost")
		}
		if addrs := hub.Addrs(); len(addrs) != 2 {
			t.Errorf("addresses %v", addrs)
		}
	})
}

func TestRemovingAListenerFreesItsPort(t *testing.T) {
	n := newNet(t)
	n.scheme, n.via = "tcp", tcplink.Transport{}
	hub := n.start("hub")
	n.start("a", "hub")
	n.reach("a", "hub")
	configured := hub.listeners[0].address
	at := hub.Addrs()[0]
	if !hub.RemoveListener(t.Context(), configured) {
		t.Fatal("the listener is not known")
	}
	if err := hub.AddListener(t.Context(), ListenerConfig{Address: at}); err != nil {
		t.Fatal(err)
	}
	n.reach("a", "hub")
}

func TestPartsOfANodeThatDoesNotRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		m, err := New(t.Context(), Config{ID: "m", Transports: map[string]link.Transport{"mem": n.via}})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.AddListener(t.Context(), ListenerConfig{Address: "mem://m"}); err != nil {
			t.Error(err)
		}
		if !m.RemoveListener(t.Context(), "mem://m") || len(m.Addrs()) != 0 {
			t.Error("the listener was not removed")
		}
		a := n.start("a")
		a.stop()
		if err := a.AddPeer(PeerConfig{Address: "mem://m"}); !errors.Is(err, ErrClosed) {
			t.Errorf("add to a stopped node: %v", err)
		}
		if err := a.AddListener(t.Context(), ListenerConfig{Address: "mem://again"}); !errors.Is(err, ErrClosed) {
			t.Errorf("add to a stopped node: %v", err)
		}
	})
}

// The cost of a leaf's link changes in place as well; a peer that does not know of
// that links again.
func TestACostChangesUnderALink(t *testing.T) {
	for name, features := range map[string][]string{
		"known": {"carrier pigeons", featureCost}, "an older peer": nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet(t)
				hub := n.start("hub")
				n.start("far", "hub")
				n.startWith(Config{ID: "edge", Role: Leaf}, "hub")
				n.reach("far", "edge")
				link := hub.neighbour("edge")
				link.hello.Features = features
				costs := func() (all []routing.Cost) {
					n.reach("far", "edge")
					time.Sleep(10 * time.Second)
					c, _ := n.nodes["far"].table.Load().Cost("edge")
					return append(all, hub.neighbour("edge").cost(), n.nodes["edge"].neighbour("hub").cost(), routing.Cost(c)-routing.CostUnit)
				}
				for _, cost := range []routing.Cost{5000, 2000} {
					if !hub.ChangeListener(ListenerConfig{Address: "mem://hub", Cost: routing.CostUnit, NodeCost: map[routing.NodeID]routing.Cost{"edge": cost}}) {
						t.Fatal("there is no such listener")
					}
					time.Sleep(partingTime)
					if got := costs(); got[0] != cost || got[1] != cost || got[2] != cost {
						t.Errorf("it costs %v, want %v", got, cost)
					}
				}
				if same := hub.neighbour("edge") == link; same != (features != nil) {
					t.Errorf("the link is the same: %t", same)
				}
			})
		})
	}
}
