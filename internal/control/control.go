// Package control is the control socket of a node, server and client, in
// Receptor's protocol: docs/control.md. What the commands do is the Backend's
// matter; the package knows lines, requests and replies.
package control

import (
	"context"
	"encoding/json"
	"io"
	"strconv"
	"time"
)

const (
	// MaxLine is the longest request in bytes, its newline included.
	MaxLine = 1 << 20

	// greeting is the first line of the server, followed by the node's id.
	greeting = "Receptor Control, node "
	// connecting is the line before the raw bytes of a connected service.
	connecting = "Connecting"
	// errorPrefix begins the line that refuses a request.
	errorPrefix = "ERROR: "
)

// Backend is the node that a Server speaks for. Its methods are called by
// many goroutines at once. They return when ctx is done.
type Backend interface {
	// Status returns the state of the node. Only the fields that want.Has
	// need to be filled in; the others are not sent.
	Status(ctx context.Context, want Fields) (Status, error)
	// Ping asks a node for an answer. Its error is shown to people.
	Ping(ctx context.Context, target string) (PingResult, error)
	// Traceroute returns the way to a node; the first hop is this node. A
	// way that ends early has an Error in its last hop, or returns the hops
	// so far with an error.
	Traceroute(ctx context.Context, target string) ([]TraceHop, error)
	// Connect opens a stream to a service of a node. ctx ends the opening,
	// not the stream. tls names the TLS client of the node to speak to the
	// service with; empty: none.
	Connect(ctx context.Context, node, service, tls string) (Stream, error)
}

// Stream carries bytes both ways and can say that one way is over. A net.Conn
// of TCP, of a unix socket or of the mesh is one.
type Stream interface {
	io.ReadWriteCloser
	// CloseWrite tells the other end that no more bytes come.
	CloseWrite() error
}

// PingResult is the answer to a ping.
type PingResult struct {
	From string        // the node that answered
	Time time.Duration // from the question to the answer
}

// TraceHop is one node on the way to another one.
type TraceHop struct {
	From  string
	Time  time.Duration // from the question to this node's answer
	Error string        // why the way ends here; empty when it does not
}

// pingReply, pingFailure and hopReply are the JSON of the protocol: docs/control.md
// sections 4.2 and 4.3.
type pingReply struct {
	Success bool
	From    string
	Time    time.Duration // nanoseconds
	TimeStr string
}

type pingFailure struct {
	Success bool
	Error   string
}

type hopReply struct {
	From    string
	Time    time.Duration // nanoseconds
	TimeStr string
	Error   string `json:",omitempty"`
}

// traceReply is an object whose keys are "0", "1", ... in this order.
type traceReply []TraceHop

// MarshalJSON writes the hops in the order of the way, which a Go map would not.
func (t traceReply) MarshalJSON() ([]byte, error) {
	out := []byte{'{'}
	for i, h := range t {
		if i > 0 {
			out = append(out, ',')
		}
		hop, err := json.Marshal(hopReply{h.From, h.Time, h.Time.String(), h.Error})
		if err != nil {
			return nil, err
		}
		out = append(strconv.AppendQuote(out, strconv.Itoa(i)), ':')
		out = append(out, hop...)
	}
	return append(out, '}'), nil
}
