package wire

import (
	"cmp"
	"errors"
	"fmt"
)

// TokenLen is the length of a session's token in bytes.
const TokenLen = 32

// Progress says how far the sender is with the other direction of a session
// (docs/protocol.md sections 3.19 and 6.4).
//
//	key  field     type  limits
//	 1   received  uint  64 bits, bytes
//	 2   limit     uint  64 bits, bytes; not below received
//	 3   fin       bool
//	 4   closed    bool  only with fin
//	 5   over      bool
//	 6   ask       bool
type Progress struct {
	Received uint64 `cbor:"1,keyasint"`           // how many bytes of data have come in all
	Limit    uint64 `cbor:"2,keyasint"`           // how many may be sent in all
	Fin      bool   `cbor:"3,keyasint,omitempty"` // the Fin has come
	Closed   bool   `cbor:"4,keyasint,omitempty"` // and it was one with closed
	Over     bool   `cbor:"5,keyasint,omitempty"` // the sender has ended both directions and knows that all is delivered
	Ask      bool   `cbor:"6,keyasint,omitempty"` // the receiver answers with a Progress at once
}

// ParseProgress decodes the body of a Progress. Errors wrap ErrMalformed.
func ParseProgress(body []byte) (Progress, error) {
	return parseMessage[Progress](TypeProgress, body)
}

// Append appends p as a frame. The error says which field breaks a rule.
func (p Progress) Append(dst []byte) ([]byte, error) { return appendMessage(dst, TypeProgress, p) }

func (p Progress) check() error {
	switch {
	case p.Limit < p.Received:
		return fmt.Errorf("limit: %d is below the %d bytes that were received", p.Limit, p.Received)
	case p.Closed && !p.Fin:
		return errors.New("closed: set without fin")
	}
	return nil
}

// Resume is the first frame of the dialling end on a further carrier: with
// which session the carrier goes on (docs/protocol.md sections 3.20 and 6.5).
//
//	key  field   type   limits
//	 1   token   bytes  exactly 32
//	 2   number  uint   32 bits, at least 1: higher with each carrier that is tried
type Resume struct {
	Token  []byte `cbor:"1,keyasint"`
	Number uint32 `cbor:"2,keyasint"`
}

// ParseResume decodes the body of a Resume. Errors wrap ErrMalformed.
func ParseResume(body []byte) (Resume, error) { return parseMessage[Resume](TypeResume, body) }

// Append appends r as a frame. The error says which field breaks a rule.
func (r Resume) Append(dst []byte) ([]byte, error) { return appendMessage(dst, TypeResume, r) }

func (r Resume) check() error {
	return cmp.Or(
		checkBytes("token", r.Token, TokenLen, TokenLen),
		checkNumber(r.Number),
	)
}

func checkNumber(n uint32) error {
	if n == 0 {
		return errors.New("number: 0, at least 1 is allowed")
	}
	return nil
}
