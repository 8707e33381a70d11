// Package events turns what a play prints, and the records that the callback
// plugin wrote down meanwhile, into event lines (docs/runner.md §8).
package events

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/ranvier-mesh/ranvier/runner/internal/pyjson"
)

const (
	// MaxText is how much text an event holds; what is printed beyond it
	// becomes verbose events.
	MaxText = 16 << 20
	// maxLine is how long a line outside of events gets before it is cut.
	maxLine = 1 << 20
	// MaxRecord is how long a record may be that a mark tells of.
	MaxRecord = 48 << 20
	// maxMark is longer than what follows a mark's key.
	maxMark = 48
)

// Event is one line of the stream, and what of it is of use here.
type Event struct {
	Line    []byte // one JSON object, no newline; the receiver's to keep
	Counter int64
	UUID    string
	Text    []byte // what was printed, without its line ends; valid during the call
	Outside bool   // whether that was outside of what Ansible tells of
}

// Options says where a Filter's records come from and its events go.
type Options struct {
	Key     string           // of the marks
	Records io.ReaderAt      // what the plugin writes
	Ident   string           // the run's
	Now     func() time.Time // for events that have no record
	Emit    func(Event) error
	// Damaged hears why a record could not be read; what was printed for it
	// becomes verbose events.
	Damaged func(error)
}

// Filter takes the output of a play apart. It is for one goroutine.
//
//	outside ──mark with a record──> inside: the text belongs to the record
//	   ^                               │
//	   └──────────end mark─────────────┘    each line outside is an event of its own
type Filter struct {
	Options
	prefix []byte
	ident  []byte // as JSON
	buf    []byte
	seen   int // bytes of buf that hold no mark
	record []byte
	count  int64
	line   int64
}

// NewFilter returns a Filter that has seen nothing.
func NewFilter(o Options) *Filter {
	return &Filter{Options: o, prefix: []byte("\x1b]ranvier;" + o.Key + ";"), ident: pyjson.AppendString(nil, o.Ident)}
}

// Count is how many events there were.
func (f *Filter) Count() int64 { return f.count }

// Write takes output. Its error is Emit's.
func (f *Filter) Write(p []byte) error {
	f.buf = append(f.buf, p...)
	for {
		at := bytes.Index(f.buf[f.seen:], f.prefix)
		if at < 0 {
			break
		}
		at += f.seen
		rest := f.buf[at+len(f.prefix):]
		end := bytes.IndexByte(rest[:min(len(rest), maxMark)], 7)
		if end < 0 {
			if len(rest) < maxMark {
				f.seen = at
				return f.outside(at)
			}
			f.seen = at + 1 // no mark but text that looks like one
			continue
		}
		if err := f.mark(f.buf[:at], rest[:end]); err != nil {
			return err
		}
		f.drop(at + len(f.prefix) + end + 1)
	}
	f.seen = max(f.seen, len(f.buf)-len(f.prefix)+1)
	for f.seen < len(f.buf) && !bytes.HasPrefix(f.prefix, f.buf[f.seen:]) {
		f.seen++ // until where a mark may have begun
	}
	return f.outside(f.seen)
}

func (f *Filter) drop(n int) {
	f.buf = f.buf[:copy(f.buf, f.buf[n:])]
	f.seen = max(f.seen-n, 0)
}

// outside emits the whole lines among the first n bytes if they belong to no
// event, and what has become too long for one.
func (f *Filter) outside(n int) error {
	if f.record != nil {
		if n <= MaxText {
			return nil
		}
		err := f.emit(f.buf[:n])
		f.drop(n)
		return err
	}
	whole := bytes.LastIndexByte(f.buf[:n], '\n') + 1
	if n-whole > maxLine {
		whole = n
	}
	if whole == 0 {
		return nil
	}
	err := f.verbose(f.buf[:whole])
	f.drop(whole)
	return err
}

// mark ends what came before it and begins what it tells of.
func (f *Filter) mark(text, payload []byte) error {
	var err error
	if f.record != nil {
		err = f.emit(text)
	} else {
		err = f.verbose(text)
	}
	if err != nil || len(payload) == 0 {
		return err
	}
	if f.record, err = f.read(payload); err != nil {
		f.Damaged(err)
	}
	return nil
}

