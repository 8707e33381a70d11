package wire

import (
	"cmp"

	"github.com/ranvier-mesh/ranvier/routing"
)

const (
	// MaxPath is how many nodes a path may have: an Open's time to live.
	MaxPath = 64
	// MaxAvoid is how many nodes an Open may ask to be avoided.
	MaxAvoid = 64
	// MaxServiceLen is the longest name of a service or work type in bytes.
	MaxServiceLen = routing.MaxNameLen
	// MaxAttempts is how many next hops an Open may try beside the first.
	MaxAttempts = 8
	// MaxJobLen is the longest job id in bytes.
	MaxJobLen = 128
	// MaxEarly is how many bytes of the stream an Open or an Answer may carry.
	MaxEarly = 16 << 10
)

// Open asks for a stream to a service of a node, hop by hop (docs/protocol.md
// sections 3.13, 6.1 and 6.2).
//
//	key  field     type    limits
//	 1   to        text    a node id
//	 2   from      text    a node id: the originator's
//	 3   service   text    at most 255 bytes; "" is the node itself
//	 4   path      [text]  at most 64 node ids, the originator's first
//	 5   avoid     [text]  at most 64 node ids
//	 6   timeout   uint    milliseconds that remain, 32 bits
//	 7   attempts  uint    at most 8
//	 8   job       text    at most 128 bytes
//	 9   early     bytes   at most 16384: the first bytes towards the target
//	10   resume    bool
type Open struct {
	To       routing.NodeID   `cbor:"1,keyasint"`
	From     routing.NodeID   `cbor:"2,keyasint"`
	Service  string           `cbor:"3,keyasint"`           // "" is the node itself: it answers and ends (ping)
	Path     []routing.NodeID `cbor:"4,keyasint,omitempty"` // nodes passed so far, the originator first
	Avoid    []routing.NodeID `cbor:"5,keyasint,omitempty"`
	Timeout  uint32           `cbor:"6,keyasint"`            // milliseconds that remain
	Attempts uint8            `cbor:"7,keyasint"`            // how many more next hops may be tried, all relays together
	Job      string           `cbor:"8,keyasint,omitempty"`  // for the logs of all nodes on the way
	Early    []byte           `cbor:"9,keyasint,omitempty"`  // the first bytes of the stream
	Resume   bool             `cbor:"10,keyasint,omitempty"` // a further carrier of a session
}

// ParseOpen decodes the body of an Open. Errors wrap ErrMalformed.
func ParseOpen(body []byte) (Open, error) { return parseMessage[Open](TypeOpen, body) }

// Append appends o as a frame. The error says which field breaks a rule.
func (o Open) Append(dst []byte) ([]byte, error) { return appendMessage(dst, TypeOpen, o) }

func (o Open) check() error {
	return cmp.Or(
		checkID("to", o.To),
		checkID("from", o.From),
		checkText("service", o.Service, 0, MaxServiceLen),
		checkIDs("path", o.Path, MaxPath),
		checkIDs("avoid", o.Avoid, MaxAvoid),
		checkAttempts(o.Attempts),
		checkText("job", o.Job, 0, MaxJobLen),
		checkBytes("early", o.Early, 0, MaxEarly),
	)
}

func checkAttempts(n uint8) error { return checkLen("attempts", "attempts", int(n), 0, MaxAttempts) }
