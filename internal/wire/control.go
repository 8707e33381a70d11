package wire

import (
	"errors"
	"fmt"

	"github.com/ranvier-mesh/ranvier/routing"
)

// Sealed is an advert as it came: decoded, with the envelope that its signature
// is verified from.
type Sealed struct {
	Advert   *routing.Advert
	Envelope Envelope
}

var errNotControl = errors.New("not a message of the control stream")

// ParseControl decodes the body of any message of the control stream
// (docs/protocol.md section 3.4). It returns Hello, Cert, Attach, Heartbeat,
// GoAway, Revoked or Draining by value, Sealed for an advert, and *routing.Digest or *routing.Ack.
// A type that is not known is (nil, nil), to be skipped, so that later versions
// can add messages. Errors wrap ErrMalformed. What is returned does not refer
// to body.
func ParseControl(t Type, body []byte) (any, error) {
	switch t {
	case TypeHello:
		return boxed(ParseHello(body))
	case TypeCert:
		return boxed(ParseCert(body))
	case TypeAdvert:
		a, e, err := ParseAdvert(body)
		return boxed(Sealed{Advert: a, Envelope: e}, err)
	case TypeAttach:
		return boxed(ParseAttach(body))
	case TypeDigest:
		return boxed(ParseDigest(body))
	case TypeAck:
		return boxed(ParseAck(body))
	case TypeHeartbeat:
		return boxed(ParseHeartbeat(body))
	case TypeGoAway:
		return boxed(ParseGoAway(body))
	case TypeRevoked:
		return boxed(ParseRevoked(body))
	case TypeDraining:
		return boxed(ParseDraining(body))
	case TypeOpen, TypeAnswer, TypeData, TypeFin, TypeReset, TypeProgress, TypeResume:
		return nil, malformed(t, errNotControl)
	}
	return nil, nil
}

// boxed makes sure that an error comes with a plain nil.
func boxed[T any](v T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

// AppendRouting appends a message that the routing core emits as one or more
// frames: *routing.Advert (which has to be sealed), *routing.Digest,
// *routing.Ack, or routing.Hash as a Heartbeat. The error says what breaks a
// rule; dst is then returned as it was.
func AppendRouting(dst []byte, m routing.Message) ([]byte, error) {
	switch m := m.(type) {
	case *routing.Advert:
		if len(m.Raw) == 0 {
			return dst, fmt.Errorf("encode advert of %q, fragment %d: it is not sealed: Raw is empty", m.Origin, m.Fragment)
		}
		if len(m.Raw) > MaxFrame {
			return dst, fmt.Errorf("encode advert of %q, fragment %d: Raw has %d bytes, at most %d are allowed", m.Origin, m.Fragment, len(m.Raw), MaxFrame)
		}
		return AppendAdvert(dst, m.Raw), nil
	case *routing.Digest:
		return AppendDigest(dst, m)
	case *routing.Ack:
		return AppendAck(dst, m)
	case routing.Hash:
		return Heartbeat{Hash: m, HasHash: true}.Append(dst)
	}
	return dst, fmt.Errorf("encode %T: not a message of the routing core", m)
}
