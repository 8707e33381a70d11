package wire

import "github.com/ranvier-mesh/ranvier/routing"

// The frames of a session (docs/protocol.md section 6.4). A Data frame has no
// type here: its body is at most MaxData bytes of the stream, and
// AppendHeader(dst, TypeData, n) is all there is to encode. No frame of a
// session has a body above MaxData, which is the limit to read them with.

// Fin says that the sender will send no more data (docs/protocol.md sections
// 3.16 and 6.4).
//
//	key  field   type  limits
//	 1   offset  uint  64 bits, bytes
//	 2   closed  bool
type Fin struct {
	Offset uint64 `cbor:"1,keyasint"`           // how many bytes it sent in all
	Closed bool   `cbor:"2,keyasint,omitempty"` // it will not read any more either
}

// ParseFin decodes the body of a Fin. Errors wrap ErrMalformed.
func ParseFin(body []byte) (Fin, error) { return parseMessage[Fin](TypeFin, body) }

// Append appends f as a frame. It does not fail.
func (f Fin) Append(dst []byte) ([]byte, error) { return appendMessage(dst, TypeFin, f) }

func (Fin) check() error { return nil }

// Reset ends a stream at once, both ways (docs/protocol.md sections 3.17 and
// 6.4).
//
//	key  field   type  limits
//	 1   code    uint  16 bits, section 6.3
//	 2   node    text  a node id: who ended it; absent where not known
//	 3   reason  text  at most 1024 bytes, for people
type Reset struct {
	Code   Code           `cbor:"1,keyasint"`
	Node   routing.NodeID `cbor:"2,keyasint,omitempty"`
	Reason string         `cbor:"3,keyasint,omitempty"`
}

// ParseReset decodes the body of a Reset. Reason is safe to print. Errors wrap
// ErrMalformed.
func ParseReset(body []byte) (Reset, error) {
	r, err := parseMessage[Reset](TypeReset, body)
	r.Reason = printable(r.Reason)
	return r, err
}

// Append appends r as a frame. The error says which field breaks a rule; a
// Reason that is too long is cut instead.
func (r Reset) Append(dst []byte) ([]byte, error) {
	r.Reason = clip(r.Reason, MaxReasonLen)
	return appendMessage(dst, TypeReset, r)
}

func (r Reset) check() error {
	if err := checkLen("reason", "bytes", len(r.Reason), 0, MaxReasonLen); err != nil || r.Node == "" {
		return err
	}
	return checkID("node", r.Node)
}
