package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/nettest"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/memlink"
	"github.com/ranvier-mesh/ranvier/mesh/quiclink"
	"github.com/ranvier-mesh/ranvier/mesh/tcplink"
	"github.com/ranvier-mesh/ranvier/mesh/wslink"
	"github.com/ranvier-mesh/ranvier/routing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// net1 is a set of nodes on one in-memory or TCP network, stopped with the test.
type net1 struct {
	t          testing.TB
	scheme     string
	via        link.Transport
	transports map[string]link.Transport // in place of via
	nodes      map[routing.NodeID]*running
	addrs      map[routing.NodeID]string
}

type running struct {
	*Mesh
	stop func()
}

func newNet(t testing.TB) *net1 {
	return &net1{t: t, scheme: "mem", via: &memlink.Network{}, nodes: map[routing.NodeID]*running{}, addrs: map[routing.NodeID]string{}}
}

// newNetOver is newNet with another transport than memory.
func newNetOver(t testing.TB, scheme string) *net1 {
	n := newNet(t)
	n.scheme = scheme
	switch scheme {
	case "tcp":
		n.via = tcplink.Transport{}
	case "ws":
		n.via = wslink.Transport{}
	case "quic":
		q, err := quiclink.New(quiclink.Config{})
		if err != nil {
			t.Fatal(err)
		}
		n.via = q
	}
	return n
}

func (n *net1) listenAddr(id routing.NodeID) string {
	if n.scheme == "mem" {
		return string(id)
	}
	return "127.0.0.1:0"
}

// start runs a router that dials peers.
func (n *net1) start(id routing.NodeID, peers ...routing.NodeID) *running {
	return n.startWith(Config{ID: id, Listeners: []ListenerConfig{{Address: n.scheme + "://" + n.listenAddr(id)}}}, peers...)
}

func (n *net1) startWith(cfg Config, peers ...routing.NodeID) *running {
	n.t.Helper()
	if cfg.Transports = n.transports; cfg.Transports == nil {
		cfg.Transports = map[string]link.Transport{n.scheme: n.via}
	}
	cfg.Epoch = max(cfg.Epoch, 1)
	for _, p := range peers {
		cfg.Peers = append(cfg.Peers, PeerConfig{Address: n.addrs[p]})
	}
	m, err := New(n.t.Context(), cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- m.Run(ctx) }()
	stop := func() {
		if ctx.Err() != nil {
			return
		}
		cancel()
		if err := <-over; err != nil {
			n.t.Errorf("node %s: %v", cfg.ID, err)
		}
	}
	n.t.Cleanup(stop)
	r := &running{m, stop}
	n.nodes[cfg.ID] = r
	if a := m.Addrs(); len(a) > 0 {
		n.addrs[cfg.ID] = a[0]
	}
	return r
}

// reach waits until from can ping to.
func (n *net1) reach(from, to routing.NodeID) []Hop {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		_, hops, err := n.nodes[from].Ping(ctx, to)
		if err == nil {
			return hops
		}
		if !sleep(ctx, 5*time.Millisecond) {
			n.t.Fatalf("%s does not reach %s: %v", from, to, err)
		}
	}
}

// line starts relays+2 nodes in a row, n0 to the last, and waits for the routes.
func (n *net1) line(relays int) (first, last *running) {
	n.t.Helper()
	n.start("n0")
	for i := 1; i <= relays+1; i++ {
		n.start(nodeID(i), nodeID(i-1))
	}
	n.reach("n0", nodeID(relays+1))
	n.reach(nodeID(relays+1), "n0")
	return n.nodes["n0"], n.nodes[nodeID(relays+1)]
}

func nodeID(i int) routing.NodeID { return routing.NodeID(fmt.Sprintf("n%d", i)) }

// stream opens a stream to an accepting service.
func stream(t testing.TB, from, to *running) (near, far *Conn) {
	t.Helper()
	l, err := to.Listen("test")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err = from.Dial(t.Context(), to.ID(), "test")
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return near, c.(*Conn)
}

