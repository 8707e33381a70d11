package wire

// MaxListLen is the longest list of revocations in bytes.
const MaxListLen = MaxFrame - 64

// Revoked carries the newest list of revocations that its sender knows, as the
// mesh's CA signed it (docs/protocol.md section 8.4). It is the one message
// that may come before Hello.
//
//	key  field  type   limits
//	 1   list   bytes  1 to 65472
type Revoked struct {
	List []byte `cbor:"1,keyasint"`
}

// ParseRevoked decodes the body of a Revoked; the list is not looked at.
// Errors wrap ErrMalformed.
func ParseRevoked(body []byte) (Revoked, error) { return parseMessage[Revoked](TypeRevoked, body) }

// Append appends r as a frame. The error says which field breaks a rule.
func (r Revoked) Append(dst []byte) ([]byte, error) { return appendMessage(dst, TypeRevoked, r) }

func (r Revoked) check() error { return checkBytes("list", r.List, 1, MaxListLen) }
