package bench

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// goal prints a line of the table whose reference is a bound.
func goal(b *testing.B, what, unit string, ours, bound float64) {
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ours, strings.ReplaceAll(what, " ", "_")+"_"+unit)
	fmt.Printf("%-52s ours %9.2f %s   goal %9.2f %s   ratio %.2f\n", what, ours, unit, bound, unit, ours/bound)
}

func inMS(d time.Duration) float64 { return d.Seconds() * 1000 }

const mib = 1 << 20

// through puts a proxy between the first two nodes of a line.
func through(b *testing.B, p proxy, s *spec) {
	p.to = strings.TrimPrefix(s.Peers[0], "tcp://")
	s.Peers = []string{"tcp://" + p.listen(b)}
}

// BenchmarkSlowLink: eight uploads for a minute over a line of 5 Mbit/s and 80
// ms with a queue of 64 KiB. A ping passes the same queues as a heartbeat.
func BenchmarkSlowLink(b *testing.B) {
	l := newNodes(b).line("mesh", 0, func(i int, s *spec) {
		if i == 1 {
			through(b, proxy{delay: 40 * time.Millisecond, rate: 5e6 / 8, queue: 64 << 10}, s)
		}
	})
	up := l[1].do(order{Do: "stats"}).LinksUp
	l.first().do(order{Do: "bulk", To: l.last(), Streams: 8})
	times := l.first().do(order{Do: "pings", To: l.last(), N: 60, Every: time.Second}).Times
	goal(b, "slow link, heartbeat p99", "ms", inMS(percentile(times, 99)), 1000)
	goal(b, "slow link, links declared dead", "links", float64(l[1].do(order{Do: "stats"}).LinksUp-up), 1)
}

// BenchmarkLongLink: one stream through a relay, where the first link has a round
// trip of 40 ms. The goal is less where the proxy itself is slower.
func BenchmarkLongLink(b *testing.B) {
	const bytes = 1 << 30
	far := proxy{delay: 20 * time.Millisecond}
	l := newNodes(b).line("mesh", 1, func(i int, s *spec) {
		if i == 1 {
			through(b, far, s)
		}
	})
	var speed, alone []float64
	for range max(b.N, 3) {
		speed = append(speed, l.send(1, bytes).mbPerSecond)
		alone = append(alone, far.alone(b, bytes))
	}
	report(b, "one stream, 1 relay, 40 ms; and no mesh", "MB/s", speed, alone)
	goal(b, "one stream, 1 relay, 40 ms", "MB/s", median(speed), min(150, median(alone)))
}

// BenchmarkControlBesideBulk: small messages beside 50 busy streams of a link
// with a rate of 100 MB/s.
func BenchmarkControlBesideBulk(b *testing.B) {
	l := newNodes(b).line("mesh", 0, func(_ int, s *spec) { s.Rate = 100e6 })
	l.first().do(order{Do: "bulk", To: l.last(), Streams: 50})
	times := l.first().do(order{Do: "pings", To: l.last(), N: 500, Every: 10 * time.Millisecond}).Times
	goal(b, "50 bulk streams at 100 MB/s, message p50", "ms", inMS(percentile(times, 50)), 10)
	goal(b, "50 bulk streams at 100 MB/s, message p99", "ms", inMS(percentile(times, 99)), 10)
}

// BenchmarkManyStreams: the memory of 10,000 streams, idle and with a reader
// that does not read, and what is left of them.
func BenchmarkManyStreams(b *testing.B) {
	const streams = 10_000
	l := newNodes(b).line("mesh", 1)
	relay := l[1]
	l.send(1, 64*mib) // what is made at first use is there
	before := relay.do(order{Do: "gc"})
	l.first().do(order{Do: "hold", To: l.last(), Streams: streams})
	idle := relay.do(order{Do: "gc"})
	goal(b, "relay, memory of an idle stream", "KiB", float64(idle.RSS-before.RSS)/streams/1024, 16)
	l.first().do(order{Do: "release"})
	after := settled(relay, before.Goroutines)
	goal(b, "relay, memory after 10000 streams", "MiB", float64(after.RSS)/mib, float64(before.RSS)/mib)
	goal(b, "relay, goroutines after 10000 streams", "", float64(after.Goroutines), float64(before.Goroutines))

	l = newNodes(b).line("mesh", 1)
	first := make([]answer, len(l))
	for i, c := range l {
		first[i] = c.do(order{Do: "gc"})
	}
	l.first().do(order{Do: "clog", To: l.last(), Streams: streams, Bytes: streams * mib})
	heldUp(l[1])
	for i, c := range l {
		now := c.do(order{Do: "gc"})
		what := fmt.Sprintf("10000 slow readers, %s", [...]string{"sender", "relay", "target"}[i])
		goal(b, what, "MiB", float64(now.RSS-first[i].RSS)/mib, clogBudget)
	}
}

