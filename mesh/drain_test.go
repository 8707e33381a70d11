package mesh

import (
	"context"
	"errors"
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

func TestDrainMovesNewStreamsAndWaitsForTheOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := square(t)
		near, far := stream(t, n.nodes["a"], n.nodes["d"])
		relay := near.Path()[1]
		got := reads(far)

		drained := make(chan int, 1)
		go func() { drained <- n.nodes[relay].Drain(context.Background()) }()
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
		select {
		case <-drained:
			t.Fatal("it did not wait for its stream")
		default:
		}
		near.Write([]byte("the old stream goes on"))
		near.Close()
		if c := <-got; c != 22 {
			t.Errorf("%d bytes came through", c)
		}
		far.Close()
		if left := <-drained; left != 0 {
			t.Errorf("%d streams are left", left)
		}
		n.reach("a", relay) // what is for itself is still answered
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
