package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/memlink"
	"github.com/ranvier-mesh/ranvier/routing"
)

// gate is a transport that can be blocked: dials then hang, as where a firewall
// drops the packets.
type gate struct {
	link.Transport

	mu      sync.Mutex
	blocked bool
	mute    bool // connections come up and carry nothing
	dials   int
}

func (g *gate) set(blocked, mute bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.blocked, g.mute, g.dials = blocked, mute, 0
}

func (g *gate) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.dials
}

func (g *gate) Dial(ctx context.Context, addr string) (link.Link, error) {
	g.mu.Lock()
	blocked, mute := g.blocked, g.mute
	g.dials++
	g.mu.Unlock()
	if blocked {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	l, err := g.Transport.Dial(ctx, addr)
	if err == nil && mute {
		memlink.Freeze(l)
	}
	return l, err
}

// threeWays is a hub that listens with three transports, and a node that knows
// all three addresses.
func threeWays(t *testing.T) (n *net1, ways map[string]*gate, linked func() string) {
	ways = map[string]*gate{}
	transports := map[string]link.Transport{}
	hub, edge := Config{ID: "hub", Epoch: 1}, Config{ID: "edge", Epoch: 1}
	for _, scheme := range []string{"ws", "tcp", "quic"} { // the worst first
		ways[scheme] = &gate{Transport: &memlink.Network{}}
		transports[scheme] = ways[scheme]
		hub.Listeners = append(hub.Listeners, ListenerConfig{Address: scheme + "://" + scheme + "-hub"})
		edge.Peers = []PeerConfig{{Address: "ws://ws-hub", Addresses: []string{"tcp://tcp-hub", "quic://quic-hub"}}}
	}
	n = newNet(t)
	n.transports = transports
	n.startWith(hub)
	return n, ways, func() string {
		n.startWith(edge)
		n.reach("edge", "hub")
		return n.nodes["edge"].Status().Links[0].Address
	}
}

func TestOfSeveralAddressesTheBestIsTried(t *testing.T) {
	for name, tt := range map[string]struct {
		block func(ways map[string]*gate)
		want  string
		in    time.Duration
	}{
		"all work":           {func(map[string]*gate) {}, "quic-hub", 50 * time.Millisecond},
		"UDP is dropped":     {func(w map[string]*gate) { w["quic"].set(true, false) }, "tcp-hub", headStart + 50*time.Millisecond},
		"only the web":       {func(w map[string]*gate) { w["quic"].set(true, false); w["tcp"].set(true, false) }, "ws-hub", 2*headStart + 50*time.Millisecond},
		"UDP carries naught": {func(w map[string]*gate) { w["quic"].set(false, true) }, "tcp-hub", greetTime + 50*time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, ways, linked := threeWays(t)
				tt.block(ways)
				start := time.Now()
				if got := linked(); got != tt.want {
					t.Errorf("linked over %s", got)
				}
				if took := time.Since(start); took > tt.in {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

func TestWhatWorkedIsTriedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, ways, linked := threeWays(t)
		ways["quic"].set(true, false)
		if got := linked(); got != "tcp-hub" {
			t.Fatalf("linked over %s", got)
		}
		for range 5 {
			ways["quic"].set(true, false)
			n.nodes["edge"].neighbour("hub").link.Close()
			synctest.Wait()
			n.reach("edge", "hub")
			if d := ways["quic"].count(); d != 0 {
				t.Errorf("%d more dials over QUIC", d)
			}
		}
		ways["quic"].set(false, false) // UDP passes now, and TCP does not
		ways["tcp"].set(true, false)
		n.nodes["edge"].neighbour("hub").link.Close()
		synctest.Wait()
		n.reach("edge", "hub")
		if got := n.nodes["edge"].Status().Links[0].Address; got != "quic-hub" {
			t.Errorf("linked over %s", got)
		}
	})
}

// What kept the best way from working may be over in the end.
func TestABetterWayIsTriedAgainSomeDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, ways, linked := threeWays(t)
		ways["quic"].set(true, false)
		linked()
		time.Sleep(memory)
		ways["quic"].set(false, false)
		n.nodes["edge"].neighbour("hub").link.Close()
		synctest.Wait()
		n.reach("edge", "hub")
		if got := n.nodes["edge"].Status().Links[0].Address; got != "quic-hub" {
			t.Errorf("linked over %s", got)
		}
	})
}

// A peer that lets this node in and ends the link at once is not asked for ever
// without a pause.
func TestLinksThatDoNotLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		hub := n.start("hub")
		g := &gate{Transport: n.via}
		n.transports = map[string]link.Transport{"mem": g}
		n.startWith(Config{ID: "a"}, "hub")
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if nb := hub.neighbour("a"); nb != nil {
				nb.link.Close()
			}
		}
		if d := g.count(); d < 20 || d > 120 {
			t.Errorf("%d dials in a minute", d)
		}
		time.Sleep(time.Minute)
		g.set(false, false)
		n.reach("a", "hub")
		hub.neighbour("a").link.Close() // after it has lasted
		time.Sleep(2 * redialFirst)
		if hub.neighbour("a") == nil {
			t.Error("a link that had lasted is not back at once")
		}
	})
}

func TestEachWayThatFailedIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		n.transports = map[string]link.Transport{"quic": &gate{Transport: &memlink.Network{}, blocked: true}, "mem": &memlink.Network{}}
		e := n.startWith(Config{ID: "e", Role: Ephemeral, Peers: []PeerConfig{{Address: "mem://x", Addresses: []string{"quic://y"}}}})
		err := e.Attached(t.Context())
		var peer *PeerError
		if !errors.As(err, &peer) {
			t.Fatalf("attached: %v", err)
		}
		for _, want := range []string{"cannot reach peer mem://x: dial mem x: connection refused", "cannot reach peer quic://y: no answer in 5s"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error %q lacks %q", err, want)
			}
		}
	})
}

func TestARefusalIsNotTriedAgainOverAnotherWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, ways, _ := threeWays(t)
		e := n.startWith(Config{ID: "hub", Role: Ephemeral, Peers: []PeerConfig{{Address: "tcp://tcp-hub", Addresses: []string{"ws://ws-hub"}}}})
		var refused *RefusedError
		if err := e.Attached(t.Context()); !errors.As(err, &refused) || refused.Code != 3 {
			t.Errorf("attached: %v", err)
		}
		if d := ways["ws"].count(); d != 0 {
			t.Errorf("the other way was dialled %d times", d)
		}
	})
}

func TestOptionsNeedATransportThatKnowsThem(t *testing.T) {
	_, err := New(t.Context(), Config{ID: "a", Transports: map[string]link.Transport{"mem": &memlink.Network{}},
		Peers: []PeerConfig{{Address: "mem://b", Options: link.Options{Rate: 1000}}}})
	if err == nil || !strings.Contains(err.Error(), `"mem://b"`) {
		t.Errorf("new: %v", err)
	}
}

// All nodes start at once and dial all others: every link is dialled from both
// its ends at the same time.
func TestSimultaneousDialsSettleOnOneLink(t *testing.T) {
	const nodes = 8
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		for i := range nodes {
			n.addrs[nodeID(i)] = "mem://" + string(nodeID(i))
		}
		for i := range nodes {
			var others []routing.NodeID
			for j := range nodes {
				if j != i {
					others = append(others, nodeID(j))
				}
			}
			n.start(nodeID(i), others...)
		}
		for i := range nodes {
			for j := range nodes {
				n.reach(nodeID(i), nodeID(j))
			}
		}
		time.Sleep(30 * time.Second) // the longest that a dialler which lost waits
		links := func() string {
			var all []string
			for i := range nodes {
				for _, l := range n.nodes[nodeID(i)].Status().Links {
					all = append(all, fmt.Sprint(nodeID(i), l.Node, l.Dialled, l.Since))
					if lower := nodeID(i) < l.Node; l.Dialled != lower {
						t.Errorf("the link between %s and %s was not dialled by the lower id", nodeID(i), l.Node)
					}
				}
			}
			return strings.Join(all, "\n")
		}
		before := links()
		if c := strings.Count(before, "\n") + 1; c != nodes*(nodes-1) {
			t.Errorf("%d ends of links, want %d", c, nodes*(nodes-1))
		}
		time.Sleep(10 * time.Minute)
		if after := links(); after != before {
			t.Errorf("links changed:\n%s\nthen\n%s", before, after)
		}
	})
}

// A node dies so that its neighbour is not told, and is started again at once.
func TestARestartedNodeIsTakenBackAtOnce(t *testing.T) {
	for name, peerDials := range map[string]bool{"it dials": false, "it is dialled": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet(t)
				n.addrs["hub"], n.addrs["a"] = "mem://hub", "mem://a"
				if peerDials {
					n.start("hub", "a")
					n.start("a")
				} else {
					n.start("hub")
					n.start("a", "hub")
				}
				n.reach("hub", "a")
				time.Sleep(1100 * time.Millisecond)
				old := n.nodes["a"].neighbour("hub")
				thaw := memlink.Freeze(old.link)
				defer thaw()
				for _, l := range n.nodes["a"].listeners {
					l.Close()
				}
				n.startWith(Config{ID: "a", Epoch: 2, Listeners: []ListenerConfig{{Address: "mem://a"}}}, "hub")
				start := time.Now()
				for nb := n.nodes["hub"].neighbour("a"); nb == nil || nb.hello.Epoch != 2; nb = n.nodes["hub"].neighbour("a") {
					if time.Since(start) > 5*time.Second {
						t.Fatal("the restarted node did not get its link")
					}
					time.Sleep(10 * time.Millisecond)
				}
				if took := time.Since(start); took > probeTime+100*time.Millisecond {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

func TestASupersededEndIsToldSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		n.start("hub")
		a := n.start("a", "hub")
		n.reach("a", "hub")
		old := a.neighbour("hub")
		// The hub takes a second link of the same process for the newer one.
		l, err := n.via.Dial(t.Context(), "hub")
		if err != nil {
			t.Fatal(err)
		}
		a.mu.Lock()
		delete(a.neighbours, "hub")
		a.attached = make(chan struct{})
		a.mu.Unlock()
		second, err := a.greet(t.Context(), l, PeerConfig{})
		if err != nil {
			t.Fatal(err)
		}
		go second.run(a.running)
		<-old.gone
		if !superseded(old.cause()) {
			t.Errorf("the old link ended with %v", old.cause())
		}
		n.reach("hub", "a")
		second.link.Close()
		<-second.gone
	})
}

// reads keeps reading what another end writes, until the stream ends.
func reads(r io.Reader) <-chan int {
	got := make(chan int, 1)
	go func() {
		c, _ := io.Copy(io.Discard, r)
		got <- int(c)
	}()
	return got
}