func TestConnConformance(t *testing.T) {
	for _, transport := range []string{"mem", "tcp", "quic", "ws"} {
		for _, relays := range []int{-1, 0, 1, 3} { // -1: a stream to the node itself
			if relays != 1 && (transport == "quic" || transport == "ws") {
				continue
			}
			t.Run(fmt.Sprintf("%s, %d relays", transport, relays), func(t *testing.T) {
				n := newNetOver(t, transport)
				first, last := n.line(relays)
				nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
					near, far := stream(t, first, last)
					return near, far, func() {
						near.Close()
						far.Close()
					}, nil
				})
			})
		}
	}
}

func TestPingTellsThePath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		n.line(2)
		hops := n.reach("n0", "n3")
		var ids []routing.NodeID
		for _, h := range hops {
			ids = append(ids, h.Node)
		}
		if got := joinIDs(ids, " "); got != "n0 n1 n2 n3" {
			t.Errorf("path %s", got)
		}
	})
}

func TestStreamKnowsItsEndsAndPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		near, far := stream(t, first(n.line(1)), n.nodes["n2"])
		if near.PeerIdentity() != "n2" || far.PeerIdentity() != "n0" {
			t.Errorf("ends %s, %s", near.PeerIdentity(), far.PeerIdentity())
		}
		for _, c := range []*Conn{near, far} {
			if got := joinIDs(c.Path(), " "); got != "n0 n1 n2" {
				t.Errorf("path %s", got)
			}
		}
	})
}

func first(a, _ *running) *running { return a }

func TestUnknownTargetNamesWhatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		n.line(1)
		_, err := n.nodes["n0"].Dial(t.Context(), "nowhere", "test")
		var refused *RefusedError
		if !errors.As(err, &refused) || refused.Code != NoRoute || refused.Node != "n0" {
			t.Fatalf("dial: %v", err)
		}
		if want := "stream to nowhere: node n0 refused: no route to node nowhere: known are n0, n1, n2"; err.Error() != want {
			t.Errorf("error %q, want %q", err, want)
		}
	})
}

func TestAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		n.line(1)
		n0 := n.nodes["n0"]
		if n0.Away("n2") != nil {
			t.Error("a node that can be reached is away")
		}
		n.nodes["n2"].stop()
		synctest.Wait()
		time.Sleep(time.Minute)
		away := n0.Away("n2")
		if away == nil {
			t.Fatal("a node that has ended is not away")
		}
		select {
		case <-away:
			t.Error("it is called back while nothing has changed")
		default:
		}
	})
}

func TestUnknownServiceIsRefusedByTheTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		n.line(1)
		_, err := n.nodes["n0"].Dial(t.Context(), "n2", "nothing")
		var refused *RefusedError
		if !errors.As(err, &refused) || refused.Code != NoService || refused.Node != "n2" {
			t.Fatalf("dial: %v", err)
		}
		if got := joinIDs(refused.Path, " "); got != "n0 n1 n2" {
			t.Errorf("path %s", got)
		}
	})
}

func TestHalfClosedStreamLivesAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		near, far := stream(t, first(n.line(1)), n.nodes["n2"])
		near.Write([]byte("request"))
		near.CloseWrite()
		if got, err := io.ReadAll(far); err != nil || string(got) != "request" {
			t.Fatalf("read %q, %v", got, err)
		}
		time.Sleep(time.Hour)
		go func() {
			far.Write([]byte("answer"))
			far.Close()
		}()
		if got, err := io.ReadAll(near); err != nil || string(got) != "answer" {
			t.Fatalf("read %q, %v", got, err)
		}
		near.Close()
	})
}

