package bench

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/control"
)

// worker is a node process.
type worker struct {
	id, dir string
	address string
	cmd     *exec.Cmd
	log     bytes.Buffer // to be read when cmd has ended
	wrap    []string     // a command that runs the node's
	bin     string
}

// startWorkers starts a line of nodes, the first of which submits.
func startWorkers(b *testing.B, n int) []*worker {
	b.Helper()
	return startNodes(b, n, "- work-command: {worktype: 'true', command: 'true'}\n"+
		"- work-command: {worktype: cat, command: cat}\n- work-command: {worktype: sh, command: sh, params: -c, allowruntimeparams: true}\n")
}

// startNodes starts a line of nodes with further items in their files; where these
// name no work, the nodes run plays.
func startNodes(b *testing.B, n int, items string) []*worker {
	b.Helper()
	var all []*worker
	for i := range n {
		var peers []*worker
		if i > 0 {
			peers = all[i-1:]
		}
		all = append(all, startWorker(b, "w"+strconv.Itoa(i), items, peers...))
	}
	all[0].reaches(b, all[n-1].id)
	return all
}

// startWorker starts a node that dials others, and waits until it is up.
func startWorker(b *testing.B, id, items string, peers ...*worker) *worker {
	b.Helper()
	w := &worker{id: id, dir: b.TempDir()}
	w.prepare(b, items, peers...)
	w.start(b)
	return w
}

// prepare writes the node's file.
func (w *worker) prepare(b *testing.B, items string, peers ...*worker) {
	b.Helper()
	w.bin = buildRanvier(b)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	w.address = l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(w.address)
	text := fmt.Sprintf("---\n- node: {id: %s, datadir: %s/data}\n- control-service: {service: control, filename: %s/s}\n"+
		"- tcp-listener: {bindaddr: 127.0.0.1, port: %s}\n%s", w.id, w.dir, w.dir, port, items)
	for _, p := range peers {
		text += fmt.Sprintf("- tcp-peer: {address: '%s'}\n", p.address)
	}
	if err := os.WriteFile(w.dir+"/f.yml", []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
}

// start starts the node's process, which may have run before.
func (w *worker) start(b *testing.B) {
	b.Helper()
	w.log.Reset()
	argv := append(slices.Clone(w.wrap), w.bin, "node", "-c", w.dir+"/f.yml")
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stderr = &w.log
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	w.cmd = cmd
	b.Cleanup(func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() })
	w.retry(b, func(ctx context.Context) error { c, err := control.Dial(ctx, w.dir+"/s"); defer closeIf(c); return err })
}

// reaches waits until the node reaches another one.
func (w *worker) reaches(b *testing.B, to string) {
	b.Helper()
	w.retry(b, func(ctx context.Context) error {
		c, err := control.Dial(ctx, w.dir+"/s")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Ping(ctx, to)
		return err
	})
}

func closeIf(c *control.Client) {
	if c != nil {
		c.Close()
	}
}

func (w *worker) retry(b *testing.B, f func(context.Context) error) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for err := f(ctx); err != nil; err = f(ctx) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.Fatalf("node %s: %v", w.id, err)
		}
	}
}

// do submits a unit and reads its results to their end.
func (w *worker) do(ctx context.Context, node, kind, params string, stdin io.Reader, results func(io.Reader) error) error {
	id, err := w.submit(ctx, node, kind, params, stdin)
	if err != nil {
		return err
	}
	return w.results(id, results)
}

// submit returns the unit once it is durable.
func (w *worker) submit(ctx context.Context, node, kind, params string, stdin io.Reader) (id string, err error) {
	c, err := control.Dial(ctx, w.dir+"/s")
	if err != nil {
		return "", err
	}
	defer c.Close()
	request := map[string]any{"command": "work", "subcommand": "submit", "node": node, "worktype": kind}
	if params != "" {
		request["params"] = params
	}
	return c.Submit(ctx, request, stdin)
}

