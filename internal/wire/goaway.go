package wire

import (
	"cmp"

	"github.com/ranvier-mesh/ranvier/routing"
)

// MaxReasonLen is the longest reason in bytes, in every message that has one.
const MaxReasonLen = 1024

// GoAway is the last message on a link that its sender closes on purpose
// (docs/protocol.md sections 3.12 and 4.5).
//
//	key  field   type  limits
//	 1   code    uint  16 bits, section 6.3
//	 2   node    text  a node id: the sender's
//	 3   reason  text  at most 1024 bytes, for people
type GoAway struct {
	Code   Code           `cbor:"1,keyasint"`
	Node   routing.NodeID `cbor:"2,keyasint"`
	Reason string         `cbor:"3,keyasint,omitempty"`
}

// ParseGoAway decodes the body of a GoAway. Reason is safe to print. Errors
// wrap ErrMalformed.
func ParseGoAway(body []byte) (GoAway, error) {
	g, err := parseMessage[GoAway](TypeGoAway, body)
	g.Reason = printable(g.Reason)
	return g, err
}

// Append appends g as a frame. The error says which field breaks a rule; a
// Reason that is too long is cut instead.
func (g GoAway) Append(dst []byte) ([]byte, error) {
	g.Reason = clip(g.Reason, MaxReasonLen)
	return appendMessage(dst, TypeGoAway, g)
}

func (g GoAway) check() error {
	return cmp.Or(
		checkID("node", g.Node),
		checkLen("reason", "bytes", len(g.Reason), 0, MaxReasonLen),
	)
}
