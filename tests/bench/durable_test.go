package bench

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkUnitSlowDisk is BenchmarkUnit where each fsync takes 5 ms more, and counts
// the commits that come one after the other. strace delays the calls: nothing in
// the product knows of it.
func BenchmarkUnitSlowDisk(b *testing.B) {
	if _, err := exec.LookPath("strace"); err != nil {
		b.Skip("strace delays the calls, and is not installed")
	}
	const items = "- work-command: {worktype: 'true', command: 'true'}\n"
	w := make([]*worker, 4)
	for i := range w {
		w[i] = &worker{id: "w" + strconv.Itoa(i), dir: b.TempDir()}
		w[i].wrap = []string{"strace", "-D", "-f", "-q", "-ttt", "-T", "--seccomp-bpf", "-o", w[i].dir + "/trace",
			"-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:delay_exit=5000"}
		w[i].prepare(b, items, w[max(0, i-1):i]...)
		w[i].start(b)
	}
	w[0].reaches(b, "w3")
	var took, commits []float64
	for b.Loop() {
		for range 21 {
			start := time.Now()
			if err := w[0].do(b.Context(), "w3", "true", "", strings.NewReader(""), discard); err != nil {
				b.Fatal(err)
			}
			end := time.Now()
			took = append(took, inMS(end.Sub(start)))
			commits = append(commits, float64(oneAfterTheOther(syncs(b, start, end, w[0], w[3]))))
		}
	}
	goal(b, "unit with 5 ms more a fsync", "ms", median(took), 60)
	goal(b, "commits one after the other", "commits", median(commits), 4)
}

// span is when a call ran, in seconds.
type span struct{ from, to float64 }

var syncLine = regexp.MustCompile(`(?m)^\d+ +(\d+\.\d+) .*<(\d+\.\d+)>$`)

// syncs are the fsyncs of nodes and their keepers that ended in a time.
func syncs(b *testing.B, start, end time.Time, nodes ...*worker) (all []span) {
	b.Helper()
	seconds := func(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }
	for _, w := range nodes {
		trace, err := os.ReadFile(w.dir + "/trace")
		if err != nil {
			b.Fatal(err)
		}
		for _, m := range syncLine.FindAllSubmatch(trace, -1) {
			at, _ := strconv.ParseFloat(string(m[1]), 64)
			took, _ := strconv.ParseFloat(string(m[2]), 64)
			// The time that it took is without the delay. A line of a call that was
			// interrupted by another has its end's time.
			s := span{at, at + took + 0.005}
			if bytes.Contains(m[0], []byte("resumed")) {
				s = span{at - took, at}
			}
			if s.from >= seconds(start) && s.to <= seconds(end) {
				all = append(all, s)
			}
		}
	}
	return all
}

// oneAfterTheOther is how many calls at most did not overlap.
func oneAfterTheOther(all []span) (n int) {
	slices.SortFunc(all, func(x, y span) int {
		if x.to < y.to {
			return -1
		}
		return 1
	})
	last := 0.0
	for _, s := range all {
		if s.from >= last {
			n, last = n+1, s.to
		}
	}
	return n
}

// BenchmarkBulkDurable is 200 MB in and out of a job three links away, against the
// same bytes through three TLS connections, written and fsynced at both ends.
func BenchmarkBulkDurable(b *testing.B) {
	w := startWorkers(b, 4)
	const size = 200e6
	data := make([]byte, size)
	rand.Read(data)
	file := filepath.Join(b.TempDir(), "data")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		b.Fatal(err)
	}
	var in, out, bareIn, bareOut []float64
	for b.Loop() {
		for range 3 {
			in = append(in, timed(b, func() error {
				return w[0].do(b.Context(), "w3", "sh", "'cat >/dev/null'", bytes.NewReader(data), discard)
			}))
			bareIn = append(bareIn, timed(b, func() error { return bare(b, data, true) }))
			out = append(out, timed(b, func() error {
				return w[0].do(b.Context(), "w3", "sh", "'cat "+file+"'", strings.NewReader(""), discard)
			}))
			bareOut = append(bareOut, timed(b, func() error { return bare(b, data, false) }))
		}
	}
	report(b, "200 MB of stdin, 3 links", "ms", in, bareIn)
	report(b, "200 MB of stdout, 3 links", "ms", out, bareOut)
	for i, n := range w {
		goal(b, fmt.Sprintf("memory of node %d of 4 then", i), "MiB", n.rss(), 64)
	}
}

func timed(b *testing.B, f func() error) float64 {
	b.Helper()
	start := time.Now()
	if err := f(); err != nil {
		b.Fatal(err)
	}
	return inMS(time.Since(start))
}

// bare carries data over three TLS connections in a row with a file at both ends.
// stored: the first file is complete before anything is sent, as a submit's payload is.
func bare(b *testing.B, data []byte, stored bool) error {
	dir := b.TempDir()
	near, err := os.Create(dir + "/near")
	if err != nil {
		return err
	}
	far, err := os.Create(dir + "/far")
	if err != nil {
		return err
	}
	defer near.Close()
	defer far.Close()
	to, from := tlsLine(b, 3)
	received := make(chan error, 1)
	go func() {
		_, err := io.Copy(far, struct{ io.Reader }{from})
		received <- errors.Join(err, far.Sync())
	}()
	if _, err := near.Write(data); err != nil {
		return err
	}
	if stored {
		if err := near.Sync(); err != nil {
			return err
		}
	}
	if _, err := near.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := io.Copy(to, struct{ io.Reader }{near}); err != nil {
		return err
	}
	to.Close()
	if !stored {
		if err := near.Sync(); err != nil {
			return err
		}
	}
	return <-received
}

