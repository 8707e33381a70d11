// Package wire is what nodes say to each other: one message a file, with its
// parser, its encoder and its limits.
//
// Every message is a frame: a four-byte big-endian length, one byte of type,
// and length-1 bytes of body. The body is a CBOR map with whole-number keys,
// but for Data, whose body is the bytes themselves. See docs/protocol.md
// section 3.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/fxamacker/cbor/v2"
)

// Type tells what a frame's body is.
type Type uint8

// Frame types. A reader skips a type that it does not know (docs/protocol.md
// section 3.3).
const (
	TypeHello     Type = 0x01
	TypeCert      Type = 0x02
	TypeAdvert    Type = 0x03
	TypeAttach    Type = 0x04
	TypeDigest    Type = 0x05
	TypeAck       Type = 0x06
	TypeHeartbeat Type = 0x07
	TypeGoAway    Type = 0x08
	TypeOpen      Type = 0x10
	TypeAnswer    Type = 0x11
	TypeData      Type = 0x20
	TypeFin       Type = 0x21
	TypeReset     Type = 0x22
)

const (
	// HeaderLen is the length of a frame's header: the length and the type.
	HeaderLen = 5
	// MaxFrame is the largest body of a frame in bytes.
	MaxFrame = 64 << 10
	// MaxHelloFrame is the largest body accepted before the peer is known.
	MaxHelloFrame = 16 << 10
	// MaxData is the largest payload of one Data frame: with its header it
	// is one write of 32 KiB, so that bulk does not hold up control messages.
	MaxData = 32<<10 - HeaderLen
)

// ErrMalformed is wrapped by every error that means the peer sent bytes which
// are no message of this protocol. The link or stream that they came on is
// closed; nothing else is harmed.
var ErrMalformed = errors.New("malformed message")

// Header is a frame's length and type.
type Header struct {
	Type Type
	Len  int // of the body
}

// ReadHeader reads a frame's header from r. It returns io.EOF when r ends
// before the first byte, io.ErrUnexpectedEOF when it ends within the header, and an
// error that wraps ErrMalformed when the length is zero or the body would be
// longer than max.
func ReadHeader(r io.Reader, max int) (Header, error) {
	var b [HeaderLen]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return Header{}, err
	}
	n := binary.BigEndian.Uint32(b[:4])
	h := Header{Type: Type(b[4]), Len: int(n) - 1}
	if n == 0 || n-1 > uint32(max) {
		return Header{}, fmt.Errorf("%w: a frame of %d bytes, 1 to %d are allowed", ErrMalformed, n, max+1)
	}
	return h, nil
}

// ReadFrame reads one frame from r, into buf where its capacity suffices.
// Errors are those of ReadHeader; an end of r within the body is
// io.ErrUnexpectedEOF.
func ReadFrame(r io.Reader, buf []byte, max int) (Type, []byte, error) {
	h, err := ReadHeader(r, max)
	if err != nil {
		return 0, nil, err
	}
	if cap(buf) < h.Len {
		buf = make([]byte, h.Len)
	}
	buf = buf[:h.Len]
	if _, err := io.ReadFull(r, buf); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return h.Type, buf, nil
}

// AppendHeader appends the header of a frame whose body has n bytes.
func AppendHeader(dst []byte, t Type, n int) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(n)+1)
	return append(dst, byte(t))
}

// appendFrame appends a frame whose body is v in CBOR.
func appendFrame(dst []byte, t Type, v any) ([]byte, error) {
	body, err := encMode.Marshal(v)
	if err != nil {
		return dst, fmt.Errorf("encode message type %#x: %w", t, err)
	}
	if len(body) > MaxFrame {
		return dst, fmt.Errorf("encode message type %#x: %d bytes, at most %d are allowed", t, len(body), MaxFrame)
	}
	return append(AppendHeader(dst, t, len(body)), body...), nil
}

// Unmarshal decodes a CBOR body under this protocol's limits. Its errors wrap
// ErrMalformed. It serves the messages of services too (worktypes/remote).
func Unmarshal(body []byte, v any) error {
	if err := decMode.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	return nil
}

// AppendMessage appends a frame of a service's own type with v as its CBOR body.
func AppendMessage(dst []byte, t Type, v any) ([]byte, error) { return appendFrame(dst, t, v) }

var (
	encMode = must(cbor.CoreDetEncOptions().EncMode())
	decMode = must(cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
		MaxNestedLevels:  8,
		MaxArrayElements: 4096,
		MaxMapPairs:      64,
		UTF8:             cbor.UTF8RejectInvalid,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
