package runner_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/ranvier-mesh/ranvier/runner"
)

const (
	starting = `{"status": "starting", "runner_ident": "id1", "command": ["ansible-playbook", "x.yml"], "env": {"A": "b"}, "cwd": "/p"}` + "\n"
	running  = `{"status": "running", "runner_ident": "id1"}` + "\n"
	end      = `{"eof": true}` + "\n"
)

func event(n int, stdout string) string {
	return fmt.Sprintf(`{"uuid": "u-%d_2", "counter": %d, "stdout": %q, "start_line": 0, "end_line": 1, "runner_ident": "id1", `+
		`"event": "runner_on_ok", "created": "2026-01-02T03:04:05.678901", "parent_uuid": "p", "event_data": {"res": {"x": NaN, "y": [1e400, -Infinity]}}}`+"\n", n, n, stdout)
}

// The worker's last word says how many events it has sent.
func TestLostEventsAreMissed(t *testing.T) {
	t.Parallel()
	last := `{"status": "successful", "runner_ident": "id1", "event_count": 2}` + "\n" + `{"eof": true}` + "\n"
	for n, events := range map[int]string{1: event(1, "x"), 2: event(1, "x") + event(2, "x"), 3: event(1, "x") + event(2, "x") + event(3, "x")} {
		result, err := runner.Process(t.Context(), strings.NewReader(events+last), runner.ProcessOptions{PrivateDataDir: t.TempDir()})
		var lost *runner.LostEventsError
		if missed := errors.As(err, &lost); missed != (n != 2) || (err == nil) != (n == 2) || (result.RC == 0) != (n == 2) || missed && (lost.Sent != 2 || lost.Events != n) {
			t.Errorf("%d events: %+v, %v", n, result, err)
		}
	}
}

func status(s string) string {
	return `{"status": "` + s + `", "runner_ident": "id1"}` + "\n"
}

// zipped is a zipfile message of files given as name, content, ...
func zipped(files ...string) string {
	var buf bytes.Buffer
	zw := zip.NewWriter(&buf)
	for i := 0; i < len(files); i += 2 {
		h := &zip.FileHeader{Name: files[i], Method: zip.Deflate}
		h.SetMode(0o600)
		w, err := zw.CreateHeader(h)
		if err == nil {
			_, err = io.WriteString(w, files[i+1])
		}
		if err != nil {
			panic(err)
		}
	}
	if err := zw.Close(); err != nil {
		panic(err)
	}
	return fmt.Sprintf("{\"zipfile\": %d}\n%s", buf.Len(), base64.StdEncoding.EncodeToString(buf.Bytes()))
}

// run processes a stream and returns all that came of it.
func run(t *testing.T, in io.Reader, o runner.ProcessOptions) (runner.Result, []runner.Status, error) {
	t.Helper()
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	var seen []runner.Status
	var finished []runner.Result
	if o.PrivateDataDir == "" {
		o.PrivateDataDir = t.TempDir()
	}
	o.StatusHandler = func(s runner.Status) { seen = append(seen, s) }
	o.FinishedHandler = func(r runner.Result) { finished = append(finished, r) }
	result, err := runner.Process(t.Context(), in, o)
	if len(finished) != 1 || finished[0] != result {
		t.Errorf("FinishedHandler got %v, the result is %v", finished, result)
	}
	return result, seen, err
}