// clogBudget is what 10,000 streams may take: the budget of
// 64 MiB, and 48 KiB a stream.
const clogBudget = 64 + 10_000*48/1024

// heldUp waits until a node receives next to nothing for two seconds.
func heldUp(c *peer) {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for last := uint64(0); ; <-tick.C {
		now := c.do(order{Do: "stats"}).Received
		if now-last < mib {
			return
		}
		last = now
	}
}

// settled waits until a node has as few goroutines as it had, ten seconds at most.
func settled(c *peer, goroutines int) answer {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for late := time.Now().Add(10 * time.Second); ; <-tick.C {
		if a := c.do(order{Do: "gc"}); a.Goroutines <= goroutines || time.Now().After(late) {
			return a
		}
	}
}

// BenchmarkFirstByte: a stream over three links, opened until a byte came back,
// and a ping, in turns with references: for the stream one that does as much with
// nothing around it, for the ping the echo of one connection of TCP, with no TLS and
// nothing to open, which is what the machine allows.
func BenchmarkFirstByte(b *testing.B) {
	n := newNodes(b)
	l, bare, echo := n.line("mesh", 2), n.line("reference", 2), n.line("chain", 2)
	var first, firstBare, pings, echoes []time.Duration
	for round := range 6 {
		a := l.first().do(order{Do: "first", To: l.last(), N: 100}).Times
		r := bare.first().do(order{Do: "first", To: bare.last(), N: 100}).Times
		p := l.first().do(order{Do: "pings", To: l.last(), N: 200}).Times
		e := echo.first().do(order{Do: "pings", To: echo.last(), N: 200}).Times
		if round > 0 { // what is made at first use is there
			first, firstBare, pings, echoes = append(first, a...), append(firstBare, r...), append(pings, p...), append(echoes, e...)
		}
	}
	beside(b, "first byte over 3 links, median", first, firstBare, 50, 2)
	beside(b, "first byte over 3 links, p99", first, firstBare, 99, 5)
	beside(b, "ping over 3 links, median", pings, echoes, 50, 0.3)
	beside(b, "ping over 3 links, p99", pings, echoes, 99, 1)
}

// beside prints a line of the table with a reference and a bound.
func beside(b *testing.B, what string, ours, reference []time.Duration, p int, bound float64) {
	o, r := inMS(percentile(ours, p)), inMS(percentile(reference, p))
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(o, strings.ReplaceAll(what, " ", "_")+"_ms")
	fmt.Printf("%-44s ours %9.2f ms   reference %9.2f ms   ratio %.2f   goal %.2f ms\n", what, o, r, o/r, bound)
}

// BenchmarkRelayGone: a GiB, and in the middle of it the relay is killed, or
// becomes a black hole, where there is another way.
func BenchmarkRelayGone(b *testing.B) {
	const bytes = 1 << 30
	for _, c := range []struct {
		name  string
		with  syscall.Signal
		bound float64 // ms
	}{{"killed", syscall.SIGKILL, 500}, {"a black hole", syscall.SIGSTOP, 4000}} {
		b.Run(c.name, func(b *testing.B) {
			n := newNodes(b)
			ways := []*peer{n.start(spec{Kind: "mesh", ID: "r0", Listen: 1}), n.start(spec{Kind: "mesh", ID: "r1", Listen: 1})}
			both := []string{ways[0].addrs[0], ways[1].addrs[0]}
			from := n.start(spec{Kind: "mesh", ID: "from", Peers: both})
			to := n.start(spec{Kind: "mesh", ID: "to", Peers: both})
			l := line{from, to}
			for _, w := range ways {
				w.reach("from")
				w.reach("to")
			}
			from.reach("to")
			from.do(order{Do: "sinks", To: l.last(), Streams: 1})
			before := []uint64{ways[0].do(order{Do: "stats"}).Received, ways[1].do(order{Do: "stats"}).Received}
			sentBefore := from.do(order{Do: "stats"}).Sent
			go func() {
				victim := busiest(b, ways, before, 100*mib)
				victim.cmd.Process.Signal(c.with)
			}()
			from.do(order{Do: "send", Bytes: bytes}) // fails unless all bytes came, once
			pause := to.do(order{Do: "pause"}).Took
			over := float64(from.do(order{Do: "stats"}).Sent-sentBefore)/bytes - 1
			goal(b, "relay "+c.name+", pause", "ms", inMS(pause), c.bound)
			goal(b, "relay "+c.name+", sent twice, and all headers", "MiB", over*bytes/mib, 16)
			for _, w := range ways {
				w.cmd.Process.Signal(syscall.SIGCONT)
			}
		})
	}
}

// busiest waits until one of the nodes has carried so many bytes, and returns it.
func busiest(b *testing.B, all []*peer, before []uint64, bytes uint64) *peer {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 3000 {
		for i, c := range all {
			if c.do(order{Do: "stats"}).Received-before[i] > bytes {
				return c
			}
		}
		<-tick.C
	}
	b.Error("no relay carries the stream")
	return all[0]
}
