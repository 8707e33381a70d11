package runner

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/ranvier-mesh/ranvier/runner/internal/pyjson"
	"github.com/ranvier-mesh/ranvier/runner/internal/stream"
)

// Event is one thing that happened in a play (docs/runner.md §5).
type Event struct {
	UUID       string
	ParentUUID string // of the task, play or playbook that it belongs to; may be empty
	Counter    int64  // from 1, in the order of happening
	Name       string // such as "runner_on_ok"
	Stdout     string // what ansible printed for it, without its last line end
	StartLine  int64  // where in the whole output that is, in lines from 0
	EndLine    int64
	Created    string // ISO 8601, UTC; some workers leave the zone out

	// Raw is the whole event as it came, one JSON object. It may hold what
	// only Python takes for JSON; Decode copes.
	Raw []byte
}

// Decode is json.Unmarshal of the whole event into v, with NaN and Infinity as
// null.
func (e Event) Decode(v any) error {
	if err := json.Unmarshal(pyjson.Plain(e.Raw), v); err != nil {
		return fmt.Errorf("event %d, %s: %w", e.Counter, e.Name, err)
	}
	return nil
}

// Status is a change of the job's state (docs/runner.md §4).
type Status struct {
	// Status is "starting", "running", and in the end "successful", "failed",
	// "canceled", "timeout" or "error".
	Status string `json:"status"`
	Ident  string `json:"runner_ident"`

	Command []string          `json:"command"` // these three with "starting"
	Env     map[string]string `json:"env"`     // holds secrets: not for logs
	CWD     string            `json:"cwd"`

	Explanation string `json:"job_explanation"`  // with "error" and "timeout", and with "failed" where a signal ended Ansible
	Traceback   string `json:"result_traceback"` // with "error", often empty

	// EventCount, with the last one and where the worker is ours, is how many
	// events it has sent; 0 where that is not told.
	EventCount int `json:"event_count"`

	// Raw is the whole message as it came; nil for one that Process made up
	// because the stream was faulty.
	Raw []byte `json:"-"`
}

// final tells whether nothing comes after s.
func (s Status) final() bool {
	switch s.Status {
	case "successful", "failed", "canceled", "timeout", "error":
		return true
	}
	return false
}

// parseStatus is lenient with all but the status itself: what is of another
// type than it should be counts as missing.
func parseStatus(m stream.Message) (Status, error) {
	var s Status
	var wrongType *json.UnmarshalTypeError
	if err := json.Unmarshal(pyjson.Plain(m.Line), &s); err != nil && !errors.As(err, &wrongType) {
		return s, err
	}
	if s.Status == "" {
		return s, fmt.Errorf("status: %.40q is no status", m.Status)
	}
	s.Raw = trimLine(m.Line)
	return s, nil
}

// eventKey is what an event's file is called after. Both parts come from the
// worker, so both are checked: they must not name another directory.
func eventKey(m stream.Message) (counter int64, uuid string, err error) {
	if m.Counter == nil || m.UUID == nil {
		return 0, "", errors.New("neither status, zipfile nor eof, and no event either: counter or uuid is missing")
	}
	counter, err = strconv.ParseInt(string(m.Counter), 10, 64)
	if err != nil || counter < 0 || m.Counter[0] == '-' {
		return 0, "", fmt.Errorf("counter: %.40q is not a number from 0", m.Counter)
	}
	uuid, err = pyjson.Unquote(m.UUID)
	if err != nil {
		return 0, "", fmt.Errorf("uuid: %w", err)
	}
	if len(uuid) == 0 || len(uuid) > 200 {
		return 0, "", fmt.Errorf("uuid: %.40q has an unlikely length", uuid)
	}
	for _, c := range []byte(uuid) {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_') {
			return 0, "", fmt.Errorf("uuid: %q has a character that no uuid has", uuid)
		}
	}
	return counter, uuid, nil
}

// parseEvent decodes what an Event shows; parts of another type than they
// should be are left empty.
func parseEvent(m stream.Message, counter int64, uuid string) Event {
	text := func(raw []byte) string {
		s, err := pyjson.Unquote(raw)
		if err != nil {
			return ""
		}
		return s
	}
	number := func(raw []byte) int64 {
		n, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil {
			return 0
		}
		return n
	}
	return Event{
		UUID: uuid, Counter: counter, Raw: trimLine(m.Line),
		ParentUUID: text(m.ParentUUID), Name: text(m.Event), Stdout: text(m.Stdout), Created: text(m.Created),
		StartLine: number(m.StartLine), EndLine: number(m.EndLine),
	}
}

// trimLine returns the object without the line end, and with no room behind it
// that an append of the owner could write to.
func trimLine(line []byte) []byte {
	n := len(line)
	for n > 0 && (line[n-1] == '\n' || line[n-1] == '\r') {
		n--
	}
	return line[:n:n]
}