func TestProcessHandsOutEverything(t *testing.T) {
	in := starting + running + `{"event": "keepalive", "counter": 0, "uuid": 0}` + "\n" +
		event(1, "") + event(2, "a\r\nb") + event(3, "drop me") + status("failed") + zipped("rc", "2", "stdout", "a") + end
	dir := t.TempDir()
	var out bytes.Buffer
	var events []runner.Event
	artifacts := 0
	result, seen, err := run(t, iotest.OneByteReader(strings.NewReader(in+"what follows is not read")), runner.ProcessOptions{
		PrivateDataDir: filepath.Join(dir, "made"), Ident: "x", Output: &out,
		EventHandler: func(e runner.Event) bool {
			events = append(events, e)
			return e.Counter != 3
		},
		ArtifactsHandler: func(got string) {
			artifacts++
			if files := tree(t, got); files["job_events/2-u-2_2.json"] == "" || files["rc"] == "" {
				t.Errorf("when the artifacts are there, these are: %v", files)
			}
		},
	})
	want := runner.Result{Status: "failed", RC: 2, Events: 3, Ident: "id1", ArtifactDir: filepath.Join(dir, "made/artifacts/x")}
	if err != nil || result != want {
		t.Fatalf("%+v, %v; want %+v", result, err, want)
	}
	if out.String() != "\na\r\nb\ndrop me\n" {
		t.Errorf("output %q", out.String())
	}
	if len(seen) != 3 || seen[0].Status != "starting" || seen[0].Env["A"] != "b" || seen[0].CWD != "/p" ||
		seen[0].Command[1] != "x.yml" || string(seen[0].Raw)+"\n" != starting || seen[2].Ident != "id1" || artifacts != 1 {
		t.Errorf("statuses %+v, artifacts %d times", seen, artifacts)
	}
	e := events[1]
	raw := strings.TrimSpace(event(2, "a\r\nb"))
	if string(e.Raw) != raw {
		t.Errorf("raw event %s", e.Raw)
	}
	e.Raw = nil
	if diff := cmp.Diff(runner.Event{UUID: "u-2_2", ParentUUID: "p", Counter: 2, Name: "runner_on_ok", Stdout: "a\r\nb",
		EndLine: 1, Created: "2026-01-02T03:04:05.678901"}, e); diff != "" {
		t.Error(diff)
	}
	var data struct {
		Data struct {
			Res struct{ X *float64 }
		} `json:"event_data"`
	}
	e.Raw = []byte(strings.Replace(raw, "1e400", `"NaN"`, 1))
	if err := e.Decode(&data); err != nil || data.Data.Res.X != nil {
		t.Errorf("decoded %+v, %v", data, err)
	}
	files := tree(t, result.ArtifactDir)
	if diff := cmp.Diff(map[string]string{"job_events": "drwx------ ", "rc": "-rw------- 2", "stdout": "-rw------- a",
		"job_events/1-u-1_2.json": "-rw------- " + strings.TrimSpace(event(1, "")),
		"job_events/2-u-2_2.json": "-rw------- " + raw}, files); diff != "" {
		t.Error(diff)
	}
}

func TestProcessOutput(t *testing.T) {
	in := running + event(1, "") + event(2, "é") + `{"uuid": "v", "counter": 3, "stdout": "\udcff", "event": "verbose"}` + "\n" + status("successful") + end
	for name, c := range map[string]struct {
		o    runner.ProcessOptions
		want string
	}{
		"as process": {runner.ProcessOptions{}, "\né\n\xff\n"},
		"as run":     {runner.ProcessOptions{OmitEmpty: true}, "é\n\xff\n"},
		"quiet":      {runner.ProcessOptions{Quiet: true}, ""},
		"json": {runner.ProcessOptions{JSONMode: true},
			event(1, "") + event(2, "é") + `{"uuid": "v", "counter": 3, "stdout": "\udcff", "event": "verbose"}` + "\n"},
	} {
		var out bytes.Buffer
		c.o.Output = &out
		if _, _, err := run(t, strings.NewReader(in), c.o); err != nil || out.String() != c.want {
			t.Errorf("%s: %q, %v; want %q", name, out.String(), err, c.want)
		}
	}
	result, _, err := run(t, strings.NewReader(in), runner.ProcessOptions{Output: &failingWriter{0}})
	if !errors.Is(err, errPipe) || result.Events != 3 || result.Status != "successful" || result.RC == 0 {
		t.Errorf("output that fails: %+v, %v", result, err)
	}
}

// What is there is shown before the next message is waited for.
func TestProcessShowsOutputAtOnce(t *testing.T) {
	r, w := io.Pipe()
	shown, show := io.Pipe()
	go func() {
		_, _ = runner.Process(t.Context(), r, runner.ProcessOptions{PrivateDataDir: t.TempDir(), Output: show})
		show.Close()
	}()
	if _, err := io.WriteString(w, event(1, "now")+`{"uuid": "half a li`); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(shown, got); err != nil || string(got) != "now\n" {
		t.Errorf("%q, %v", got, err)
	}
	w.Close()
	if _, err := io.ReadAll(shown); err != nil {
		t.Error(err)
	}
}

