package wire

import (
	"cmp"
	"fmt"

	"github.com/ranvier-mesh/ranvier/routing"
)

const (
	// Protocol is the protocol version that this package speaks.
	Protocol = 1
	// NonceLen is the length of Hello's nonce in bytes.
	NonceLen = 16
	// MaxFeatures is how many features a Hello may name.
	MaxFeatures = 64
	// MaxFeatureLen is the longest feature name in bytes.
	MaxFeatureLen = 64
	// MaxAddrs is how many further addresses a Hello may name.
	MaxAddrs = 16
	// MaxAddrLen is the longest address in bytes.
	MaxAddrLen = 512
	// MaxSoftwareLen is the longest software name in bytes.
	MaxSoftwareLen = 255
)

// Role is what a node is on a link.
type Role uint8

const (
	// RoleRouter floods, forwards and is looked up.
	RoleRouter Role = 1
	// RoleLeaf is reachable by id through its homes and never forwards.
	RoleLeaf Role = 2
	// RoleEphemeral opens streams and is told to nobody.
	RoleEphemeral Role = 3
)

// String returns "router", "leaf" or "ephemeral".
func (r Role) String() string {
	switch r {
	case RoleRouter:
		return "router"
	case RoleLeaf:
		return "leaf"
	case RoleEphemeral:
		return "ephemeral"
	}
	return fmt.Sprintf("role %d", uint8(r))
}

// Hello is the first message of each end on the control stream, sent at once
// (docs/protocol.md sections 3.5 and 4.2). The largest is below MaxHelloFrame.
//
//	key  field     type    limits
//	 1   protocol  uint    1 to 255; this is version 1
//	 2   id        text    a node id
//	 3   epoch     uint    64 bits
//	 4   nonce     bytes   exactly 16
//	 5   role      uint    1 router, 2 leaf, 3 ephemeral
//	 6   cost      uint    thousandths, to 10^9; absent or 0: no wish
//	 7   features  [text]  at most 64, each 1 to 64 bytes
//	 8   addrs     [text]  at most 16, each 1 to 512 bytes
//	 9   software  text    at most 255 bytes, for people
//	10   insecure  bool    the node runs without an identity
type Hello struct {
	Protocol uint8          `cbor:"1,keyasint"`           // the reader compares it; any but 0 is parsed
	ID       routing.NodeID `cbor:"2,keyasint"`           //
	Epoch    uint64         `cbor:"3,keyasint"`           // grows with each start of the node
	Nonce    []byte         `cbor:"4,keyasint"`           // 16 random bytes of this run of the process
	Role     Role           `cbor:"5,keyasint"`           //
	Cost     routing.Cost   `cbor:"6,keyasint,omitempty"` // 0: no wish; the link costs the higher wish
	Features []string       `cbor:"7,keyasint,omitempty"` // what the sender can do beyond version 1
	Addrs    []string       `cbor:"8,keyasint,omitempty"` // further addresses of this node
	Software string         `cbor:"9,keyasint,omitempty"` // for people: "ranvier 0.1.0"
	Insecure bool           `cbor:"10,keyasint,omitempty"`
}

// ParseHello decodes the body of a Hello. Errors wrap ErrMalformed. It does not
// compare the protocol version, so that the caller can answer CodeVersion.
func ParseHello(body []byte) (Hello, error) {
	h, err := parseMessage[Hello](TypeHello, body)
	h.Software = printable(h.Software)
	return h, err
}

// Append appends h as a frame. The error says which field breaks a rule;
// Software is cut to its limit instead.
func (h Hello) Append(dst []byte) ([]byte, error) {
	h.Software = clip(h.Software, MaxSoftwareLen)
	return appendMessage(dst, TypeHello, h)
}

func (h Hello) check() error {
	if h.Protocol == 0 {
		return fmt.Errorf("protocol: 0, 1 to 255 are allowed")
	}
	if h.Role < RoleRouter || h.Role > RoleEphemeral {
		return fmt.Errorf("role: %d, 1 (router), 2 (leaf) and 3 (ephemeral) are allowed", uint8(h.Role))
	}
	return cmp.Or(
		checkID("id", h.ID),
		checkBytes("nonce", h.Nonce, NonceLen, NonceLen),
		checkCost("cost", h.Cost, 0),
		checkTexts("features", h.Features, MaxFeatures, MaxFeatureLen),
		checkTexts("addrs", h.Addrs, MaxAddrs, MaxAddrLen),
		checkLen("software", "bytes", len(h.Software), 0, MaxSoftwareLen),
	)
}

func checkTexts(field string, texts []string, max, maxLen int) error {
	if err := checkLen(field, "texts", len(texts), 0, max); err != nil {
		return err
	}
	for i, s := range texts {
		if err := checkText(fmt.Sprintf("%s[%d]", field, i), s, 1, maxLen); err != nil {
			return err
		}
	}
	return nil
}
