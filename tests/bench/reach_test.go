package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/control"
)

// What happens when nodes come and go is measured with processes of the
// program itself, asked at their control sockets.

// graph is nodes of which none runs yet, and which of them dials which.
func graph(b *testing.B, n int, dials func(i int) []int) []*worker {
	b.Helper()
	bin, all := buildRanvier(b), make([]*worker, n)
	var held []net.Listener
	for i := range all {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		held = append(held, l)
		all[i] = &worker{bin: bin, id: "w" + strconv.Itoa(i), dir: b.TempDir(), address: l.Addr().String()}
	}
	for _, l := range held {
		l.Close()
	}
	for i, w := range all {
		_, port, _ := net.SplitHostPort(w.address)
		text := fmt.Sprintf("---\n- node: {id: %s, datadir: %s/data}\n- control-service: {service: control, filename: %s/s}\n"+
			"- tcp-listener: {bindaddr: 127.0.0.1, port: %s}\n", w.id, w.dir, w.dir, port)
		for _, to := range dials(i) {
			text += fmt.Sprintf("- tcp-peer: {address: '%s'}\n", all[to].address)
		}
		if err := os.WriteFile(w.dir+"/f.yml", []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(w.gone)
	}
	return all
}

// ring has each node dial the next one.
func ring(b *testing.B, n int) []*worker {
	return graph(b, n, func(i int) []int { return []int{(i + 1) % n} })
}

func (w *worker) launch(b *testing.B) {
	b.Helper()
	w.cmd = exec.Command(w.bin, "node", "-c", w.dir+"/f.yml")
	if err := w.cmd.Start(); err != nil {
		b.Fatal(err)
	}
}

// gone is kill -9, and nothing for one that does not run.
func (w *worker) gone() {
	if w.cmd != nil {
		w.cmd.Process.Signal(syscall.SIGCONT)
		w.cmd.Process.Kill()
		w.cmd.Wait()
		w.cmd = nil
	}
}

// serving waits until the control socket answers, and returns a connection.
func (w *worker) serving(b *testing.B) *control.Client {
	b.Helper()
	var c *control.Client
	w.soon(b, func(ctx context.Context) (err error) { c, err = control.Dial(ctx, w.dir+"/s"); return err })
	b.Cleanup(func() { c.Close() })
	return c
}

// soon tries without a pause worth mentioning: what is measured ends with it.
func (w *worker) soon(b *testing.B, f func(context.Context) error) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for err := f(ctx); err != nil; err = f(ctx) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.Fatalf("node %s: %v", w.id, err)
		}
	}
}

func pings(c *control.Client, to string) func(context.Context) error {
	return func(ctx context.Context) error { _, err := c.Ping(ctx, to); return err }
}

// passes waits until a node is reached through so many links.
func (w *worker) passes(b *testing.B, c *control.Client, to string, links int) {
	b.Helper()
	w.soon(b, func(ctx context.Context) error {
		hops, err := c.Traceroute(ctx, to)
		if err == nil && len(hops) != links+1 {
			err = fmt.Errorf("%d hops", len(hops))
		}
		return err
	})
}

// closed waits until a node knows two links of each node of a ring: there is another way.
func (w *worker) closed(b *testing.B, c *control.Client, nodes int) {
	b.Helper()
	w.soon(b, func(ctx context.Context) error {
		s, err := c.Status(ctx)
		links := 0
		for _, to := range s.KnownConnectionCosts {
			links += len(to)
		}
		if err == nil && links < 2*nodes {
			err = fmt.Errorf("%d ends of links are known", links)
		}
		return err
	})
}

// BenchmarkRingNodeGone: in a ring of ten, the first node on the way is killed,
// or stopped silently; until a ping is answered on the other way.
func BenchmarkRingNodeGone(b *testing.B) {
	for _, c := range []struct {
		name   string
		with   syscall.Signal
		rounds int
		bound  float64 // ms
	}{{"killed", syscall.SIGKILL, 20, 100}, {"stopped", syscall.SIGSTOP, 5, 4000}} {
		b.Run(c.name, func(b *testing.B) {
			all := ring(b, 10)
			for _, w := range all {
				w.launch(b)
			}
			asked := all[0].serving(b)
			var took []time.Duration
			for range c.rounds {
				all[0].closed(b, asked, len(all))
				all[0].passes(b, asked, "w3", 3)
				victim := all[1]
				start := time.Now()
				victim.cmd.Process.Signal(c.with)
				all[0].soon(b, pings(asked, "w3"))
				if c.with == syscall.SIGSTOP { // the ping before the stop was noticed may have passed
					all[0].passes(b, asked, "w3", 7)
				}
				took = append(took, time.Since(start))
				victim.gone()
				victim.launch(b)
			}
			goal(b, "ring of 10, a node "+c.name+", next ping, median", "ms", inMS(percentile(took, 50)), c.bound)
			goal(b, "ring of 10, a node "+c.name+", next ping, p99", "ms", inMS(percentile(took, 99)), c.bound)
		})
	}
}

