package wire

import (
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// message is a body that knows its own rules beyond the types of its fields.
type message interface{ check() error }

// parseMessage decodes the body of a frame of type t and checks its rules. Both
// kinds of fault name the message and the field and wrap ErrMalformed.
func parseMessage[M message](t Type, body []byte) (M, error) {
	var m, zero M
	if err := decodeMap(body, &m); err != nil {
		return zero, malformed(t, err)
	}
	if err := m.check(); err != nil {
		return zero, malformed(t, err)
	}
	return m, nil
}

// appendMessage appends m as a frame of type t. It applies the rules that the
// reader will apply: what leaves this node is never the reason that a peer
// closes the link.
func appendMessage[M message](dst []byte, t Type, m M) ([]byte, error) {
	if err := m.check(); err != nil {
		return dst, fmt.Errorf("encode %s: %w", t, err)
	}
	return AppendMessage(dst, t, m)
}

func malformed(t Type, err error) error {
	return fmt.Errorf("%w: %s: %w", ErrMalformed, t, err)
}

var errNoMap = errors.New("the body is not a CBOR map")

// decodeMap decodes a body that has to be a map: the library would take a
// null for a message in which all fields are absent.
func decodeMap(body []byte, v any) error {
	const majorMap = 5
	if len(body) == 0 || body[0]>>5 != majorMap {
		return errNoMap
	}
	return decMode.Unmarshal(body, v)
}

// Unmarshal decodes a CBOR body under this protocol's limits (docs/protocol.md
// section 3.2). Its errors wrap ErrMalformed. Nothing of v refers to body
// afterwards. It serves the messages of services too (worktypes/remote).
func Unmarshal(body []byte, v any) error {
	if err := decMode.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

// AppendMessage appends a frame of type t with v as its CBOR body. The error
// says that v cannot be encoded or needs more than MaxFrame bytes; dst is then
// returned as it was. It serves the messages of services too.
func AppendMessage(dst []byte, t Type, v any) ([]byte, error) {
	body, err := encMode.Marshal(v)
	if err != nil {
		return dst, fmt.Errorf("encode %s: %w", t, err)
	}
	if len(body) > MaxFrame {
		return dst, fmt.Errorf("encode %s: %d bytes, at most %d are allowed", t, len(body), MaxFrame)
	}
	return append(AppendHeader(dst, t, len(body)), body...), nil
}

var (
	encMode = must(encOptions().EncMode())
	decMode = must(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		MaxNestedLevels:   8,
		MaxArrayElements:  4096,
		MaxMapPairs:       64,
		UTF8:              cbor.UTF8RejectInvalid,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
	}.DecMode())
)

// encOptions is deterministic CBOR (RFC 8949 section 4.2.1); absent lists are
// empty ones, so that no null is ever sent.
func encOptions() cbor.EncOptions {
	o := cbor.CoreDetEncOptions()
	o.NilContainers = cbor.NilContainerAsEmpty
	return o
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
