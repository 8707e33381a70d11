package events_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/ranvier-mesh/ranvier/runner/internal/events"
)

const key = "0123456789abcdef"

// play stands for Ansible with the plugin: what it prints, and what it has
// written down.
type play struct {
	printed bytes.Buffer
	records bytes.Buffer
}

func (p *play) event(record, text string) {
	line := record + "\n"
	fmt.Fprintf(&p.printed, "\x1b]ranvier;%s;%d,%d\x07%s\x1b]ranvier;%s;\x07", key, p.records.Len(), len(line), text, key)
	p.records.WriteString(line)
}

func (p *play) text(s string) { p.printed.WriteString(s) }

// seen is an event as it is told.
type seen struct {
	Counter             int64
	UUID, Event, Stdout string
	Start, End          int64
	Text                string // as it goes to the file stdout
	Outside             bool
}

// filter passes output through a Filter in chunks and returns the events.
func filter(t interface{ Fatalf(string, ...any) }, chunks [][]byte, records io.ReaderAt, damaged func(error)) []seen {
	var all []seen
	f := events.NewFilter(events.Options{Key: key, Records: records, Ident: "id1", Damaged: damaged,
		Now: func() time.Time { return time.Unix(0, 0) },
		Emit: func(e events.Event) error {
			var m struct {
				UUID, Event, Stdout, Ident string
				Counter                    int64
				Start                      int64 `json:"start_line"`
				End                        int64 `json:"end_line"`
			}
			if err := json.Unmarshal(e.Line, &m); err != nil {
				t.Fatalf("%v: %s", err, e.Line)
			}
			if m.UUID != e.UUID || m.Counter != e.Counter {
				t.Fatalf("the line %s is not event %d, %s", e.Line, e.Counter, e.UUID)
			}
			s := seen{m.Counter, m.UUID, m.Event, m.Stdout, m.Start, m.End, string(e.Text), e.Outside}
			if e.Outside {
				s.UUID = ""
			}
			all = append(all, s)
			return nil
		}})
	for _, c := range chunks {
		if err := f.Write(c); err != nil {
			t.Fatalf("%v", err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatalf("%v", err)
	}
	if f.Count() != int64(len(all)) {
		t.Fatalf("%d of %d events", f.Count(), len(all))
	}
	return all
}

func TestFilter(t *testing.T) {
	t.Parallel()
	var p play
	p.text("before\r\n\r\n")
	p.event(`{"uuid": "u1", "event": "playbook_on_start", "event_data": {}}`, "")
	p.event(`{"uuid": "u2", "event": "playbook_on_task_start", "event_data": {"uuid": "x"}}`, "\r\nTASK [a] ***\r\n")
	p.text("a prompt: ")
	p.event(`{"uuid": "u3", "event": "runner_on_ok"}`, "ok \xff é\r\n")
	p.text("\x1b]ranvier;wrong;1,2\x07 no mark\r\n")
	p.text("the end")
	want := []seen{
		{1, "", "verbose", "before", 0, 1, "before", true},
		{2, "", "verbose", "", 1, 2, "", true},
		{3, "u1", "playbook_on_start", "", 2, 2, "", false},
		{4, "u2", "playbook_on_task_start", "\r\nTASK [a] ***", 2, 4, "\r\nTASK [a] ***", false},
		{5, "", "verbose", "a prompt: ", 4, 4, "a prompt: ", true},
		{6, "u3", "runner_on_ok", "ok \ufffd é", 4, 5, "ok \xff é", false},
		{7, "", "verbose", "\x1b]ranvier;wrong;1,2\x07 no mark", 5, 6, "\x1b]ranvier;wrong;1,2\x07 no mark", true},
		{8, "", "verbose", "the end", 6, 6, "the end", true},
	}
	out := p.printed.Bytes()
	if diff := cmp.Diff(want, filter(t, [][]byte{bytes.Clone(out)}, bytes.NewReader(p.records.Bytes()), nil)); diff != "" {
		t.Error(diff)
	}
	for cut := range out { // wherever a read ends, the same comes of it
		chunks := [][]byte{bytes.Clone(out[:cut]), bytes.Clone(out[cut:])}
		if diff := cmp.Diff(want, filter(t, chunks, bytes.NewReader(p.records.Bytes()), nil)); diff != "" {
			t.Fatalf("cut at %d: %s", cut, diff)
		}
	}
}

// What is printed outside of events comes line by line, as it is printed.
func TestLinesAreNotKeptWaiting(t *testing.T) {
	t.Parallel()
	var got []string
	f := events.NewFilter(events.Options{Key: key, Now: time.Now, Emit: func(e events.Event) error {
		got = append(got, string(e.Text))
		return nil
	}})
	for _, c := range []struct {
		printed string
		want    int
	}{{"one\r\ntw", 1}, {"o\r\n", 2}, {"\x1b", 2}, {"[0m x\r\n", 3}, {"\x1b]ranvier;", 3}} {
		if err := f.Write([]byte(c.printed)); err != nil || len(got) != c.want {
			t.Errorf("after %q: %q, %v", c.printed, got, err)
		}
	}
}

func TestDamagedRecords(t *testing.T) {
	t.Parallel()
	records := "{\"uuid\": \"u1\"}\nnothing\n{\"event\": \"x\", \"uuid\": \"u\"}\n{\"uuid\": \"a\"}\n{\"uuid\": \"b\"}\n"
	for name, mark := range map[string]string{
		"beyond the end": "900,20", "half a record": "0,9", "no record": "15,8", "another's": "23,29", "two": "52,30",
		"negative": "-1,5", "empty": "0,0", "huge": "0,999999999999", "one number": "5", "no number": "a,b", "overflow": "99999999999999999999,1",
	} {
		var damage []error
		out := fmt.Sprintf("\x1b]ranvier;%s;%s\x07the text\r\n\x1b]ranvier;%s;\x07", key, mark, key)
		got := filter(t, [][]byte{[]byte(out)}, strings.NewReader(records), func(err error) { damage = append(damage, err) })
		if len(damage) != 1 || len(got) != 1 || got[0].Event != "verbose" || got[0].Stdout != "the text" {
			t.Errorf("%s: %v, %v", name, damage, got)
		}
	}
}

func TestEmitEndsIt(t *testing.T) {
	t.Parallel()
	full := errors.New("full")
	f := events.NewFilter(events.Options{Key: key, Now: time.Now, Emit: func(events.Event) error { return full }})
	if err := f.Write([]byte("x\r\n")); !errors.Is(err, full) {
		t.Error(err)
	}
}

// A line or an event that does not end does not fill the memory.
func TestTextWithoutEnd(t *testing.T) {
	t.Parallel()
	var p play
	p.event(`{"uuid": "u1", "event": "runner_on_ok"}`, "")
	begin := p.printed.String()[:strings.IndexByte(p.printed.String(), 7)+1]
	for name, start := range map[string]string{"outside": "", "inside": begin} {
		var total, longest int
		f := events.NewFilter(events.Options{Key: key, Records: bytes.NewReader(p.records.Bytes()), Now: time.Now,
			Emit: func(e events.Event) error {
				total += len(e.Text)
				longest = max(longest, len(e.Text))
				return nil
			}})
		chunk := bytes.Repeat([]byte{'x'}, 1<<20)
		err := f.Write([]byte(start))
		for range 40 {
			err = errors.Join(err, f.Write(chunk))
		}
		if err := errors.Join(err, f.Close()); err != nil || total != 40<<20 || longest > events.MaxText+len(chunk) {
			t.Errorf("%s: %d bytes, at most %d at once: %v", name, total, longest, err)
		}
	}
}

// Nothing is lost and nothing is made up, however the output is cut.
func TestFilterKeepsTheText(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var p play
		var want strings.Builder
		texts := rapid.SliceOfN(rapid.StringMatching(`([a-zé\x1b\];]{0,9}(\r\n)?){0,4}`), 1, 8).Draw(t, "texts")
		inside := 0
		for i, text := range texts {
			want.WriteString(text)
			if rapid.Bool().Draw(t, "inside") {
				p.event(fmt.Sprintf(`{"uuid": "u%d", "event": "e"}`, i), text)
				inside++
			} else {
				p.text(text)
			}
		}
		var chunks [][]byte
		for out := p.printed.Bytes(); len(out) > 0; {
			n := rapid.IntRange(1, len(out)).Draw(t, "chunk")
			chunks, out = append(chunks, bytes.Clone(out[:n])), out[n:]
		}
		var got strings.Builder
		line, events := int64(0), 0
		for _, e := range filter(t, chunks, bytes.NewReader(p.records.Bytes()), nil) {
			if e.Start != line || e.End < e.Start {
				t.Fatalf("lines %d to %d after %d", e.Start, e.End, line)
			}
			line = e.End
			got.WriteString(e.Stdout)
			if !e.Outside {
				events++
			}
		}
		bare := strings.NewReplacer("\r", "", "\n", "")
		if events != inside || bare.Replace(got.String()) != bare.Replace(want.String()) || line != int64(strings.Count(want.String(), "\n")) {
			t.Fatalf("%d of %d events, %d lines: %q, want %q", events, inside, line, got.String(), want.String())
		}
	})
}

