package wire

import "github.com/ranvier-mesh/ranvier/routing"

// ackBody tells which adverts have arrived (docs/protocol.md section 3.10).
//
//	key  field    type     limits
//	 1   entries  [stamp]  at most 1000; a stamp as in a digest
type ackBody struct {
	Entries []stamp `cbor:"1,keyasint,omitempty"`
}

// AppendAck appends a in as many frames as it needs; an empty one is one frame.
// The error names an entry that breaks a rule.
func AppendAck(dst []byte, a *routing.Ack) ([]byte, error) {
	rest, out := a.Entries, dst
	for {
		n := cutPart(rest)
		var err error
		if out, err = appendMessage(out, TypeAck, ackBody{Entries: convert(rest[:n], toStamp)}); err != nil {
			return dst, err
		}
		if rest = rest[n:]; len(rest) == 0 {
			return out, nil
		}
	}
}

// ParseAck decodes the body of an Ack. Errors wrap ErrMalformed.
func ParseAck(body []byte) (*routing.Ack, error) {
	w, err := parseMessage[ackBody](TypeAck, body)
	if err != nil {
		return nil, err
	}
	return &routing.Ack{Entries: convert(w.Entries, fromStamp)}, nil
}

func (w ackBody) check() error { return checkStamps(w.Entries) }
