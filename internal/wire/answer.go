package wire

import (
	"cmp"
	"fmt"

	"github.com/ranvier-mesh/ranvier/routing"
)

// MaxKnown is how many known nodes a refusal may name.
const MaxKnown = 64

// Answer accepts (Code 0) or refuses an Open. Each relay puts itself in front
// of Path on the way back (docs/protocol.md sections 3.14, 6.2 and 6.3).
//
//	key  field     type    limits
//	 1   code      uint    16 bits, section 6.3
//	 2   node      text    a node id: who answered
//	 3   reason    text    at most 1024 bytes, for people
//	 4   path      [hop]   at most 64; a hop is [node id, uint microseconds]
//	 5   known     [text]  at most 64 node ids
//	 6   attempts  uint    at most 8
//	 7   early     bytes   at most 16384: the first bytes from the target
type Answer struct {
	Code     Code             `cbor:"1,keyasint"`
	Node     routing.NodeID   `cbor:"2,keyasint"` // who answered: the target, or who refused
	Reason   string           `cbor:"3,keyasint,omitempty"`
	Path     []Hop            `cbor:"4,keyasint,omitempty"`
	Known    []routing.NodeID `cbor:"5,keyasint,omitempty"` // CodeNoRoute: some that are known there
	Attempts uint8            `cbor:"6,keyasint,omitempty"` // a refusal: how many attempts are left
	Early    []byte           `cbor:"7,keyasint,omitempty"` // accepted: the first bytes of the stream
}

// Hop is one node of an answered path, and how long it took from there to the
// end and back.
type Hop struct {
	_      struct{} `cbor:",toarray"`
	Node   routing.NodeID
	Micros uint64 // microseconds
}

// ParseAnswer decodes the body of an Answer. Reason is safe to print. Errors
// wrap ErrMalformed.
func ParseAnswer(body []byte) (Answer, error) {
	a, err := parseMessage[Answer](TypeAnswer, body)
	a.Reason = printable(a.Reason)
	return a, err
}

// Append appends a as a frame. The error says which field breaks a rule; a
// Reason that is too long and a Known of too many are cut instead.
func (a Answer) Append(dst []byte) ([]byte, error) {
	a.Reason = clip(a.Reason, MaxReasonLen)
	a.Known = a.Known[:min(len(a.Known), MaxKnown)]
	return appendMessage(dst, TypeAnswer, a)
}

func (a Answer) check() error {
	err := cmp.Or(
		checkID("node", a.Node),
		checkLen("reason", "bytes", len(a.Reason), 0, MaxReasonLen),
		checkLen("path", "hops", len(a.Path), 0, MaxPath),
		checkIDs("known", a.Known, MaxKnown),
		checkAttempts(a.Attempts),
		checkBytes("early", a.Early, 0, MaxEarly),
	)
	if err != nil {
		return err
	}
	for i, h := range a.Path {
		if err := h.Node.Validate(); err != nil {
			return fmt.Errorf("path[%d]: %w", i, err)
		}
	}
	return nil
}