func TestExitCode(t *testing.T) {
	for _, c := range []struct {
		status, rc string
		want       int
	}{
		{"successful", "0", 0}, {"failed", "2", 2}, {"failed", "4", 4}, {"canceled", "254", 254}, {"timeout", "254\n", 254},
		{"successful", "", 0}, {"failed", "", 1}, {"canceled", "", 254}, {"timeout", "", 254}, {"failed", "None", 1}, {"failed", "0", 1},
	} {
		in := status(c.status)
		if c.rc != "" {
			in += zipped("rc", c.rc)
		}
		dir := t.TempDir()
		old := filepath.Join(dir, "artifacts") // an rc of an earlier run tells nothing
		if err := errors.Join(os.Mkdir(old, 0o700), os.WriteFile(filepath.Join(old, "rc"), []byte("77"), 0o600)); err != nil {
			t.Fatal(err)
		}
		result, _, err := run(t, strings.NewReader(in+end), runner.ProcessOptions{PrivateDataDir: dir})
		if err != nil || result.RC != c.want || result.Status != c.status {
			t.Errorf("%+v: %+v, %v", c, result, err)
		}
	}
}

func TestEachFaultHasItsOwnError(t *testing.T) {
	broken := errors.New("connection reset")
	begin := starting + running + event(1, "x")
	good := zipped("rc", "0")
	for name, c := range map[string]struct {
		in   io.Reader
		says string
		is   any
	}{
		"link lost":          {io.MultiReader(strings.NewReader(begin), iotest.ErrReader(broken)), "lost after 1 events: connection reset", new(*runner.LinkError)},
		"link lost in zip":   {io.MultiReader(strings.NewReader(begin+good[:40]), iotest.ErrReader(broken)), "connection reset", new(*runner.LinkError)},
		"carrier's end":      {io.MultiReader(strings.NewReader(begin), iotest.ErrReader(io.ErrUnexpectedEOF)), "lost", new(*runner.LinkError)},
		"empty":              {strings.NewReader(""), "not started", new(*runner.TruncatedError)},
		"truncated":          {strings.NewReader(begin), "after 1 events, the job being running", new(*runner.TruncatedError)},
		"truncated line":     {strings.NewReader(begin + `{"uuid": "`), "ended early", new(*runner.TruncatedError)},
		"truncated zip":      {strings.NewReader(begin + good[:40]), "ended early", new(*runner.TruncatedError)},
		"no eof":             {strings.NewReader(begin + status("successful") + good), "successful", new(*runner.TruncatedError)},
		"garbage":            {strings.NewReader(begin + "Traceback (most recent call last):\n" + end), "Line with invalid JSON data: Traceback (most", new(*runner.MalformedError)},
		"garbage unended":    {strings.NewReader(begin + strings.Repeat("x", 300_000)), "Line with invalid JSON data: xxx", new(*runner.MalformedError)},
		"blank line":         {strings.NewReader(begin + "\n" + end), "malformed", new(*runner.MalformedError)},
		"scalar":             {strings.NewReader(begin + "5\n" + end), "not a JSON object", new(*runner.MalformedError)},
		"newline after zip":  {strings.NewReader(begin + good + "\n" + end), "malformed", new(*runner.MalformedError)},
		"bad base64":         {strings.NewReader(begin + strings.Replace(good, "UEs", "U-s", 1) + end), "base64", new(*runner.MalformedError)},
		"bad size":           {strings.NewReader(begin + `{"zipfile": "5"}` + "\n"), "zipfile", new(*runner.MalformedError)},
		"status no text":     {strings.NewReader(begin + `{"status": 5}` + "\n"), "status", new(*runner.MalformedError)},
		"unknown message":    {strings.NewReader(begin + `{"hello": 5}` + "\n"), "uuid is missing", new(*runner.MalformedError)},
		"counter a path":     {strings.NewReader(`{"counter": "../1", "uuid": "x"}` + "\n"), "counter", new(*runner.MalformedError)},
		"counter below 0":    {strings.NewReader(`{"counter": -1, "uuid": "x"}` + "\n"), "counter", new(*runner.MalformedError)},
		"uuid a path":        {strings.NewReader(`{"counter": 1, "uuid": "/../../../x"}` + "\n"), "uuid", new(*runner.MalformedError)},
		"uuid with a zero":   {strings.NewReader(`{"counter": 1, "uuid": "\u0000"}` + "\n"), "uuid", new(*runner.MalformedError)},
		"uuid a number":      {strings.NewReader(`{"counter": 1, "uuid": 0}` + "\n"), "uuid", new(*runner.MalformedError)},
		"uuid too long":      {strings.NewReader(`{"counter": 1, "uuid": "` + strings.Repeat("x", 300) + "\"}\n"), "uuid", new(*runner.MalformedError)},
		"not a zip":          {strings.NewReader(begin + "{\"zipfile\": 3}\nYWJj" + end), "artifacts to", new(*runner.ArtifactsError)},
		"archive escapes":    {strings.NewReader(begin + zipped("../../x", "y") + end), "unsafe", new(*runner.ArtifactsError)},
		"archive too large":  {strings.NewReader(begin + zipped("x", strings.Repeat("y", 2000)) + end), "limit", new(*runner.ArtifactsError)},
		"worker's error":     {strings.NewReader(`{"status": "error", "job_explanation": "no ansible", "result_traceback": "tb"}` + "\n" + end), "no ansible", new(*runner.WorkerError)},
		"worker's silence":   {strings.NewReader(`{"status": "error"}` + "\n" + end), "without saying", new(*runner.WorkerError)},
		"no status":          {strings.NewReader(end), "without a result", nil},
		"no final status":    {strings.NewReader(begin + end), "without a result", nil},
		"long line is short": {strings.NewReader(strings.Repeat("z", 100_000) + "\n"), strings.Repeat("z", 1000), new(*runner.MalformedError)},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			result, seen, err := run(t, c.in, runner.ProcessOptions{PrivateDataDir: dir, MaxArtifactBytes: 1000})
			if err == nil || !strings.Contains(err.Error(), c.says) || len(err.Error()) > 1500 {
				t.Fatalf("error %.2000v, want %q in it", err, c.says)
			}
			if c.is == nil && !errors.Is(err, runner.ErrNoResult) || c.is != nil && !errors.As(err, c.is) {
				t.Errorf("error %#v, want %T", err, c.is)
			}
			if _, link := c.is.(**runner.LinkError); link && !errors.Is(err, broken) && name != "carrier's end" {
				t.Errorf("%v does not wrap the reader's", err)
			}
			if _, cut := c.is.(**runner.TruncatedError); cut && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%v is no io.ErrUnexpectedEOF", err)
			}
			if result.RC != 1 || result.Status != "error" {
				t.Errorf("result %+v", result)
			}
			if len(seen) == 0 || seen[len(seen)-1].Status != "error" {
				t.Errorf("statuses %+v", seen)
			}
			files := tree(t, dir)
			if got := files["artifacts/job_events/1-u-1_2.json"]; result.Events == 1 && got == "" {
				t.Errorf("the event that came was lost: %v", files)
			}
			if _, out := tree(t, filepath.Dir(dir))["x"]; out {
				t.Error("a file was written outside")
			}
		})
	}
}

