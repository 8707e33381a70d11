package remote

import (
	"fmt"
	"io"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/worktypes"
)

// Frame types of the work service (docs/work.md section 4.2). Output and payload
// travel as wire.TypeData.
const (
	typeSubmit       wire.Type = 0x40
	typeFollow       wire.Type = 0x41
	typeCancel       wire.Type = 0x42
	typeRelease      wire.Type = 0x43
	typeQuery        wire.Type = 0x44
	typeList         wire.Type = 0x45
	typePayloadEnd   wire.Type = 0x46
	typePayloadAbort wire.Type = 0x47
	typeTreeEnd      wire.Type = 0x48
	typePiecesEnd    wire.Type = 0x49

	typeAccepted wire.Type = 0x50
	typeStatus   wire.Type = 0x51
	typeDone     wire.Type = 0x52
	typeRefusal  wire.Type = 0x53
	typeLacking  wire.Type = 0x54
)

// ServiceName is what streams to the work service are opened to.
const ServiceName = "work"

// submitMsg asks for a unit. Its owner is whom the connection belongs to.
type submitMsg struct {
	ID     string            `cbor:"1,keyasint"`
	Type   string            `cbor:"2,keyasint"`
	Params map[string]string `cbor:"3,keyasint,omitempty"`
	Job    string            `cbor:"4,keyasint,omitempty"`
	Tree   bool              `cbor:"5,keyasint,omitempty"` // the submitter has one
	Key    []byte            `cbor:"6,keyasint,omitempty"` // of the content's owner

	Store  string   `cbor:"7,keyasint,omitempty"`  // the incarnation it is meant for
	Resume bool     `cbor:"8,keyasint,omitempty"`  // the payload can be sent from any offset
	Size   int64    `cbor:"9,keyasint,omitempty"`  // of the payload, where known
	SHA256 []byte   `cbor:"10,keyasint,omitempty"` // of the payload, where known
	Grants []string `cbor:"11,keyasint,omitempty"`
	TTL    int64    `cbor:"12,keyasint,omitempty"` // nanoseconds from now in which it may start; 0: any
	Node   string   `cbor:"13,keyasint,omitempty"` // that is to do it; empty: the one that is asked
	Signed bool     `cbor:"14,keyasint,omitempty"` // the end of the payload has a signature
	Token  string   `cbor:"15,keyasint,omitempty"` // Receptor's signature
	Whole  bool     `cbor:"16,keyasint,omitempty"` // nothing of the tree is to be kept for another unit
}

// unitMsg is follow, cancel, release and query. An empty id in a cancel or
// release is the unit of the connection.
type unitMsg struct {
	ID     string `cbor:"1,keyasint,omitempty"`
	Offset int64  `cbor:"2,keyasint,omitempty"` // follow only
	Blind  bool   `cbor:"3,keyasint,omitempty"` // follow only: the states, without the output
}

// payloadEndMsg says that the payload, or a manifest, is whole.
type payloadEndMsg struct {
	Size   int64  `cbor:"1,keyasint"`
	SHA256 []byte `cbor:"2,keyasint"`

	Signature []byte `cbor:"3,keyasint,omitempty"` // of the work; a payload's only
}

// payloadAbortMsg says that the rest of the payload will not come.
type payloadAbortMsg struct {
	Reason string `cbor:"1,keyasint,omitempty"`
}

// acceptedMsg answers a submit.
type acceptedMsg struct {
	WantPayload bool `cbor:"1,keyasint,omitempty"`
	WantTree    bool `cbor:"2,keyasint,omitempty"`

	Offset int64  `cbor:"3,keyasint,omitempty"` // what is there of the payload
	Store  string `cbor:"4,keyasint,omitempty"` // the incarnation of this node's store
	Binary bool   `cbor:"5,keyasint,omitempty"` // the unit's process reads zips that are not in base64
}