// results reads the results of a unit to their end.
func (w *worker) results(id string, results func(io.Reader) error) error {
	conn, err := net.Dial("unix", w.dir+"/s")
	if err != nil {
		return err
	}
	defer conn.Close()
	fmt.Fprintf(conn, "work results %s\n", id)
	in := bufio.NewReaderSize(conn, 64<<10)
	for range 2 { // the greeting and the heading
		if _, err := in.ReadString('\n'); err != nil {
			return err
		}
	}
	return results(in)
}

func discard(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }

// rss is the memory of a node in MiB.
func (w *worker) rss() float64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.cmd.Process.Pid))
	m := regexp.MustCompile(`VmRSS:\s+(\d+)`).FindSubmatch(b)
	if m == nil {
		return 0
	}
	kib, _ := strconv.Atoi(string(m[1]))
	return float64(kib) / 1024
}

func percentile[T cmp.Ordered](d []T, p int) T {
	slices.Sort(d)
	return d[min(len(d)-1, len(d)*p/100)]
}

// BenchmarkUnit is a submit of `true` over three links until its results have
// ended at the submitter, durable at both ends.
func BenchmarkUnit(b *testing.B) {
	w := startWorkers(b, 4)
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		if err := w[0].do(b.Context(), "w3", "true", "", strings.NewReader(""), discard); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	b.ReportMetric(float64(percentile(took, 50).Microseconds())/1000, "ms-median")
	b.ReportMetric(w[0].rss(), "MiB-submitter")
	b.ReportMetric(w[3].rss(), "MiB-executor")
}

// BenchmarkUnits50 is the rate of durable submits with run and results of `true`
// at concurrency 50, against a program that only forks, executes and waits.
func BenchmarkUnits50(b *testing.B) {
	w := startWorkers(b, 2)
	const each = 600
	for _, to := range []string{"localhost", "w1"} {
		b.Run(to, func(b *testing.B) {
			for b.Loop() {
				unit := rate(b, each, func() error {
					return w[0].do(b.Context(), to, "true", "", strings.NewReader(""), discard)
				})
				plain := rate(b, each, func() error { return exec.Command("true").Run() })
				b.ReportMetric(unit, "units/s")
				b.ReportMetric(plain, "plain/s")
				b.ReportMetric(unit/plain, "ratio")
				b.ReportMetric(w[0].rss(), "MiB-submitter")
			}
		})
	}
}

func rate(b *testing.B, n int, f func() error) float64 {
	var wg sync.WaitGroup
	work := make(chan struct{})
	start := time.Now()
	for range 50 {
		wg.Go(func() {
			for range work {
				if err := f(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for range n {
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
	return float64(n) / time.Since(start).Seconds()
}

// BenchmarkBulk is 200 MB of standard input and as much of output over three links.
func BenchmarkBulk(b *testing.B) {
	w := startWorkers(b, 4)
	const size = 200 << 20
	zeros := make([]byte, size)
	b.Run("stdin", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			if err := w[0].do(b.Context(), "w3", "sh", "'cat >/dev/null'", bytes.NewReader(zeros), discard); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(max(w[0].rss(), w[1].rss(), w[2].rss(), w[3].rss()), "MiB-most")
	})
	b.Run("stdout", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			err := w[0].do(b.Context(), "w3", "sh", fmt.Sprintf("'head -c %d /dev/zero'", size), strings.NewReader(""), discard)
			if err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(max(w[0].rss(), w[1].rss(), w[2].rss(), w[3].rss()), "MiB-most")
	})
}

// BenchmarkLine is how long a line takes from the job, three links away, to who
// reads the results at the submitter.
func BenchmarkLine(b *testing.B) {
	w := startWorkers(b, 4)
	var late []time.Duration
	for b.Loop() {
		err := w[0].do(b.Context(), "w3", "sh", "'for i in $(seq 200); do date +%s%N; sleep 0.01; done'", strings.NewReader(""), func(r io.Reader) error {
			lines := bufio.NewScanner(r)
			for lines.Scan() {
				ns, err := strconv.ParseInt(lines.Text(), 10, 64)
				if err != nil {
					return err
				}
				late = append(late, time.Since(time.Unix(0, ns)))
			}
			return lines.Err()
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(percentile(late, 50).Microseconds())/1000, "ms-p50")
	b.ReportMetric(float64(percentile(late, 99).Microseconds())/1000, "ms-p99")
}