// FuzzFilter lets a job print and write down anything: every event is JSON,
// numbered, and the text of all of them is no longer than what was printed.
func FuzzFilter(f *testing.F) {
	f.Add([]byte("a\r\n\x1b]ranvier;"+key+";0,14\x07b\r\n\x1b]ranvier;"+key+";\x07c"), []byte("{\"uuid\": \"u\"}\n"), 5)
	f.Add([]byte("\x1b]ranvier;"+key+";0,1\x07\xff\x1b]ranvier;"+key+";0,14\x07"), []byte("{\"uuid\": \"u\"}\n"), 30)
	f.Fuzz(func(t *testing.T, printed, records []byte, cut int) {
		cut = min(max(cut, 0), len(printed))
		total := 0
		for i, e := range filter(t, [][]byte{bytes.Clone(printed[:cut]), bytes.Clone(printed[cut:])}, bytes.NewReader(records), func(error) {}) {
			total += len(e.Text)
			if e.Counter != int64(i+1) {
				t.Fatalf("event %d is called %d", i+1, e.Counter)
			}
		}
		if total > len(printed) {
			t.Fatalf("%d bytes of text from %d", total, len(printed))
		}
	})
}

func TestMarks(t *testing.T) {
	t.Parallel()
	got := events.Marks("a.c").ReplaceAllString("1\x1b]ranvier;a.c;12,5\x072\x1b]ranvier;a.c;\x073\x1b]ranvier;abc;\x07", "")
	if got != "123\x1b]ranvier;abc;\x07" {
		t.Errorf("%q", got)
	}
}
