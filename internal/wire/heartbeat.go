package wire

import "github.com/ranvier-mesh/ranvier/routing"

// Heartbeat says that the sender lives; once a minute with its database's hash
// (docs/protocol.md sections 3.11 and 4.4).
//
//	key  field     type  limits
//	 1   hash      uint  64 bits; absent means 0
//	 2   has hash  bool  the hash counts
//	 3   ask       bool  answer with a Heartbeat: the sender has heard nothing
//	 4   cost      uint  thousandths, to 10^9; absent or 0: no wish
//	 5   has cost  bool  the cost counts, in the place of the Hello's
type Heartbeat struct {
	Hash    routing.Hash `cbor:"1,keyasint,omitempty"`
	HasHash bool         `cbor:"2,keyasint,omitempty"`
	Ask     bool         `cbor:"3,keyasint,omitempty"`
	Cost    routing.Cost `cbor:"4,keyasint,omitempty"` // what the sender wishes from now on
	HasCost bool         `cbor:"5,keyasint,omitempty"`
}

// ParseHeartbeat decodes the body of a Heartbeat. Errors wrap ErrMalformed.
func ParseHeartbeat(body []byte) (Heartbeat, error) {
	return parseMessage[Heartbeat](TypeHeartbeat, body)
}

// Append appends h as a frame. The error says that the cost is too high.
func (h Heartbeat) Append(dst []byte) ([]byte, error) { return appendMessage(dst, TypeHeartbeat, h) }

func (h Heartbeat) check() error { return checkCost("cost", h.Cost, 0) }
