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
)

// Type tells what a frame's body is.
type Type uint8

// Frame types. A reader skips a type that it does not know (docs/protocol.md
// section 3.3).
const (
	TypeHello     Type = 0x01 // Hello; control stream, first
	TypeCert      Type = 0x02 // Cert; control stream
	TypeAdvert    Type = 0x03 // Envelope; control stream
	TypeAttach    Type = 0x04 // Attach; control stream
	TypeDigest    Type = 0x05 // routing.Digest; control stream
	TypeAck       Type = 0x06 // routing.Ack; control stream
	TypeHeartbeat Type = 0x07 // Heartbeat; control stream
	TypeGoAway    Type = 0x08 // GoAway; control stream, last
	TypeRevoked   Type = 0x09 // Revoked; control stream, before Hello too
	TypeDraining  Type = 0x0a // Draining; control stream
	TypeOpen      Type = 0x10 // Open; first on any other stream of a link
	TypeAnswer    Type = 0x11 // Answer; first the other way
	TypeData      Type = 0x20 // session: the body is the bytes themselves
	TypeFin       Type = 0x21 // Fin; session
	TypeReset     Type = 0x22 // Reset; session
	TypeProgress  Type = 0x23 // Progress; session
	TypeResume    Type = 0x24 // Resume; session, first on a further carrier
)

// String returns the message's name as docs/protocol.md has it, in lower case.
func (t Type) String() string {
	switch t {
	case TypeHello:
		return "hello"
	case TypeCert:
		return "cert"
	case TypeAdvert:
		return "advert"
	case TypeAttach:
		return "attach"
	case TypeDigest:
		return "digest"
	case TypeAck:
		return "ack"
	case TypeHeartbeat:
		return "heartbeat"
	case TypeGoAway:
		return "goaway"
	case TypeRevoked:
		return "revoked"
	case TypeDraining:
		return "draining"
	case TypeOpen:
		return "open"
	case TypeAnswer:
		return "answer"
	case TypeData:
		return "data"
	case TypeFin:
		return "fin"
	case TypeReset:
		return "reset"
	case TypeProgress:
		return "progress"
	case TypeResume:
		return "resume"
	}
	return fmt.Sprintf("message type %#02x", uint8(t))
}

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
	if n == 0 || n-1 > uint32(max) {
		return Header{}, fmt.Errorf("%w: a frame of %d bytes, 1 to %d are allowed", ErrMalformed, n, max+1)
	}
	return Header{Type: Type(b[4]), Len: int(n - 1)}, nil
}

// ReadFrame reads one frame from r, into buf where its capacity suffices, and
// returns its type and body. At most max bytes are allocated, whatever the
// header says. No Parse function keeps a part of the body, so the same buf can
// be given again for the next frame. Errors are those of ReadHeader; an end of r within the body is
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
