// Package interop holds transmit, worker and process to those of the Python
// tool ansible-runner, in all combinations, event by event.
package interop

import (
	"bytes"
	"encoding/json"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ranvier-mesh/ranvier/internal/newansible"
)

var all = flag.Bool("all", false, "every play through each of the eight combinations, the slow ones too")

var (
	home   string // of all tools: Ansible leaves files there
	binary string // ours; both are set once by TestMain
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "interop")
	if err != nil {
		panic(err)
	}
	home, binary = filepath.Join(dir, "home"), filepath.Join(dir, "ranvier")
	if err := os.Mkdir(home, 0o700); err != nil {
		panic(err)
	}
	if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/ranvier").CombinedOutput(); err != nil {
		panic(string(out))
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// tool is ours or Python's, with the installed Ansible or the newer one.
type tool struct {
	name  string
	newer bool
}

var (
	ours   = tool{name: "ours"}
	python = tool{name: "python"}
	// The versions of Ansible that Debian has, and the Python tool's beside them.
	installed = []tool{python, ours}
	newer     = []tool{{python.name, true}, {ours.name, true}}
)

func (w tool) ours() bool { return w.name == ours.name }

func (w tool) command(t testing.TB, env []string, args ...string) *exec.Cmd {
	t.Helper()
	environ := append(os.Environ(), "HOME="+home, "LC_ALL=C.UTF-8", "TERM=xterm-256color")
	program, err := binary, error(nil)
	switch {
	case w.newer && !w.ours():
		program = filepath.Join(newansible.Bin(t), "ansible-runner")
	case !w.ours():
		if program, err = exec.LookPath("ansible-runner"); err != nil {
			t.Fatal("these tests need the Python tool (Debian: python3-ansible-runner, ansible-core): ", err)
		}
	}
	if w.newer {
		environ = append(environ, newansible.Env(t)...)
	}
	cmd := exec.Command(program, args...)
	cmd.Env = append(environ, env...)
	return cmd
}

// run runs a phase and returns what it wrote.
func (w tool) run(t testing.TB, stdin []byte, env []string, args ...string) []byte {
	t.Helper()
	cmd := w.command(t, env, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && out.Len() == 0 {
		t.Fatalf("%s %v: %v\n%s", w.name, args, err, errs.Bytes())
	}
	return out.Bytes()
}

// TestMatrix does each play with both workers. What they said goes through both
// tools' process, which must agree to the byte; and the two workers must agree
// event by event, but for the closed list. Without -all only some plays are
// transmitted by both tools: what they transmit is compared elsewhere too.
func TestMatrix(t *testing.T) {
	t.Parallel()
	matrix(t, installed)
}

// TestMatrixNewer is TestMatrix with a newer Ansible and a newer Python tool.
func TestMatrixNewer(t *testing.T) {
	t.Parallel()
	newansible.Env(t)
	matrix(t, newer)
}

func matrix(t *testing.T, tools []tool) {
	for name, p := range plays {
		if !*all && (p.slow || !p.newer && slices.Equal(tools, newer)) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := lay(t, p.files)
			var want run
			for _, transmit := range tools {
				if !transmit.ours() && !*all && (!p.both || name == "all sorts" && transmit.newer) { // it takes long
					continue
				}
				sent := transmit.run(t, nil, nil, append([]string{"transmit", dir, "-i", "id1"}, p.args...)...)
				for _, worker := range tools {
					got := work(t, tools, worker, p, sent)
					if want.events == nil {
						want = got
						continue
					}
					compare(t, transmit.name+" transmit, "+worker.name+" worker", p, want, got)
				}
			}
		})
	}
}

// run is what came of a job.
type run struct {
	by        tool // the worker
	statuses  []map[string]any
	events    []map[string]any
	artifacts map[string]string // but for job_events
}

// work lets a worker do the job, and both tools process what it says.
func work(t *testing.T, tools []tool, w tool, p play, sent []byte) run {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "worker")
	said := w.run(t, sent, p.env, "worker", "--private-data-dir", dir)
	for tries := 1; tries < p.tries && bytes.Contains(said, []byte(`{"status": "timeout"`)); tries++ {
		dir = filepath.Join(t.TempDir(), "worker")
		said = w.run(t, sent, p.env, "worker", "--private-data-dir", dir)
	}
	r := parse(t, w, said, dir)
	var trees []map[string]string
	for _, process := range tools {
		to := t.TempDir()
		process.run(t, said, nil, "process", to, "-i", "id1")
		os.Remove(filepath.Join(to, "daemon.log")) // of Python's command line
		trees = append(trees, tree(t, filepath.Join(to, "artifacts", "id1")))
	}
	if diff := cmp.Diff(trees[1], trees[0]); diff != "" {
		t.Errorf("what %s worker said is processed differently (- Python's): %s", w.name, diff)
	}
	if rc := trees[0]["rc"]; rc != strconv.Itoa(p.exit(w)) {
		t.Errorf("%s worker: rc %q, want %d: %s", w.name, rc, p.exit(w), trees[0]["stdout"])
	}
	r.artifacts = make(map[string]string)
	for name, content := range trees[0] {
		if !strings.HasPrefix(name, "job_events/") {
			r.artifacts[name] = normal(content, dir)
		}
	}
	if left := slices.Sorted(names(filepath.Join(dir, "artifacts", "id1"))); w.ours() &&
		!slices.Equal(left, []string{"command", "fact_cache", "job_events", "rc", "status", "stderr", "stdout"}) &&
		!slices.Equal(left, []string{"command", "job_events", "rc", "status", "stderr", "stdout"}) {
		t.Errorf("our worker leaves %v", left)
	}
	return r
}