func TestProcessRefusesBadOptions(t *testing.T) {
	if _, err := runner.Process(t.Context(), strings.NewReader(end), runner.ProcessOptions{}); !errors.Is(err, runner.ErrNoPrivateDataDir) {
		t.Errorf("no directory: %v", err)
	}
	for _, ident := range []string{"..", ".", "a/b", "a\x00"} {
		_, err := runner.Process(t.Context(), strings.NewReader(end), runner.ProcessOptions{PrivateDataDir: t.TempDir(), Ident: ident})
		if !errors.Is(err, runner.ErrOptions) {
			t.Errorf("ident %q: %v", ident, err)
		}
	}
	dir := t.TempDir()
	if err := os.Symlink("/tmp", filepath.Join(dir, "job_events")); err != nil {
		t.Fatal(err)
	}
	var aerr *runner.ArtifactsError
	if _, err := runner.Process(t.Context(), strings.NewReader(end), runner.ProcessOptions{ArtifactDir: dir}); !errors.As(err, &aerr) {
		t.Errorf("job_events leads elsewhere: %v", err)
	}
}

func TestProcessEndsWithItsContext(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	if _, err := io.WriteString(w, running); err != nil {
		t.Fatal(err)
	}
	_, err = runner.Process(ctx, r, runner.ProcessOptions{PrivateDataDir: t.TempDir(),
		StatusHandler: func(runner.Status) { cancel(why) }})
	if !errors.Is(err, why) {
		t.Errorf("error %v", err)
	}
	_, err = runner.Process(ctx, strings.NewReader(end), runner.ProcessOptions{PrivateDataDir: t.TempDir()})
	if !errors.Is(err, why) {
		t.Errorf("error %v", err)
	}
}

