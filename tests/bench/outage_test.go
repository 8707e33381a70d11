package bench

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/control"
	"github.com/ranvier-mesh/ranvier/internal/identity"
)

// pass lets time pass in which what is measured happens.
func pass(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}

// kill ends a node's process at once.
func (w *worker) kill() {
	_ = w.cmd.Process.Kill()
	_ = w.cmd.Wait()
}

// quit has the node say what its goroutines do, in log, and end.
func (w *worker) quit() {
	_ = w.cmd.Process.Signal(syscall.SIGQUIT)
	_ = w.cmd.Wait()
}

// memory is what a process holds, in MiB.
func memory(pid int) float64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	m := regexp.MustCompile(`VmRSS:\s+(\d+)`).FindSubmatch(b)
	if m == nil {
		return 0
	}
	kib, _ := strconv.Atoi(string(m[1]))
	return float64(kib) / 1024
}

const shItem = "- work-command: {worktype: sh, command: sh, params: -c, allowruntimeparams: true}\n"

// square is two ends and two relays, each linked to both ends.
func square(b *testing.B) (near *worker, relays [2]*worker, far *worker) {
	relays = [2]*worker{startWorker(b, "r0", shItem), startWorker(b, "r1", shItem)}
	near, far = startWorker(b, "near", shItem, relays[:]...), startWorker(b, "far", shItem, relays[:]...)
	near.reaches(b, "far")
	return near, relays, far
}

// relayOf is the relay that a node's streams take to another one.
func relayOf(b *testing.B, w *worker, to string, relays [2]*worker) *worker {
	b.Helper()
	var hop string
	w.retry(b, func(ctx context.Context) error {
		c, err := control.Dial(ctx, w.dir+"/s")
		if err != nil {
			return err
		}
		defer c.Close()
		hops, err := c.Traceroute(ctx, to)
		if err == nil && len(hops) != 3 {
			err = fmt.Errorf("the way is %v", hops)
		}
		if err == nil {
			hop = hops[1].From
		}
		return err
	})
	if relays[0].id == hop {
		return relays[0]
	}
	return relays[1]
}

const lines = "'i=0; while [ $i -lt 800 ]; do i=$((i+1)); echo line; sleep 0.01; done'"

// BenchmarkOutputGap is the longest time without a line of a running job's output,
// of a hundred a second, when a relay dies.
func BenchmarkOutputGap(b *testing.B) {
	b.Run("second way", func(b *testing.B) {
		near, relays, _ := square(b)
		var gaps []float64
		for b.Loop() {
			for range 4 {
				// Ways of equal cost share the streams: of the two relays one carries it.
				for _, r := range relays {
					gaps = append(gaps, longestGap(b, near, func() { r.kill() }))
					r.start(b)
					near.reaches(b, "far")
					relayOf(b, near, "far", relays)
				}
			}
		}
		goal(b, "longest gap, a second way, most of all", "s", percentile(gaps, 100), 0.5)
	})
	b.Run("comes back", func(b *testing.B) {
		far := startWorker(b, "far", shItem)
		relay := startWorker(b, "relay", shItem, far)
		near := startWorker(b, "near", shItem, relay)
		near.reaches(b, "far")
		var gaps []float64
		for b.Loop() {
			for range 2 {
				gaps = append(gaps, longestGap(b, near, func() {
					relay.kill()
					pass(3 * time.Second)
					relay.start(b)
				}))
				near.reaches(b, "far")
			}
		}
		goal(b, "longest gap, relay is back after 3 s", "s", percentile(gaps, 100), 5.5)
	})
}

// longestGap runs the job, and trouble in the middle of it. It returns seconds.
func longestGap(b *testing.B, near *worker, trouble func()) float64 {
	b.Helper()
	longest, n := time.Duration(0), 0
	done := make(chan struct{})
	err := near.do(b.Context(), "far", "sh", lines, strings.NewReader(""), func(r io.Reader) error {
		in, last := bufio.NewScanner(r), time.Now()
		for in.Scan() {
			if n++; n == 200 {
				go func() { defer close(done); trouble() }()
			}
			if now := time.Now(); n > 1 {
				longest, last = max(longest, now.Sub(last)), now
			} else {
				last = now
			}
		}
		return in.Err()
	})
	if err != nil || n != 800 {
		b.Fatalf("%d lines, %v", n, err)
	}
	<-done
	return longest.Seconds()
}