func TestASilentPeerIsGivenUpAndTheOtherWayTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		n.start("a")
		n.start("b", "a")
		n.start("c", "a")
		n.start("d", "b", "c")
		n.reach("a", "d")
		time.Sleep(10 * time.Second)
		hops := n.reach("a", "d")
		way := hops[1].Node
		thaw := []func(){}
		for _, nb := range n.nodes[way].allNeighbours() {
			thaw = append(thaw, memlink.Freeze(nb.link))
			thaw = append(thaw, memlink.Freeze(n.nodes[nb.id].neighbour(way).link))
		}
		start := time.Now()
		for {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			_, hops, err := n.nodes["a"].Ping(ctx, "d")
			cancel()
			if err == nil && hops[1].Node != way {
				break
			}
			if time.Since(start) > time.Minute {
				t.Fatal("no other way")
			}
		}
		if d := time.Since(start); d > 4200*time.Millisecond {
			t.Errorf("the other way was taken after %v", d)
		}
		for _, f := range thaw {
			f()
		}
	})
}

// A node that stops without a word, and is started again, has not done any harm:
// it was asked in vain while its link was silent.
func TestAStoppedNodeIsNoSuspect(t *testing.T) {
	for phase := time.Duration(0); phase < time.Second; phase += 100 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			n := newNet(t)
			n.start("a")
			n.start("b", "a")
			n.start("c", "b")
			n.start("d", "c")
			n.start("e", "d", "a")
			n.reach("a", "d")
			time.Sleep(10*time.Second + phase)
			n.reach("a", "e") // the last that a hears of it
			a := n.nodes["a"]
			var thaw []func()
			for _, nb := range n.nodes["e"].allNeighbours() {
				thaw = append(thaw, memlink.Freeze(nb.link)) // e still takes what is sent to it
			}
			start := time.Now()
			for round := range 2 { // the second one asks at once, and perhaps before the link is given up
				if _, hops, err := a.Ping(t.Context(), "d"); err != nil || hops[1].Node != "b" {
					t.Errorf("phase %v, ping %d after the stop: by %v, %v", phase, round+1, hops, err)
				}
				if d := time.Since(start); d > hopTime {
					t.Errorf("phase %v, ping %d was answered %v after the stop", phase, round+1, d)
				}
			}
			for _, f := range thaw {
				f()
			}
			time.Sleep(10 * time.Second)
			if s := a.Status().Suspects; len(s) > 0 {
				t.Errorf("phase %v: a suspects %+v", phase, s)
			}
			if hops := n.reach("a", "d"); hops[1].Node != "e" {
				t.Errorf("phase %v: e is back and the way is still %v", phase, hops)
			}
		})
	}
}

func TestALinkThatBreaksComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		n.line(1)
		n.nodes["n1"].neighbour("n0").link.Close()
		start := time.Now()
		n.reach("n0", "n2")
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("back after %v", d)
		}
	})
}

func TestIdleLinksStayUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		n.line(1)
		e := n.startWith(Config{ID: "e", Role: Ephemeral}, "n0")
		if err := e.Attached(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		before := n.nodes["n0"].Status().Links
		time.Sleep(24 * time.Hour)
		after := n.nodes["n0"].Status().Links
		if len(before) != 2 || len(after) != 2 {
			t.Fatalf("links: %v, then %v", before, after)
		}
		for i := range after {
			if before[i].Since != after[i].Since {
				t.Errorf("link to %s was lost", after[i].Node)
			}
		}
	})
}

func TestEphemeralNodeFloodsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		n.line(1)
		time.Sleep(time.Minute)
		floods := func() (sum uint64) {
			for _, m := range n.nodes {
				if m.cfg.Role == Router {
					sum += m.floods.Load()
				}
			}
			return sum
		}
		before := floods()
		if before == 0 {
			t.Fatal("the counter counts nothing")
		}
		e := n.startWith(Config{ID: "user/1", Role: Ephemeral}, "n0")
		if err := e.Attached(t.Context()); err != nil {
			t.Fatal(err)
		}
		near, far := stream(t, e, n.nodes["n2"])
		go near.Write([]byte("hello"))
		if _, err := io.ReadFull(far, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		near.Close()
		far.Close()
		e.stop()
		delete(n.nodes, "user/1")
		time.Sleep(30 * time.Second)
		if after := floods(); after != before {
			t.Errorf("%d messages were flooded", after-before)
		}
		if nodes := n.nodes["n2"].Status().Nodes; len(nodes) != 3 {
			t.Errorf("known nodes: %v", nodes)
		}
	})
}