// BenchmarkRestart: a node at the end of a line of four is back after three
// seconds; from its process's start until it is reached from the other end.
func BenchmarkRestart(b *testing.B) {
	for _, c := range []struct {
		name  string
		dials func(i int) []int
		bound float64
	}{
		{"is dialled", func(i int) []int { return []int{i + 1}[:min(1, 3-i)] }, 2200},
		{"dials", func(i int) []int { return []int{i - 1}[:min(1, i)] }, 500},
	} {
		b.Run(c.name, func(b *testing.B) {
			all := graph(b, 4, c.dials)
			for _, w := range all {
				w.launch(b)
			}
			asked := all[0].serving(b)
			all[0].soon(b, pings(asked, "w3"))
			var took []time.Duration
			for range 7 {
				all[3].gone()
				pass(3 * time.Second)
				start := time.Now()
				all[3].launch(b)
				all[0].soon(b, pings(asked, "w3"))
				took = append(took, time.Since(start))
			}
			goal(b, "restarted after 3 s, "+c.name+", median", "ms", inMS(percentile(took, 50)), c.bound)
			goal(b, "restarted after 3 s, "+c.name+", worst", "ms", inMS(percentile(took, 99)), c.bound)
		})
	}
}

// BenchmarkColdStart: ten nodes of a ring are started at once; until every one
// of them has routes to all others.
func BenchmarkColdStart(b *testing.B) {
	var took []float64
	all := ring(b, 10)
	for range 5 {
		start := time.Now()
		for _, w := range all {
			w.launch(b)
		}
		var g sync.WaitGroup
		for _, w := range all {
			g.Go(func() {
				c := w.serving(b)
				w.soon(b, func(ctx context.Context) error {
					s, err := c.Status(ctx)
					if err == nil && len(s.RoutingTable) < len(all)-1 {
						err = errors.New("routes are missing")
					}
					return err
				})
			})
		}
		g.Wait()
		took = append(took, inMS(time.Since(start)))
		for _, w := range all {
			w.gone()
			os.Remove(w.dir + "/s")
		}
	}
	goal(b, "ring of 10 started at once, all routes, median", "ms", median(took), 1000)
}

// BenchmarkNode: what one node with three links costs, and how soon it serves.
func BenchmarkNode(b *testing.B) {
	all := graph(b, 4, func(i int) []int { return []int{1, 2, 3}[:3*min(1, max(0, 1-i))] })
	for _, w := range all[1:] {
		w.launch(b)
		w.serving(b)
	}
	var starts []float64
	for range 11 {
		all[0].gone()
		os.Remove(all[0].dir + "/s")
		start := time.Now()
		all[0].launch(b)
		all[0].serving(b)
		starts = append(starts, inMS(time.Since(start)))
	}
	asked := all[0].serving(b)
	for _, w := range all[1:] {
		all[0].soon(b, pings(asked, w.id))
	}
	const idle = 30 * time.Second
	before := processorTime(b, all[0].cmd.Process.Pid)
	pass(idle)
	used := processorTime(b, all[0].cmd.Process.Pid) - before
	goal(b, "node, start to serving, median", "ms", median(starts), 50)
	goal(b, "node, resident memory with 3 links", "MiB", all[0].rss(), 25)
	goal(b, "node, processor idle with 3 links", "%", 100*used.Seconds()/idle.Seconds(), 0.1)
}

// processorTime is what the threads of a process have used, to the nanosecond.
func processorTime(b *testing.B, pid int) (sum time.Duration) {
	b.Helper()
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		b.Fatal(err)
	}
	for _, thread := range threads {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, thread.Name()))
		if f := strings.Fields(string(text)); len(f) > 0 {
			ns, _ := strconv.ParseInt(f[0], 10, 64)
			sum += time.Duration(ns)
		}
	}
	return sum
}
