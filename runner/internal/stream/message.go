// Package stream reads and writes what transmit, worker and process say to one
// another: a JSON object a line, and zips as base64 between the lines
// (docs/runner.md §1).
package stream

import (
	"fmt"
	"strconv"

	"github.com/ranvier-mesh/ranvier/runner/internal/pyjson"
)

// Message is one line. The fields below Line are the undecoded JSON values of
// the members that decide what the line is or that a reader acts on, nil where
// the line has no such member. They are parts of Line.
type Message struct {
	Line []byte

	Kwargs  []byte // transmit's first message
	Status  []byte // worker: the job's state changed
	Zipfile []byte // a zip of that many bytes follows,
	Raw     []byte // as it is and not in base64
	Results []byte // how the worker may answer
	EOF     []byte // the last message

	Event      []byte // all below: an event
	UUID       []byte
	Counter    []byte
	Stdout     []byte
	ParentUUID []byte
	Created    []byte
	StartLine  []byte
	EndLine    []byte
}

// Parse looks into a line. The error says where the line is no JSON object as
// Python writes them.
func Parse(line []byte) (Message, error) {
	m := Message{Line: line}
	err := pyjson.Object(line, m.set)
	return m, err
}

// set keeps one member; of members with the same name the last counts, as in
// Python.
func (m *Message) set(key, value []byte) {
	switch string(key) {
	case "kwargs":
		m.Kwargs = value
	case "status":
		m.Status = value
	case "zipfile":
		m.Zipfile = value
	case "raw":
		m.Raw = value
	case "results":
		m.Results = value
	case "eof":
		m.EOF = value
	case "event":
		m.Event = value
	case "uuid":
		m.UUID = value
	case "counter":
		m.Counter = value
	case "stdout":
		m.Stdout = value
	case "parent_uuid":
		m.ParentUUID = value
	case "created":
		m.Created = value
	case "start_line":
		m.StartLine = value
	case "end_line":
		m.EndLine = value
	}
}

// maxZip keeps the arithmetic on sizes from overflowing; no disk is as large.
const maxZip = 1 << 53

// RawResults tells whether the sender takes a zip in answer that is raw.
func (m *Message) RawResults() bool { return string(m.Results) == `"raw"` }

// ZipSize returns the number of bytes of the zip that follows.
func (m *Message) ZipSize() (int64, error) {
	n, err := strconv.ParseInt(string(m.Zipfile), 10, 64)
	if err != nil || n < 0 || n > maxZip {
		return 0, fmt.Errorf("zipfile: %.40q is not a number of bytes", m.Zipfile)
	}
	return n, nil
}

// Keepalive tells whether the line only says that the worker lives.
func (m *Message) Keepalive() bool { return string(m.Event) == `"keepalive"` }
