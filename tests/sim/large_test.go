package sim

import (
	"flag"
	"runtime"
	"runtime/debug"
	"syscall"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/routing"
)

var (
	virtual = flag.Duration("virtual", time.Hour, "how much virtual time BenchmarkHour lets pass")
	large   = flag.Bool("large", false, "TestLinkLoss on 300 routers with 900 links instead of 80 with 240")
)

// BenchmarkHour is an hour of a large mesh with churn: 300 routers with 900
// links, 9,700 leaves with one or two homes, and about every two seconds something
// that goes wrong or changes. The goal is 60 s on one core; the checks at the end
// are not part of it.
//
//	go test ./tests/sim -run xxx -bench Hour -benchtime 1x
func BenchmarkHour(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // the heap of all nodes is that of one process here
	var traces []uint64
	for b.Loop() {
		w := newWorld(b, *seed)
		routers, leaves := w.graph(300, 900), w.leaves(9700, 2)
		before, start := cpu(), time.Now()
		w.bootAll()
		w.stir(routers, leaves, *virtual, 2*time.Second)
		b.ReportMetric((cpu() - before).Seconds(), "cpu-s")
		b.ReportMetric(time.Since(start).Seconds(), "wall-s")
		b.ReportMetric(float64(w.delivered), "messages")
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapAlloc)/(1<<20), "heap-MiB")
		b.ReportMetric(60, "goal-s")
		w.settle()
		traces = append(traces, w.trace)
	}
	for _, trace := range traces {
		if trace != traces[0] {
			b.Errorf("one seed, two runs: traces %x and %x", trace, traces[0])
		}
	}
	b.Logf("trace %x", traces[0])
}

// cpu is the processor time that this process has taken.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestLinkLoss cuts links of 5 to 50 ms in a mesh, and looks when the last router
// knows.
func TestLinkLoss(t *testing.T) {
	t.Parallel()
	w := newWorld(t, *seed)
	routers := 80
	if *large {
		routers = 300
	}
	w.graph(routers, 3*routers)
	w.bootAll()
	w.run(30 * time.Second)
	worst := time.Duration(0)
	for range 10 {
		e := w.edges[w.rng.IntN(len(w.edges))]
		a, b := e.ends[0].id, e.ends[1].id
		knows, known := map[*node]bool{}, 0
		w.onPump = func(n *node) {
			if knows[n] {
				return
			}
			if info, _ := n.core.Table().Node(a); !linked(info, b) {
				knows[n] = true
				known++
			}
		}
		start := w.now
		w.breakUp(e)
		e.severed = true // it does not come back at once
		if !w.runUntil(w.now+time.Minute, func() bool { return known == len(w.nodes) }) {
			t.Fatalf("the loss of %s-%s is known to %d of %d routers after a minute", a, b, known, len(w.nodes))
		}
		worst = max(worst, w.now-start)
		w.onPump = nil
		w.mend(e)
		w.run(15 * time.Second) // pauses between adverts are short again
	}
	w.checkQuiet()
	t.Logf("the loss of a link is known everywhere after %v at most (goal 500 ms)", worst)
	if worst > 500*time.Millisecond {
		t.Errorf("the loss of a link is known everywhere after %v, goal 500 ms", worst)
	}
}

func linked(info routing.NodeInfo, to routing.NodeID) bool {
	for _, l := range info.Links {
		if l.To == to {
			return true
		}
	}
	return false
}