func TestLeafIsReachedThroughItsHomesAndNeverForwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		n.line(1)
		n.startWith(Config{ID: "edge", Role: Leaf}, "n0", "n2")
		n.reach("n1", "edge")
		n.reach("edge", "n1")
		n.nodes["n1"].stop() // n0 and n2 are now linked by the leaf alone
		delete(n.nodes, "n1")
		time.Sleep(time.Second)
		var refused *RefusedError
		if _, _, err := n.nodes["n0"].Ping(t.Context(), "n2"); !errors.As(err, &refused) || refused.Code != NoRoute {
			t.Errorf("ping through a leaf: %v", err)
		}
		n.reach("n0", "edge")
		n.reach("n2", "edge")
		n.reach("edge", "n2")
	})
}

func TestPeerThatCannotBeReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		n.addrs["gone"] = "mem://gone"
		e := n.startWith(Config{ID: "e", Role: Ephemeral}, "gone")
		err := e.Attached(t.Context())
		var peer *PeerError
		if !errors.As(err, &peer) || peer.Address != "mem://gone" {
			t.Fatalf("attached: %v", err)
		}
	})
}

func TestDuplicateIDIsRefusedAndTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		n.start("hub")
		a := n.start("twin", "hub")
		n.reach("hub", "twin")
		twin, err := New(t.Context(), Config{ID: "twin", Epoch: 5, Role: Ephemeral,
			Transports: map[string]link.Transport{"mem": n.via}, Peers: []PeerConfig{{Address: n.addrs["hub"]}}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan error)
		go func() { over <- twin.Run(ctx) }()
		err = twin.Attached(t.Context())
		var refused *RefusedError
		if !errors.As(err, &refused) || refused.Code != 3 || refused.Node != "hub" {
			t.Errorf("attached: %v", err)
		}
		cancel()
		<-over
		if _, _, err := n.nodes["hub"].Ping(t.Context(), "twin"); err != nil {
			t.Errorf("the first twin lost its link: %v", err)
		}
		a.stop()
	})
}

// A leaf that has nothing to say is silent for many seconds, and no less alive.
func TestTwinOfAQuietLeafIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		n.start("hub")
		first := n.startWith(Config{ID: "edge", Role: Leaf}, "hub")
		n.reach("hub", "edge")
		since := first.neighbour("hub").since
		n.startWith(Config{ID: "edge", Role: Leaf, Epoch: 2}, "hub")
		time.Sleep(10 * time.Minute)
		if now := first.neighbour("hub"); now == nil || now.since != since {
			t.Error("the first twin lost its link")
		}
		var refused *RefusedError
		if down := n.nodes["edge"].Status().Down; len(down) != 1 || !errors.As(down[0], &refused) || refused.Code != wire.CodeDuplicateID {
			t.Errorf("the second is told %v", down)
		}
	})
}

// The end of a link is told to the core when the next one may be up already.
func TestTheLateEndOfALinkDoesNotEndTheNext(t *testing.T) {
	for _, role := range []Role{Router, Leaf} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet(t)
			hub := n.start("hub")
			n.startWith(Config{ID: "a", Role: role}, "hub")
			n.reach("hub", "a")
			old := hub.neighbour("a")
			old.link.Close()
			<-old.gone
			n.reach("hub", "a")
			time.Sleep(time.Second)
			hub.change(hub.running, func(c *routing.Core, now time.Time) { hub.withdraw(c, now, old) })
			time.Sleep(time.Second)
			if _, _, err := hub.Ping(t.Context(), "a"); err != nil {
				t.Errorf("the %v with a link is not reached: %v", role, err)
			}
		})
	}
}

func TestRestartedNodeReplacesItsDeadLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		n.start("hub")
		n.startWith(Config{ID: "a", Peers: []PeerConfig{{Address: n.addrs["hub"], Once: true}}})
		n.reach("hub", "a")
		// a's host loses power: the hub hears nothing more of it
		old := n.nodes["a"].neighbour("hub")
		thaw := memlink.Freeze(old.link)
		defer thaw()
		time.Sleep(2 * time.Second)
		n.startWith(Config{ID: "a", Epoch: 2}, "hub")
		start := time.Now()
		for n.nodes["hub"].neighbour("a") == nil || n.nodes["hub"].neighbour("a").hello.Epoch != 2 {
			if time.Since(start) > 4*time.Second {
				t.Fatal("the restarted node did not get its link")
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
}

func TestBothEndsDialEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		n.addrs["a"], n.addrs["b"] = "mem://a", "mem://b"
		n.start("a", "b")
		n.start("b", "a")
		n.reach("a", "b")
		time.Sleep(10 * time.Second)
		since := n.nodes["a"].Status().Links[0].Since
		time.Sleep(10 * time.Minute)
		links := n.nodes["a"].Status().Links
		if len(links) != 1 || links[0].Since != since {
			t.Errorf("the link is not steady: %+v", links)
		}
		n.reach("b", "a")
	})
}

func TestListenerCosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		n.startWith(Config{ID: "hub", Listeners: []ListenerConfig{{Address: "mem://hub", Cost: 2500,
			NodeCost: map[routing.NodeID]routing.Cost{"b": 7000}}}})
		n.start("a", "hub")
		n.start("b", "hub")
		n.reach("a", "b")
		costs := map[routing.NodeID]routing.Cost{}
		for _, l := range n.nodes["hub"].Status().Links {
			costs[l.Node] = l.Cost
		}
		if costs["a"] != 2500 || costs["b"] != 7000 {
			t.Errorf("costs %v", costs)
		}
		if l := n.nodes["a"].Status().Links; l[0].Cost != 2500 {
			t.Errorf("the dialling end says %v", l[0].Cost)
		}
	})
}

func TestAllowedPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		n.startWith(Config{ID: "hub", Listeners: []ListenerConfig{{Address: "mem://hub", AllowedPeers: []routing.NodeID{"a"}}}})
		n.start("a", "hub")
		n.reach("hub", "a")
		e := n.startWith(Config{ID: "stranger", Role: Ephemeral}, "hub")
		var refused *RefusedError
		if err := e.Attached(t.Context()); !errors.As(err, &refused) || refused.Code != Forbidden {
			t.Errorf("attached: %v", err)
		}
	})
}

func TestStopDeliversWhatWasWritten(t *testing.T) {
	n := newNet(t)
	near, far := stream(t, first(n.line(1)), n.nodes["n2"])
	sent := bytes.Repeat([]byte("x"), 100_000)
	got := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(far)
		got <- b
	}()
	if _, err := near.Write(sent); err != nil {
		t.Fatal(err)
	}
	n.nodes["n0"].stop()
	if b := <-got; !bytes.Equal(b, sent) {
		t.Errorf("%d of %d bytes arrived", len(b), len(sent))
	}
}

// Whatever carries the links, the last word of a node is heard.
func TestGoodbyesArrive(t *testing.T) {
	for _, transport := range []string{"mem", "tcp", "quic", "ws"} {
		t.Run(transport, func(t *testing.T) {
			n := newNetOver(t, transport)
			hub := n.start("hub")
			a := n.start("a", "hub")
			n.reach("a", "hub")
			e := n.startWith(Config{ID: "hub", Role: Ephemeral}, "hub")
			var refused *RefusedError
			if err := e.Attached(t.Context()); !errors.As(err, &refused) || refused.Code != 3 {
				t.Errorf("attached: %v", err)
			}
			link := a.neighbour("hub")
			start := time.Now()
			hub.stop()
			<-link.gone
			if err := link.cause(); !errors.As(err, &refused) || refused.Code != 12 {
				t.Errorf("the link ended with %v", err)
			}
			if took := time.Since(start); took > partingTime-100*time.Millisecond {
				t.Errorf("the node took %v to stop", took)
			}
		})
	}
}