// BenchmarkMemory is what nodes hold on to: with many finished units, and after many
// remote jobs.
func BenchmarkMemory(b *testing.B) {
	w := startWorkers(b, 2)
	jobs := func(to string, n int) {
		rate(b, n, func() error {
			return w[0].do(b.Context(), to, "true", "", strings.NewReader(""), discard)
		})
	}
	for b.Loop() {
		jobs("w1", 100) // what a node that works needs in any case
		before := []float64{w[0].rss(), w[1].rss()}
		jobs("w1", 400)
		for i, n := range w {
			report(b, "MiB after 400 remote jobs, node "+strconv.Itoa(i), "MiB", []float64{n.rss()}, before[i:i+1])
			goal(b, fmt.Sprintf("inotify instances of node %d", i), "instances", n.inotify(b), 1)
		}
		jobs("localhost", 1000)
		if err := exec.Command(w[0].bin, "work", "list", "w0", "--socket", w[0].dir+"/s").Run(); err != nil {
			b.Fatal(err)
		}
		goal(b, "1500 finished units, listed", "MiB", w[0].rss(), 64)
		for i, n := range w {
			goal(b, fmt.Sprintf("goroutines of node %d", i), "goroutines", n.goroutines(), 100)
			n.start(b)
		}
		w[0].reaches(b, "w1")
	}
}

// inotify counts the node's inotify instances.
func (w *worker) inotify(b *testing.B) (n float64) {
	b.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", w.cmd.Process.Pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		b.Fatal(err)
	}
	for _, fd := range fds {
		if to, _ := os.Readlink(filepath.Join(dir, fd.Name())); strings.Contains(to, "inotify") {
			n++
		}
	}
	return n
}

// goroutines ends the node and counts in what it says then.
func (w *worker) goroutines() float64 {
	w.quit()
	n := 0
	for line := range strings.Lines(w.log.String()) {
		if strings.HasPrefix(line, "goroutine ") {
			n++
		}
	}
	return float64(n)
}

// BenchmarkKeeper is what the process costs that outlives the node.
func BenchmarkKeeper(b *testing.B) {
	w := startWorkers(b, 1)[0]
	const n = 200
	for b.Loop() {
		run := func(k int) (ids []string) {
			for range k {
				id, err := w.submit(b.Context(), "localhost", "sh", "'exec sleep 1000'", strings.NewReader(""))
				if err != nil {
					b.Fatal(err)
				}
				ids = append(ids, id)
			}
			return ids
		}
		ids := run(1)
		keeper := w.keeper(b)
		once := memory(keeper)
		ids = append(ids, run(n)...)
		goal(b, "keeper with one job", "MiB", once, 16)
		goal(b, "keeper for each job", "KiB", (memory(keeper)-once)*1024/n, 64)
		before := cpuOf(b, keeper)
		pass(3 * time.Second)
		goal(b, "keeper in 3 s while 201 jobs are quiet", "ms", cpuOf(b, keeper)-before, 1)
		for _, id := range ids {
			if err := exec.Command(w.bin, "work", "release", "w0/"+id, "--socket", w.dir+"/s").Run(); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// keeper is the pid of the node's keeper.
func (w *worker) keeper(b *testing.B) int {
	b.Helper()
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range all {
		text, _ := os.ReadFile(name)
		argv := strings.Split(string(text), "\x00")
		if len(argv) > 2 && slices.Contains(argv, "keep") && strings.Contains(string(text), w.dir) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			return pid
		}
	}
	b.Fatalf("node %s has no keeper", w.id)
	return 0
}

// cpuOf is the processor time of a process in ms.
func cpuOf(b *testing.B, pid int) float64 {
	b.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(threads) == 0 {
		b.Fatalf("process %d is gone: %v", pid, err)
	}
	sum := 0.0
	for _, name := range threads {
		if text, err := os.ReadFile(name); err == nil {
			ns, _ := strconv.ParseFloat(strings.Fields(string(text))[0], 64)
			sum += ns / 1e6
		}
	}
	return sum
}

// BenchmarkWatchers is a job that 100 watch, against the same job alone.
func BenchmarkWatchers(b *testing.B) {
	w := startWorkers(b, 1)[0]
	const job = "'for i in $(seq 300); do echo $i; head -c 1000 /dev/zero; sleep 0.01; done'"
	run := func(watchers int) error {
		id, err := w.submit(b.Context(), "localhost", "sh", job, strings.NewReader(""))
		if err != nil {
			return err
		}
		over := make(chan error, watchers)
		for range watchers {
			go func() {
				n := 0
				over <- w.results(id, func(r io.Reader) error {
					in := bufio.NewReader(r)
					_, err := io.Copy(counter{&n}, in)
					if n < 300*1000 {
						err = errors.Join(err, fmt.Errorf("a watcher saw %d bytes", n))
					}
					return err
				})
			}()
		}
		for range watchers {
			err = errors.Join(err, <-over)
		}
		return err
	}
	var alone, watched []float64
	for b.Loop() {
		for range 3 {
			alone = append(alone, timed(b, func() error { return run(1) }))
			watched = append(watched, timed(b, func() error { return run(100) }))
		}
	}
	report(b, "a job with 100 watchers, with one", "ms", watched, alone)
	goal(b, "the node with 100 watchers", "MiB", w.rss(), 96)
}

type counter struct{ n *int }

func (c counter) Write(p []byte) (int, error) { *c.n += len(p); return len(p), nil }
