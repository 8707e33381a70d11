package bench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// These run whole programs, ours and the Python tool in turn. What has many files
// is only removed when all benchmarks have ended: ext4 remembers what was removed
// in the last minutes, and is many times slower to make new files meanwhile.

// keptDir names the environment variable with the directory for that.
const keptDir = "RANVIER_BENCH_KEPT"

func TestMain(m *testing.M) {
	if s := os.Getenv(childEnv); s != "" {
		os.Exit(childMain(s))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ranvier-bench-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	os.Setenv(keptDir, dir)
	return m.Run()
}

// kept is a directory like b.TempDir that is there until the end.
func kept(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp(os.Getenv(keptDir), "")
	if err != nil {
		b.Fatal(err)
	}
	return dir
}

// A size is a private data directory to send; make fills its project.
type size struct {
	name   string
	rounds int
	make   func(b *testing.B, project string)
}

var sizes = []size{
	{"100 MB random", 5, func(b *testing.B, project string) { randomFile(b, filepath.Join(project, "large"), 1, 100) }},
	{"10000 small files", 5, func(b *testing.B, project string) { textFiles(b, project, 10_000, 1000) }},
	{"1 GB project", 3, func(b *testing.B, project string) {
		for n := range 8 {
			randomFile(b, filepath.Join(project, "large"+strconv.Itoa(n)), byte(n), 100)
		}
		textFiles(b, project, 200, 1<<20)
		textFiles(b, filepath.Join(project, "roles"), 2000, 4000)
	}},
}

func randomFile(b *testing.B, name string, seed byte, megabytes int64) {
	b.Helper()
	f, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if _, err := io.CopyN(f, rand.NewChaCha8([32]byte{seed}), megabytes<<20); err != nil {
		b.Fatal(err)
	}
}

// textFiles makes files like tasks, a hundred in a directory.
func textFiles(b *testing.B, dir string, n, length int) {
	b.Helper()
	text := make([]byte, 0, length+100)
	for i := range n {
		sub := filepath.Join(dir, "dir"+strconv.Itoa(i/100))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			b.Fatal(err)
		}
		for text = text[:0]; len(text) < length; {
			text = strconv.AppendInt(append(text, "- name: the quick brown fox jumps over\n  debug: msg="...), int64(i*len(text)), 10)
			text = append(text, '\n')
		}
		if err := os.WriteFile(filepath.Join(sub, strconv.Itoa(i)+".yml"), text[:length], 0o644); err != nil {
			b.Fatal(err)
		}
	}
}

// used is what a program has taken.
type used struct{ seconds, mib float64 }

// program runs one with input and output; nil is none.
func program(b *testing.B, in io.Reader, out io.Writer, argv ...string) used {
	b.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout = in, out
	start := time.Now()
	if err := cmd.Run(); err != nil {
		b.Fatalf("%q: %v", argv, err)
	}
	return used{time.Since(start).Seconds(), float64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) / 1024}
}

// table collects rounds of one measurement.
type table struct {
	ours, python []float64
	peak         float64
}

func (t *table) add(ours, python used) {
	t.ours = append(t.ours, ours.seconds*1000)
	t.python = append(t.python, python.seconds*1000)
	t.peak = max(t.peak, ours.mib)
}

func (t *table) report(b *testing.B, what string) {
	report(b, what, "ms", t.ours, t.python)
	b.ReportMetric(median(t.python)/median(t.ours), "x_python")
	b.ReportMetric(t.peak, "MiB")
}

// BenchmarkTransmit sends to nowhere.
func BenchmarkTransmit(b *testing.B) {
	bin := buildRanvier(b)
	for _, s := range sizes {
		b.Run(s.name, func(b *testing.B) {
			dir := sized(b, s)
			var t table
			for range max(b.N, s.rounds) {
				t.add(program(b, nil, nil, bin, "transmit", dir, "-p", "x"), program(b, nil, nil, "ansible-runner", "transmit", dir, "-p", "x"))
			}
			t.report(b, "transmit, "+s.name)
		})
	}
}

func sized(b *testing.B, s size) string {
	dir := kept(b)
	if err := os.Mkdir(filepath.Join(dir, "project"), 0o755); err != nil {
		b.Fatal(err)
	}
	s.make(b, filepath.Join(dir, "project"))
	return dir
}

