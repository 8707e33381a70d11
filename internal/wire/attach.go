package wire

import (
	"cmp"

	"github.com/ranvier-mesh/ranvier/routing"
)

// MaxSigLen is the longest signature in bytes, in every message that has one.
const MaxSigLen = routing.MaxSigLen

// Attach is sent by a leaf to a home after Hello, and again when the home's
// epoch grows: it allows the home to say that the leaf is attached there
// (docs/protocol.md section 3.8).
//
//	key  field       type   limits
//	 1   leaf        text   a node id
//	 2   home        text   a node id
//	 3   home epoch  uint   64 bits
//	 4   signature   bytes  at most 1024; absent without identities
type Attach struct {
	Leaf      routing.NodeID `cbor:"1,keyasint"`
	Home      routing.NodeID `cbor:"2,keyasint"`
	HomeEpoch uint64         `cbor:"3,keyasint"`
	Sig       []byte         `cbor:"4,keyasint,omitempty"`
}

// ParseAttach decodes the body of an Attach; the signature is not verified.
// Errors wrap ErrMalformed.
func ParseAttach(body []byte) (Attach, error) { return parseMessage[Attach](TypeAttach, body) }

// Append appends a as a frame. The error says which field breaks a rule.
func (a Attach) Append(dst []byte) ([]byte, error) { return appendMessage(dst, TypeAttach, a) }

func (a Attach) check() error {
	return cmp.Or(
		checkID("leaf", a.Leaf),
		checkID("home", a.Home),
		checkBytes("signature", a.Sig, 0, MaxSigLen),
	)
}
