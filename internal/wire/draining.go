package wire

import (
	"cmp"

	"github.com/ranvier-mesh/ranvier/routing"
)

// MaxDraining is how many nodes a Draining may name.
const MaxDraining = 64

// Draining tells a neighbour that has no database which nodes are about to go,
// so that it moves its streams away from them (docs/protocol.md sections 3.21
// and 6.7).
//
//	key  field  type    limits
//	 1   nodes  [text]  1 to 64 node ids
type Draining struct {
	Nodes []routing.NodeID `cbor:"1,keyasint"`
}

// ParseDraining decodes the body of a Draining. Errors wrap ErrMalformed.
func ParseDraining(body []byte) (Draining, error) {
	return parseMessage[Draining](TypeDraining, body)
}

// Append appends d as a frame. The error says which field breaks a rule.
func (d Draining) Append(dst []byte) ([]byte, error) { return appendMessage(dst, TypeDraining, d) }

func (d Draining) check() error {
	return cmp.Or(
		checkLen("nodes", "ids", len(d.Nodes), 1, MaxDraining),
		checkIDs("nodes", d.Nodes, MaxDraining),
	)
}