// BenchmarkExtract has workers unpack the same archives, for a job that does
// nothing. What they take for it without an archive worth that name is taken off.
func BenchmarkExtract(b *testing.B) {
	bin := buildRanvier(b)
	work := func(sent string, argv ...string) used {
		return program(b, open(b, sent), nil, append(argv, "worker", "--private-data-dir", filepath.Join(kept(b), "dir"))...)
	}
	empty := transmitted(b, bin, sized(b, size{make: func(*testing.B, string) {}}))
	var ours, python []float64
	for range 5 {
		ours, python = append(ours, work(empty, bin).seconds), append(python, work(empty, "ansible-runner").seconds)
	}
	for _, s := range sizes {
		b.Run(s.name, func(b *testing.B) {
			sent := transmitted(b, bin, sized(b, s))
			var t table
			for range max(b.N, s.rounds) {
				o, p := work(sent, bin), work(sent, "ansible-runner")
				o.seconds -= median(ours)
				p.seconds -= median(python)
				t.add(o, p)
			}
			t.report(b, "extract, "+s.name)
		})
	}
}

// transmitted is a file with a job of the directory that does nothing.
func transmitted(b *testing.B, bin, dir string) string {
	b.Helper()
	name := filepath.Join(b.TempDir(), "sent")
	f, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	program(b, nil, f, bin, "-b", "/bin/true", "transmit", dir, "-p", "x")
	return name
}

func open(b *testing.B, name string) *os.File {
	b.Helper()
	f, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	return f
}

// BenchmarkProcess20000Events takes 17 MB of events.
func BenchmarkProcess20000Events(b *testing.B) {
	bin := buildRanvier(b)
	name := filepath.Join(b.TempDir(), "results")
	f, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	out := bufio.NewWriter(f)
	filler := make([]byte, 590)
	for i := range filler {
		filler[i] = 'x'
	}
	for n := 1; n <= 20_000; n++ {
		fmt.Fprintf(out, `{"uuid": "02fc0000-0001-d4ed-a62d-%012d", "counter": %d, "stdout": "ok: [host]%s", "start_line": 2, "end_line": 4, `+
			`"event": "runner_on_ok", "parent_uuid": "02fc0000-0001-d4ed-a62d-000000000004", "event_data": {"host": "h", "res": {"changed": false}}}`+"\n", n, n, filler)
	}
	fmt.Fprintf(out, "{\"status\": \"successful\", \"runner_ident\": \"j\"}\n{\"eof\": true}\n")
	if err := out.Flush(); err != nil {
		b.Fatal(err)
	}
	f.Close()
	var t table
	for range max(b.N, 5) {
		ours := program(b, open(b, name), nil, bin, "process", kept(b))
		t.add(ours, program(b, open(b, name), nil, "ansible-runner", "process", kept(b)))
	}
	t.report(b, "process, 20000 events")
}

// BenchmarkSecondRun runs a trivial play of a 500 MB project over a link, then
// changes a file and runs it again. The reference is the first run.
func BenchmarkSecondRun(b *testing.B) {
	b.Setenv("XDG_STATE_HOME", b.TempDir())
	dir := playDir(b, trivialPlay, 1)
	project := filepath.Join(dir, "project")
	for n := range 4 {
		randomFile(b, filepath.Join(project, "large"+strconv.Itoa(n)), byte(n), 100)
	}
	textFiles(b, project, 100, 1<<20)
	textFiles(b, filepath.Join(project, "roles"), 2000, 4000)
	var first, second, sentFirst, sentSecond []float64
	for range max(b.N, 3) {
		nodes := startNodes(b, 2, "")
		run := func() (ms, sent float64) {
			before := sentBytes(b, nodes[0])
			ms = wall(b, nodes, dir, overLinks)
			sent = sentBytes(b, nodes[0]) - before
			os.RemoveAll(filepath.Join(dir, "artifacts"))
			return ms, sent
		}
		ms, sent := run()
		first, sentFirst = append(first, ms), append(sentFirst, sent/1e6)
		f, err := os.OpenFile(filepath.Join(project, "large2"), os.O_WRONLY, 0)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := f.WriteAt([]byte(time.Now().String()), 50<<20); err != nil {
			b.Fatal(err)
		}
		f.Close()
		ms, sent = run()
		second, sentSecond = append(second, ms), append(sentSecond, sent/1e6)
	}
	report(b, "second run of a 500 MB project, bytes sent", "MB", sentSecond, sentFirst)
	report(b, "second run of a 500 MB project", "ms", second, first)
}

// sentBytes is what a node has sent on its links.
func sentBytes(b *testing.B, node *worker) (sum float64) {
	b.Helper()
	out, err := exec.Command(node.cmd.Path, "status", "--json", "--socket", node.dir+"/s").Output()
	if err != nil {
		b.Fatal(err)
	}
	var s struct{ Links []struct{ BytesOut float64 } }
	if err := json.Unmarshal(out, &s); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	for _, l := range s.Links {
		sum += l.BytesOut
	}
	return sum
}
