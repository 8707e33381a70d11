package bench

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/control"
)

// place is a host with a program on it.
type place struct {
	b        *testing.B
	bin, dir string
}

func (p place) command(args ...string) *exec.Cmd {
	cmd := exec.Command(p.bin, args...)
	cmd.Env = append(os.Environ(), "HOME="+p.dir, "XDG_CONFIG_HOME="+p.dir)
	return cmd
}

func (p place) ok(args ...string) string {
	p.b.Helper()
	cmd := p.command(args...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		p.b.Fatalf("ranvier %v: %v\n%s", args, err, said.String())
	}
	return strings.TrimSpace(string(out))
}

// node starts the node of the place; stop ends it.
func (p place) node() (stop func()) {
	p.b.Helper()
	cmd := p.command("node", "-c", filepath.Join(p.dir, "ranvier.yml"))
	if err := cmd.Start(); err != nil {
		p.b.Fatal(err)
	}
	return sync.OnceFunc(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
}

func (p place) socket() string { return filepath.Join(p.dir, "control.sock") }

func freeAddr(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func seconds(b *testing.B, what string, took []float64, limit float64) {
	fmt.Printf("%-44s ours %9.2f s   to reach %4.2f s\n", what, median(took), limit)
	b.ReportMetric(median(took), "ours_s")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkSecondNode goes from two empty machines to a second node that
// answers a ping: ca init, node, ca token; join, node; ping.
func BenchmarkSecondNode(b *testing.B) {
	bin := buildRanvier(b)
	var took []float64
	for b.Loop() {
		for range 5 {
			hub, edge, addr := place{b, bin, b.TempDir()}, place{b, bin, b.TempDir()}, freeAddr(b)
			start := time.Now()
			hub.ok("ca", "init", "--mesh", "bench", "--id", "hub", "--dir", hub.dir, "--listen", addr)
			stopHub := hub.node()
			token := hub.ok("ca", "token", "--id", "edge", "--dir", hub.dir)
			hub.ok("ping", "hub", "-n", "1", "--wait", "1m", "--socket", hub.socket()) // it is up
			edge.ok("join", token, "--dir", edge.dir, "--listen", "none")
			stopEdge := edge.node()
			hub.ok("ping", "edge", "-n", "1", "--wait", "1m", "--socket", hub.socket())
			took = append(took, time.Since(start).Seconds())
			stopEdge()
			stopHub()
		}
	}
	seconds(b, "from nothing to a second node that answers", took, 2)
}

// BenchmarkRevoked has a ring of ten nodes with an eleventh at one of them, and
// takes the time from the command that revokes that one until none of the ten has
// a way to it.
func BenchmarkRevoked(b *testing.B) {
	bin := buildRanvier(b)
	const n = 10
	ring, addrs := make([]place, n), make([]string, n)
	join := func(p place, id string, items string) {
		b.Helper()
		p.ok("join", ring[0].ok("ca", "token", "--id", id, "--dir", ring[0].dir), "--dir", p.dir, "--listen", "none")
		text := fmt.Sprintf("- node: {id: %s, datadir: %s}\n- control-service: {filename: %s}\n%s", id, p.dir, p.socket(), items)
		if err := os.WriteFile(filepath.Join(p.dir, "ranvier.yml"), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(p.node())
	}
	for i := range n {
		ring[i], addrs[i] = place{b, bin, b.TempDir()}, freeAddr(b)
	}
	ring[0].ok("ca", "init", "--mesh", "bench", "--id", "n0", "--dir", ring[0].dir, "--listen", addrs[0])
	b.Cleanup(ring[0].node())
	ring[0].ok("ping", "n0", "-n", "1", "--wait", "1m", "--socket", ring[0].socket())
	for i := 1; i < n; i++ {
		_, port, _ := net.SplitHostPort(addrs[i])
		items := fmt.Sprintf("- tcp-listener: {bindaddr: 127.0.0.1, port: %s}\n- tcp-peer: '%s'\n", port, addrs[i-1])
		if i == n-1 {
			items += fmt.Sprintf("- tcp-peer: '%s'\n", addrs[0])
		}
		join(ring[i], fmt.Sprint("n", i), items)
	}
	var took []float64
	for b.Loop() {
		for round := range 5 {
			id := fmt.Sprint("bad", round)
			join(place{b, bin, b.TempDir()}, id, "- tcp-peer: '"+addrs[n/2]+"'\n")
			for _, p := range ring {
				p.ok("ping", id, "-n", "1", "--wait", "1m", "--socket", p.socket())
			}
			start := time.Now()
			ring[0].ok("ca", "revoke", id, "--dir", ring[0].dir)
			var wait sync.WaitGroup
			for _, p := range ring {
				wait.Go(func() { p.lost(id) })
			}
			wait.Wait()
			took = append(took, time.Since(start).Seconds())
			for _, p := range ring { // it does not come back
				if err := p.command("ping", id, "-n", "1", "--socket", p.socket()).Run(); err == nil {
					b.Errorf("%s is reached again from %s", id, p.dir)
				}
			}
		}
	}
	seconds(b, "revoked until cut off in a ring of ten", took, 1)
}

// lost returns when a node has no way to another any more.
func (p place) lost(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := control.Dial(ctx, p.socket())
	if err != nil {
		p.b.Error(err)
		return
	}
	defer c.Close()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		if _, err := c.Ping(ctx, id); err != nil {
			if ctx.Err() != nil {
				p.b.Errorf("%s is still reached from %s", id, p.dir)
			}
			return
		}
	}
}