// A save that fails is told, and nothing waits for ever.
func TestProcessTellsWhatItCannotSave(t *testing.T) {
	dir := t.TempDir()
	in := event(1, "x") + event(2, strings.Repeat("y", 100_000)) + status("successful") + end
	_, _, err := run(t, strings.NewReader(in), runner.ProcessOptions{ArtifactDir: dir, PrivateDataDir: dir,
		EventHandler: func(e runner.Event) bool {
			if e.Counter == 1 {
				if err := os.Mkdir(filepath.Join(dir, "job_events", "1-u-1_2.json"), 0o700); err != nil {
					t.Error(err)
				}
			}
			return true
		}})
	var aerr *runner.ArtifactsError
	if !errors.As(err, &aerr) || !strings.Contains(err.Error(), "1-u-1_2.json") {
		t.Errorf("error %v", err)
	}
}

// manyEvents is a stream of n events, made as it is read.
type manyEvents struct {
	n, at int
	line  string
	left  string
}

func newManyEvents(n, size int) *manyEvents {
	filler := strings.Repeat("x", max(0, size-260))
	return &manyEvents{n: n, line: `{"uuid": "02fc0000-0001-d4ed-a62d-%012d", "counter": %d, "stdout": "ok: [host]` + filler +
		`", "start_line": 2, "end_line": 4, "event": "runner_on_ok", "parent_uuid": "02fc0000-0001-d4ed-a62d-000000000004", ` +
		`"event_data": {"host": "h", "res": {"changed": false}}}` + "\n"}
}

func (m *manyEvents) Read(p []byte) (int, error) {
	if m.left == "" {
		switch m.at++; {
		case m.at <= m.n:
			m.left = fmt.Sprintf(m.line, m.at, m.at)
		case m.at == m.n+1:
			m.left = status("successful") + end
		default:
			return 0, io.EOF
		}
	}
	n := copy(p, m.left)
	m.left = m.left[n:]
	return n, nil
}

func TestProcessMemoryDoesNotGrowWithTheOutput(t *testing.T) {
	var peak uint64
	result, err := runner.Process(t.Context(), newManyEvents(200, 1<<20), runner.ProcessOptions{
		PrivateDataDir: t.TempDir(), Output: io.Discard,
		EventHandler: func(e runner.Event) bool {
			if e.Counter%20 == 0 {
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapAlloc)
			}
			return e.Counter%20 == 0
		}})
	if err != nil || result.Events != 200 {
		t.Fatalf("%+v, %v", result, err)
	}
	if peak > 32<<20 {
		t.Errorf("%d MiB are held while 200 MiB pass", peak>>20)
	}
}

// FuzzProcess throws bytes at Process; whatever they are it returns, and
// nothing appears outside the artifact directory.
func FuzzProcess(f *testing.F) {
	f.Add([]byte(starting + event(1, "x") + status("failed") + zipped("rc", "2", "job_events/", "") + end))
	f.Add([]byte(`{"counter": 1, "uuid": "../x"}` + "\n" + zipped("../rc", "2") + end))
	f.Fuzz(func(t *testing.T, in []byte) {
		outer := t.TempDir()
		result, err := runner.Process(t.Context(), bytes.NewReader(in), runner.ProcessOptions{
			PrivateDataDir: outer, ArtifactDir: filepath.Join(outer, "a"), Output: io.Discard, MaxArtifactBytes: 1 << 20})
		if err == nil && result.Status == "" || err != nil && result.RC == 0 {
			t.Fatalf("%+v, %v", result, err)
		}
		if entries, err := os.ReadDir(outer); err != nil || len(entries) != 1 {
			t.Fatalf("beside the artifacts is %v, %v", entries, err)
		}
	})
}
