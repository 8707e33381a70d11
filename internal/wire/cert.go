package wire

import (
	"cmp"
	"fmt"

	"github.com/ranvier-mesh/ranvier/routing"
)

const (
	// MaxKeyIDLen is the longest key id in bytes.
	MaxKeyIDLen = 64
	// MaxChain is how many certificates a Cert may carry.
	MaxChain = 8
	// MaxEndorsementLen is the longest endorsement in bytes.
	MaxEndorsementLen = 1024
	// MaxCertLen is the longest certificate in bytes.
	MaxCertLen = 8 << 10
)

// Cert introduces the key that an origin's adverts are signed with, once per
// key and link, before the first of them (docs/protocol.md section 3.6).
//
//	key  field   type     limits
//	 1   origin  text     a node id
//	 2   key id  bytes    1 to 64
//	 3   chain   [bytes]  1 to 8 certificates in DER, each 1 byte to 8 KiB,
//	                      together within one frame; the node's first
//	 4   endorsement  bytes  at most 1024
type Cert struct {
	Origin routing.NodeID `cbor:"1,keyasint"`
	KeyID  []byte         `cbor:"2,keyasint"`
	Chain  [][]byte       `cbor:"3,keyasint"` // DER, the node's first
	// Endorsement is given where the certificate's own key is of a kind that
	// does not sign adverts (docs/protocol.md section 8.3).
	Endorsement []byte `cbor:"4,keyasint,omitempty"`
}

// ParseCert decodes the body of a Cert; whether the chain is trusted is not
// looked at. Errors wrap ErrMalformed.
func ParseCert(body []byte) (Cert, error) { return parseMessage[Cert](TypeCert, body) }

// Append appends c as a frame. The error says which field breaks a rule.
func (c Cert) Append(dst []byte) ([]byte, error) { return appendMessage(dst, TypeCert, c) }

func (c Cert) check() error {
	err := cmp.Or(
		checkID("origin", c.Origin),
		checkBytes("key id", c.KeyID, 1, MaxKeyIDLen),
		checkLen("chain", "certificates", len(c.Chain), 1, MaxChain),
		checkBytes("endorsement", c.Endorsement, 0, MaxEndorsementLen),
	)
	if err != nil {
		return err
	}
	for i, der := range c.Chain {
		if err := checkBytes(fmt.Sprintf("chain[%d]", i), der, 1, MaxCertLen); err != nil {
			return err
		}
	}
	return nil
}