// BenchmarkUploadRelayDies is 200 MB of standard input during which both relays die, one
// after the other, against the same without.
func BenchmarkUploadRelayDies(b *testing.B) {
	near, relays, _ := square(b)
	data := make([]byte, 200e6)
	rand.Read(data)
	want := fmt.Sprintf("%x", sha256.Sum256(data))
	// The submitter's node has all of it before it sends any of it on.
	upload := func(trouble func()) error {
		id, err := near.submit(b.Context(), "far", "sh", "sha256sum", strings.NewReader(string(data)))
		if err != nil {
			return err
		}
		over := make(chan struct{})
		go func() { defer close(over); trouble() }()
		err = near.results(id, func(r io.Reader) error {
			out, err := io.ReadAll(r)
			if err == nil && !strings.HasPrefix(string(out), want) {
				err = fmt.Errorf("the job read something else: %s", out)
			}
			return err
		})
		<-over
		return err
	}
	var quiet, broken []float64
	for b.Loop() {
		for range 3 {
			quiet = append(quiet, timed(b, func() error { return upload(func() {}) }))
			broken = append(broken, timed(b, func() error {
				return upload(func() {
					for _, r := range relays {
						pass(100 * time.Millisecond)
						r.kill()
						r.start(b)
						near.reaches(b, "far")
					}
				})
			}))
		}
	}
	report(b, "200 MB of stdin, relays die; none dies", "ms", broken, quiet)
}

// BenchmarkAllKilled is from the start of a node, that was killed with its keeper and
// its job, until it says that the unit has failed.
func BenchmarkAllKilled(b *testing.B) {
	w := startWorker(b, "w", shItem)
	var took []float64
	for b.Loop() {
		for range 3 {
			id, err := w.submit(b.Context(), "localhost", "sh", "'echo $$ >"+w.dir+"/pid; exec sleep 1000'", strings.NewReader(""))
			if err != nil {
				b.Fatal(err)
			}
			pid := 0
			w.retry(b, func(context.Context) error {
				text, err := os.ReadFile(w.dir + "/pid")
				if err == nil {
					pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
				}
				return err
			})
			os.Remove(w.dir + "/pid")
			keeper := w.keeper(b)
			_ = w.cmd.Process.Kill()
			_ = syscall.Kill(keeper, syscall.SIGKILL)
			_ = syscall.Kill(pid, syscall.SIGKILL)
			_ = w.cmd.Wait()
			start := time.Now()
			w.start(b)
			w.retry(b, func(ctx context.Context) error {
				c, err := control.Dial(ctx, w.dir+"/s")
				if err != nil {
					return err
				}
				defer c.Close()
				var st struct{ StateName, Detail string }
				err = c.Call(ctx, map[string]any{"command": "work", "subcommand": "status", "unitid": id}, &st)
				if err == nil && (st.StateName != "Failed" || !strings.HasPrefix(st.Detail, "LOST")) {
					err = fmt.Errorf("unit %+v", st)
				}
				return err
			})
			took = append(took, time.Since(start).Seconds())
		}
	}
	goal(b, "all killed: told after a start", "s", median(took), 1)
}

// tlsLine is a row of TLS connections with a copy between each two: what is
// written to the first end comes out of the last.
func tlsLine(b *testing.B, links int) (io.WriteCloser, io.Reader) {
	b.Helper()
	ca := newCA(b)
	self, err := identity.Begin(ca, identity.Claims{ID: "a", Role: identity.Router}, filepath.Join(b.TempDir(), "a"))
	if err != nil {
		b.Fatal(err)
	}
	var first io.WriteCloser
	var last io.Reader
	for range links {
		near, far := tlsPair(b, self.ServerTLS(), named(self.ClientTLS()))
		b.Cleanup(func() { near.Close(); far.Close() })
		if first == nil {
			first = near
		} else {
			from := last
			go func() {
				_, _ = io.Copy(struct{ io.Writer }{near}, struct{ io.Reader }{from})
				near.Close()
			}()
		}
		last = far
	}
	return first, last
}

func tlsPair(b *testing.B, server, client *tls.Config) (near, far *tls.Conn) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	up := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			far = tls.Server(conn, server)
			err = far.HandshakeContext(b.Context())
		}
		up <- err
	}()
	near, err = tls.Dial("tcp", l.Addr().String(), client)
	if err = errors.Join(err, <-up); err != nil {
		b.Fatal(err)
	}
	return near, far
}