// lackingMsg answers a manifest.
type lackingMsg struct {
	Pieces []byte `cbor:"1,keyasint,omitempty"` // a bit for each piece, the lowest first
	Unkept string `cbor:"2,keyasint,omitempty"` // why nothing of it is kept for another unit; empty: it is
}

// statusMsg is a worktypes.Status. Times are nanoseconds since 1970, 0 for none.
type statusMsg struct {
	ID         string `cbor:"1,keyasint"`
	WorkType   string `cbor:"2,keyasint,omitempty"`
	Owner      string `cbor:"3,keyasint,omitempty"`
	Job        string `cbor:"4,keyasint,omitempty"`
	State      int    `cbor:"5,keyasint"`
	Detail     string `cbor:"6,keyasint,omitempty"`
	ExitCode   int    `cbor:"7,keyasint"`
	Signal     int    `cbor:"8,keyasint,omitempty"`
	StdoutSize int64  `cbor:"9,keyasint,omitempty"`
	Created    int64  `cbor:"10,keyasint,omitempty"`
	Started    int64  `cbor:"11,keyasint,omitempty"`
	Finished   int64  `cbor:"12,keyasint,omitempty"`
}

// refusalMsg says why something is not done.
type refusalMsg struct {
	Code   Code   `cbor:"1,keyasint"`
	Reason string `cbor:"2,keyasint,omitempty"`
}

// maxText is the longest Detail or reason in bytes: the frame must hold it.
const maxText = 8 << 10

func cut(s string) string { return s[:min(len(s), maxText)] }

func statusToWire(s worktypes.Status) statusMsg {
	return statusMsg{
		ID: s.ID, WorkType: s.WorkType, Owner: s.Owner, Job: s.Job,
		State: int(s.State), Detail: cut(s.Detail), ExitCode: s.ExitCode, Signal: s.Signal, StdoutSize: s.StdoutSize,
		Created: nanos(s.Created), Started: nanos(s.Started), Finished: nanos(s.Finished),
	}
}

func parseStatus(body []byte) (worktypes.Status, error) {
	var m statusMsg
	if err := wire.Unmarshal(body, &m); err != nil {
		return worktypes.Status{}, err
	}
	if m.State < int(worktypes.Pending) || m.State > int(worktypes.Canceled) {
		return worktypes.Status{}, fmt.Errorf("%w: a unit in state %d", wire.ErrMalformed, m.State)
	}
	return worktypes.Status{
		ID: m.ID, WorkType: m.WorkType, Owner: m.Owner, Job: m.Job,
		State: worktypes.State(m.State), Detail: m.Detail, ExitCode: m.ExitCode, Signal: m.Signal, StdoutSize: m.StdoutSize,
		Created: fromNanos(m.Created), Started: fromNanos(m.Started), Finished: fromNanos(m.Finished),
	}, nil
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// ttl is how long there is until then, in nanoseconds: clocks do not agree.
func ttl(until time.Time) int64 {
	if until.IsZero() {
		return 0
	}
	return int64(max(time.Until(until), 1))
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

// readSmall reads the next frame whose body is not Data: bodies of Data are
// thrown away, and so are types that are not known, by whoever gets them.
func readSmall(r io.Reader, buf []byte) (wire.Type, []byte, error) {
	for {
		h, err := wire.ReadHeader(r, wire.MaxFrame)
		if err != nil {
			return 0, buf, err
		}
		if h.Type == wire.TypeData {
			if _, err := io.CopyN(io.Discard, r, int64(h.Len)); err != nil {
				return 0, buf, err
			}
			continue
		}
		buf, err = readBody(r, h, buf)
		return h.Type, buf, err
	}
}

// readBody reads a frame's body into buf where it fits.
func readBody(r io.Reader, h wire.Header, buf []byte) ([]byte, error) {
	if cap(buf) < h.Len {
		buf = make([]byte, h.Len)
	}
	buf = buf[:h.Len]
	if _, err := io.ReadFull(r, buf); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return buf, err
	}
	return buf, nil
}