// read returns the record at "offset,length".
func (f *Filter) read(payload []byte) ([]byte, error) {
	first, second, _ := bytes.Cut(payload, []byte(","))
	offset, err1 := strconv.ParseInt(string(first), 10, 64)
	length, err2 := strconv.ParseInt(string(second), 10, 64)
	if err := errors.Join(err1, err2); err != nil || offset < 0 || length < 1 || length > MaxRecord {
		return nil, fmt.Errorf("events file: the mark %q is none", payload)
	}
	record := make([]byte, length)
	if _, err := f.Records.ReadAt(record, offset); err != nil {
		return nil, fmt.Errorf("events file: the record at %d: %w", offset, err)
	}
	record = bytes.TrimSuffix(record, []byte("\n"))
	first = nil
	err := pyjson.Object(record, func(key, value []byte) {
		if first == nil && string(key) == "uuid" {
			first = value
		}
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("events file: the record at %d: %w", offset, err)
	case first == nil || !bytes.HasPrefix(record, start) || bytes.IndexByte(record, '\n') >= 0:
		return nil, fmt.Errorf("events file: the record at %d is not the plugin's", offset)
	}
	return record, nil
}

var start = []byte(`{"uuid": "`)

// emit ends the event that has a record.
func (f *Filter) emit(text []byte) error {
	uid, rest, _ := bytes.Cut(f.record[len(start):], []byte(`"`))
	f.record = nil
	ends := int64(bytes.Count(text, newline))
	shown := trimEnd(text)
	line := make([]byte, 0, len(uid)+len(rest)+len(shown)+len(shown)/8+len(f.ident)+140)
	line = append(append(append(line, start...), uid...), '"')
	line = f.numbers(line, shown, ends)
	line = append(line, rest...) // begins with the comma of the next member
	return f.send(Event{Line: line, UUID: string(uid), Text: shown}, ends)
}

// numbers appends the members that all events have.
func (f *Filter) numbers(line, shown []byte, ends int64) []byte {
	line = append(line, `, "counter": `...)
	line = strconv.AppendInt(line, f.count+1, 10)
	line = append(line, `, "stdout": `...)
	line = pyjson.AppendString(line, string(toText(shown)))
	line = append(line, `, "start_line": `...)
	line = strconv.AppendInt(line, f.line, 10)
	line = append(line, `, "end_line": `...)
	line = strconv.AppendInt(line, f.line+ends, 10)
	line = append(line, `, "runner_ident": `...)
	return append(line, f.ident...)
}

func (f *Filter) send(e Event, ends int64) error {
	f.count++
	f.line += ends
	e.Counter = f.count
	return f.Emit(e)
}

// verbose makes an event of each line of text, the last one possibly without
// its end.
func (f *Filter) verbose(text []byte) error {
	for l := range bytes.Lines(text) {
		uid := uuid.NewString()
		shown := trimEnd(l)
		ends := int64(len(l) - len(bytes.TrimSuffix(l, newline))) // 1 or 0
		line := append([]byte(`{"event": "verbose", "uuid": "`), uid...)
		line = f.numbers(append(line, '"'), shown, ends)
		line = append(line, `, "created": "`...)
		line = f.Now().UTC().AppendFormat(line, "2006-01-02T15:04:05.000000-07:00")
		if err := f.send(Event{Line: append(line, `"}`...), UUID: uid, Text: shown, Outside: true}, ends); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the last event: the play has nothing more to say.
func (f *Filter) Close() error {
	text := f.buf
	f.buf, f.seen = nil, 0
	if f.record != nil {
		return f.emit(text)
	}
	return f.verbose(text)
}

var newline = []byte("\n")

// trimEnd takes the line ends away; the terminal made \r\n of \n.
func trimEnd(text []byte) []byte { return bytes.TrimRight(text, "\r\n") }

// toText replaces each byte that is not UTF-8, as the Python tool does.
func toText(text []byte) []byte {
	if utf8.Valid(text) {
		return text
	}
	var out []byte
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		out = utf8.AppendRune(out, r)
		text = text[n:]
	}
	return out
}

// Marks matches the marks of a key, for those who look at the output itself.
func Marks(key string) *regexp.Regexp {
	return regexp.MustCompile("\x1b\\]ranvier;" + regexp.QuoteMeta(key) + ";[0-9,]*\x07")
}
