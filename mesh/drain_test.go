package mesh

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// square has two ways between a and d, through b and through c. It is for a bubble.
func square(t *testing.T) *net1 {
	n := newNet(t)
	n.start("a")
	n.start("b", "a")
	n.start("c", "a")
	n.start("d", "b", "c")
	n.reach("a", "d")
	n.reach("d", "a")
	time.Sleep(10 * time.Second) // in the bubble: all adverts have arrived
	return n
}

func TestDrainMovesNewStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := square(t)
		relay := n.reach("a", "d")[1].Node
		if left := n.nodes[relay].Drain(t.Context()); left != 0 {
			t.Errorf("%d streams are left", left)
		}
		time.Sleep(time.Second)
		for range 20 {
			hops := n.reach("a", "d")
			if len(hops) != 3 || hops[1].Node == relay {
				t.Fatalf("a new stream goes by %v", hops)
			}
		}
		for _, info := range n.nodes["a"].Status().Nodes {
			if info.Draining != (info.ID == relay) {
				t.Errorf("node %s, draining: %v", info.ID, info.Draining)
			}
		}
		n.reach("a", relay) // what is for itself is still answered
	})
}

// pauses reads all of a stream, and tells how much it was, whether the bytes
// are those of a pattern, and the longest time between two reads.
func pauses(r io.Reader) (total int, longest time.Duration, same bool) {
	buf, last := make([]byte, 32<<10), time.Now()
	same = true
	for {
		k, err := r.Read(buf)
		for i, b := range buf[:k] {
			same = same && b == patternAt(total+i)
		}
		total += k
		longest = max(longest, time.Since(last))
		last = time.Now()
		if err != nil {
			return total, longest, same && err == io.EOF
		}
	}
}

func patternAt(i int) byte { return byte(i>>12) ^ byte(i) }

// A stream from one node to another goes on while the relay that it passes
// drains and stops, whoever is at its ends and has a database or not.
func TestDrainMovesRunningStreams(t *testing.T) {
	for _, ends := range []struct {
		name     string
		from, to Role
	}{{"routers", Router, Router}, {"to a leaf", Router, Leaf}, {"from a leaf", Leaf, Router}, {"from an ephemeral node", Ephemeral, Leaf}} {
		t.Run(ends.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { drainUnderWay(t, ends.from, ends.to) })
		})
	}
}

// drainUnderWay is for a bubble.
func drainUnderWay(t *testing.T, from, to Role) {
	n := newNet(t)
	n.start("b")
	n.start("c", "b")
	n.startWith(Config{ID: "a", Role: from}, "b", "c")
	n.startWith(Config{ID: "d", Role: to, Listeners: []ListenerConfig{{Address: "mem://d"}}}, "b", "c")
	n.reach("a", "d")
	time.Sleep(10 * time.Second) // in the bubble: all adverts have arrived
	near, far := stream(t, n.nodes["a"], n.nodes["d"])
	old := near.Path()
	relay := old[1]

	const blocks = 400
	go func() {
		block := make([]byte, 4096)
		for i := range blocks {
			for j := range block {
				block[j] = patternAt(i*len(block) + j)
			}
			near.Write(block)
			time.Sleep(10 * time.Millisecond) // in the bubble: it takes 4 s
		}
		near.CloseWrite()
	}()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		time.Sleep(time.Second)
		if left := n.nodes[relay].Drain(t.Context()); left != 0 {
			t.Errorf("%d streams are left at %s", left, relay)
		}
		if slices.Contains(near.Path(), relay) {
			t.Errorf("%s has drained, and the stream passes %v", relay, near.Path())
		}
		n.nodes[relay].stop()
	}()
	start := time.Now()
	total, longest, same := pauses(far)
	if total != blocks*4096 || !same {
		t.Errorf("%d bytes came of %d, the right ones: %v", total, blocks*4096, same)
	}
	if longest > 200*time.Millisecond {
		t.Errorf("nothing came for %v", longest)
	}
	if took := time.Since(start); took > 6*time.Second {
		t.Errorf("it took %v", took)
	}
	select {
	case <-stopped:
	default:
		t.Errorf("the stream was over before %s had drained", relay)
	}
	near.Close()
	far.Close()
}

// Where there is no other way yet, it is looked for again.
func TestDrainFindsAWayThatComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		near, far := stream(t, first(n.line(1)), n.nodes["n2"])
		defer near.Close()
		defer far.Close()
		drained, relay := make(chan int, 1), n.nodes["n1"]
		go func() { drained <- relay.Drain(t.Context()) }()
		time.Sleep(700 * time.Millisecond)
		n.start("other", "n0", "n2")
		if left := <-drained; left != 0 || slices.Contains(near.Path(), "n1") {
			t.Errorf("%d streams are left, and this one passes %v", left, near.Path())
		}
	})
}

func TestDrainIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		near, far := stream(t, first(n.line(1)), n.nodes["n2"])
		defer near.Close()
		defer far.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		if left := n.nodes["n1"].Drain(ctx); left != 1 {
			t.Errorf("%d streams are left", left)
		}
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("it took %v", took)
		}
		var refused *RefusedError
		if _, _, err := n.nodes["n0"].Ping(t.Context(), "n2"); !errors.As(err, &refused) || refused.Code != 8 || refused.Node != "n1" {
			t.Errorf("a ping through the draining node: %v", err)
		}
		near.Close()
		far.Close()
		if left := n.nodes["n1"].Drain(t.Context()); left != 0 {
			t.Errorf("%d streams are left", left)
		}
	})
}

func TestDrainOfANodeThatCarriesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		n.line(1)
		start := time.Now()
		if left := n.nodes["n1"].Drain(t.Context()); left != 0 || time.Since(start) != 0 {
			t.Errorf("%d streams are left after %v", left, time.Since(start))
		}
	})
}

func TestAdvertiseKeepsDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		n.line(0)
		n.nodes["n1"].Drain(t.Context())
		n.nodes["n1"].Advertise(t.Context(), nil, nil)
		time.Sleep(time.Minute)
		for _, info := range n.nodes["n0"].Status().Nodes {
			if info.ID == "n1" && !info.Draining {
				t.Error("the node no longer says that it drains")
			}
		}
	})
}