func names(dir string) func(func(string) bool) {
	entries, _ := os.ReadDir(dir)
	return func(yield func(string) bool) {
		for _, e := range entries {
			if !yield(e.Name()) {
				return
			}
		}
	}
}

// parse reads a worker's stream and checks what holds for each.
func parse(t *testing.T, by tool, said []byte, dir string) run {
	t.Helper()
	r := run{by: by}
	head, _, found := bytes.Cut(said, []byte("{\"zipfile\": "))
	if !found || !bytes.HasSuffix(said, []byte("{\"eof\": true}\n")) {
		t.Errorf("the stream has no zip or no end: %.2000s", said)
	}
	line := 0
	for l := range bytes.Lines(head) {
		var v map[string]any
		if err := json.Unmarshal([]byte(normal(string(l), dir)), &v); err != nil {
			t.Fatalf("%v: %s", err, l)
		}
		if v["status"] != nil {
			if n, ok := v["event_count"]; ok && n != float64(len(r.events)) {
				t.Errorf("%v events, and the worker says %v", len(r.events), n)
			}
			delete(v, "event_count") // of ours only
			r.statuses = append(r.statuses, v)
			continue
		}
		r.events = append(r.events, v)
		text, _ := v["stdout"].(string)
		start, end := int(v["start_line"].(float64)), int(v["end_line"].(float64))
		if int(v["counter"].(float64)) != len(r.events) || start != line || end < start || end-start < strings.Count(text, "\n") {
			t.Errorf("event %d, line %d: counter or lines are wrong: %s", len(r.events), line, l)
		}
		line = end
	}
	r.events = without(r.events)
	return r
}

// compareEvents holds got to want, in their order where that is the same each time.
func compareEvents(t *testing.T, who string, order bool, want, got run) {
	t.Helper()
	prepare := func(r run) (events []map[string]any) {
		for _, e := range oneAnswer(r.events) {
			if !mended(r.by, e) {
				continue
			}
			if !order {
				delete(e, "start_line")
				delete(e, "end_line")
				unbanner(e)
			}
			events = append(events, e)
		}
		return events
	}
	texts := func(events []map[string]any) (lines []string) {
		for _, e := range events {
			text, err := json.MarshalIndent(e, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, string(text))
		}
		if !order {
			slices.Sort(lines)
		}
		return lines
	}
	wanted, came := prepare(want), prepare(got)
	for i := range min(len(wanted), len(came)) {
		samePart(wanted[i], came[i])
	}
	w, g := texts(wanted), texts(came)
	for i := range max(len(w), len(g)) {
		a, b := "nothing", "nothing"
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			t.Errorf("%s: event %d differs from Python's (-): %s", who, i+1, cmp.Diff(a, b))
			break
		}
	}
}

// compare holds got to want.
func compare(t *testing.T, who string, p play, want, got run) {
	t.Helper()
	compareEvents(t, who, p.order, want, got)
	if diff := cmp.Diff(want.statuses, got.statuses); diff != "" {
		t.Errorf("%s: the statuses differ from Python's (-): %s", who, diff)
	}
	for _, r := range []run{want, got} {
		// The Python tool keeps the line ends of what is outside of events as the
		// terminal made them, if they come in one piece.
		out := errant.ReplaceAllString(polls.ReplaceAllString(strings.ReplaceAll(r.artifacts["stdout"], "\r", ""), ""), "")
		r.artifacts["stdout"] = strings.ToValidUTF8(answers.ReplaceAllString(out, "an answer"), "\uFFFD")
		for name, content := range r.artifacts {
			if name == "command" || strings.HasPrefix(name, "fact_cache/") {
				r.artifacts[name] = members(t, content)
			}
		}
		if !p.order {
			r.artifacts["stdout"] = sorted(r.artifacts["stdout"])
		}
	}
	if diff := cmp.Diff(want.artifacts, got.artifacts); diff != "" {
		t.Errorf("%s: the artifacts differ from Python's (-): %s", who, diff)
	}
}

// members is a JSON object with its members in an order that is always the same.
func members(t *testing.T, text string) string {
	t.Helper()
	var all map[string]any
	err := json.Unmarshal([]byte(text), &all)
	if inner, ok := all["__payload__"].(string); ok { // of a newer Ansible's facts
		all["__payload__"] = members(t, inner)
	}
	sorted, merr := json.MarshalIndent(all, "", " ")
	if err != nil || merr != nil {
		t.Errorf("%v, %v: %s", err, merr, text)
	}
	return string(sorted)
}

// sorted are the lines of a text in an order that is always the same, each
// once: with the strategy "free" headings are repeated as the hosts happen to be.
func sorted(text string) string {
	return strings.Join(slices.Compact(slices.Sorted(strings.SplitSeq(text, "\n"))), "\n")
}

// lay makes a private data directory.
func lay(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(file, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// tree returns the files below dir, by name.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(file)
		found[file[len(dir)+1:]] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
