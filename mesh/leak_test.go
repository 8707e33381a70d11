package mesh

import (
	"context"
	"io"
	"os"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/routing"
)

// soak tells whether the tests may take minutes (`make soak`).
func soak() bool { return os.Getenv("RANVIER_SOAK") != "" }

// held is what this process holds: goroutines, descriptors, bytes of the heap.
type held struct{ goroutines, descriptors, heap int }

func holds(t *testing.T) held {
	t.Helper()
	dir, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.GC() // what pools hold goes with the second one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return held{runtime.NumGoroutine(), len(dir), int(m.HeapAlloc)}
}

// comesBack waits until the process holds no more than a tenth above before.
func comesBack(t *testing.T, before held) {
	t.Helper()
	ok := func(now held) bool {
		return now.goroutines <= before.goroutines+before.goroutines/10 && now.descriptors <= before.descriptors+before.descriptors/10 &&
			now.heap <= before.heap+before.heap/10+2<<20
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	late := time.After(time.Minute)
	now := holds(t)
	for ; !ok(now); now = holds(t) {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%+v were held before, %+v a minute after", before, now)
		}
	}
	t.Logf("before %+v, after %+v", before, now)
}

// Links to a node come and go, each with a stream: a thousand in a soak, over
// each transport.
func TestLinksLeaveNothing(t *testing.T) {
	for _, scheme := range []string{"tcp", "quic", "ws"} {
		t.Run(scheme, func(t *testing.T) { testLinksLeaveNothing(t, scheme) })
	}
}

func testLinksLeaveNothing(t *testing.T, scheme string) {
	n := newNetOver(t, scheme)
	first, last := n.line(1)
	l, err := last.Listen("test")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	visit := func() {
		a, err := Attach(t.Context(), Config{Transports: map[string]link.Transport{scheme: n.via}, Peers: []PeerConfig{{Address: n.addrs[first.ID()]}}})
		if err != nil {
			t.Error(err)
			return
		}
		defer a.Close()
		c, err := a.Dial(t.Context(), last.ID(), "test")
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		one := []byte{1}
		c.Write(one)
		if _, err := io.ReadFull(c, one); err != nil {
			t.Error(err)
		}
	}
	visits := func(count int) {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range count / 8 {
					visit()
				}
			})
		}
		wg.Wait()
	}
	visits(40) // what is made at first use is there
	before := holds(t)
	if soak() {
		visits(920)
	}
	visits(80)
	comesBack(t, before)
}

// The link between two routers breaks again and again, a thousand times in a
// soak, under a stream that goes on each time.
func TestFlapsLeaveNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		first, last := n.line(1)
		near, far := stream(t, first, last)
		go io.Copy(far, far)
		flap := func(id routing.NodeID) {
			first.neighbour(id).link.Close()
			one := []byte{1}
			near.Write(one)
			if _, err := io.ReadFull(near, one); err != nil {
				t.Fatal(err)
			}
			n.reach("n0", "n2")
		}
		for range 10 {
			flap("n1")
		}
		time.Sleep(10 * time.Second) // in the bubble
		before := runtime.NumGoroutine()
		flaps := 200
		if soak() {
			flaps = 1000
		}
		for range flaps {
			flap("n1")
		}
		time.Sleep(10 * time.Second) // in the bubble
		synctest.Wait()
		if now := runtime.NumGoroutine(); now > before+before/10 {
			t.Errorf("%d goroutines before, %d after", before, now)
		}
		near.Close()
		far.Close()
	})
}

// Streams through a relay, many at a time: ten thousand in a soak.
func TestStreamsLeaveNothing(t *testing.T) {
	streams, atOnce := 500, 250
	if soak() {
		streams, atOnce = 10_000, 500
	}
	n := newNet(t)
	first, last := n.line(1)
	l, err := last.Listen("test")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	round := func() {
		var all sync.WaitGroup
		open := make(chan struct{}, 16) // at a time
		for range atOnce {
			all.Go(func() {
				open <- struct{}{}
				defer func() { <-open }()
				c, err := first.Dial(context.Background(), last.ID(), "test")
				if err != nil {
					t.Error(err)
					return
				}
				one := []byte{1}
				c.Write(one)
				if _, err := io.ReadFull(c, one); err != nil {
					t.Error(err)
				}
				c.Close()
				<-c.session.Gone()
			})
		}
		all.Wait()
	}
	round() // what is made at first use is there
	before := holds(t)
	for range streams / atOnce {
		round()
	}
	comesBack(t, before)
}
