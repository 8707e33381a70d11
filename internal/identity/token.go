package identity

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/routing"
)

const (
	// SecretLen is the length of a token's secret in bytes.
	SecretLen = 16
	// MaxTokenLen is the longest token in bytes.
	MaxTokenLen  = 2048
	maxAddresses = 8
	tokenPrefix  = "rj1_"
	tokenSum     = 4
)

// ErrToken is wrapped by the errors of a text that is no join token.
var ErrToken = errors.New("this is no join token")

// Token is what `ranvier join` needs: where the CA is, how to know it, and the
// secret that allows one node to join once.
type Token struct {
	Mesh string
	// Addresses are where the CA's node listens, host:port, to be tried in turn.
	Addresses []string
	// Pin is the key of the mesh's root.
	Pin    KeyID
	Secret [SecretLen]byte
	// Issued is when the token was made: a host without a clock knows by it
	// that this much time has passed.
	Issued time.Time
	Role   Role
	// ID is the only id that the token is for; empty: there is a choice.
	ID routing.NodeID
}

// tokenBody is a token before it is made one word.
//
//	key  field      type    limits
//	 1   mesh       text    at most 63
//	 2   addresses  [text]  1 to 8
//	 3   pin        bytes   the root's key id, 16
//	 4   secret     bytes   16
//	 5   issued     uint    seconds since 1970
//	 6   role       text    a hint; what counts is what the CA noted
//	 7   id         text    a hint too; may be absent
type tokenBody struct {
	Mesh      string   `cbor:"1,keyasint"`
	Addresses []string `cbor:"2,keyasint"`
	Pin       []byte   `cbor:"3,keyasint"`
	Secret    []byte   `cbor:"4,keyasint"`
	Issued    int64    `cbor:"5,keyasint"`
	Role      string   `cbor:"6,keyasint"`
	ID        string   `cbor:"7,keyasint,omitempty"`
}

// String returns the token as one word.
func (t Token) String() string {
	body, err := marshal(tokenBody{t.Mesh, t.Addresses, t.Pin[:], t.Secret[:], t.Issued.Unix(), string(t.Role), string(t.ID)})
	if err != nil {
		return "" // its fields are of types that always encode
	}
	sum := sha256.Sum256(body)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(append(body, sum[:tokenSum]...))
}

// ParseToken reads a token. Errors wrap ErrToken; they never hold the secret.
func ParseToken(text string) (Token, error) {
	fail := func(why string) (Token, error) { return Token{}, fmt.Errorf("%w: %s", ErrToken, why) }
	text = strings.TrimSpace(text)
	if len(text) > MaxTokenLen {
		return fail("it is too long")
	}
	coded, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok {
		return fail("one begins with " + tokenPrefix)
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(coded)
	if err != nil || len(raw) <= tokenSum {
		return fail("a part of it is missing or changed")
	}
	body, sum := raw[:len(raw)-tokenSum], sha256.Sum256(raw[:len(raw)-tokenSum])
	if !bytes.Equal(sum[:tokenSum], raw[len(raw)-tokenSum:]) {
		return fail("a part of it is missing or changed")
	}
	var b tokenBody
	if err := wire.Unmarshal(body, &b); err != nil {
		return fail("it was made by another version")
	}
	if len(b.Pin) != len(KeyID{}) || len(b.Secret) != SecretLen || b.Issued < 0 {
		return fail("it was made by another version")
	}
	t := Token{Mesh: b.Mesh, Addresses: b.Addresses, Pin: KeyID(b.Pin), Secret: [SecretLen]byte(b.Secret), Issued: time.Unix(b.Issued, 0), Role: Role(b.Role), ID: routing.NodeID(b.ID)}
	if err := t.check(); err != nil {
		return fail(err.Error())
	}
	return t, nil
}

func (t Token) check() error {
	if err := CheckMesh(t.Mesh); err != nil {
		return err
	}
	if _, err := ParseRole(string(t.Role)); err != nil {
		return err
	}
	if t.ID != "" && t.ID.Validate() != nil {
		return t.ID.Validate()
	}
	if len(t.Addresses) == 0 || len(t.Addresses) > maxAddresses {
		return fmt.Errorf("%d addresses, 1 to %d are allowed", len(t.Addresses), maxAddresses)
	}
	for _, a := range t.Addresses {
		if _, port, err := net.SplitHostPort(a); err != nil || port == "" || len(a) > 255 {
			return fmt.Errorf("address %.300q is no host:port", a)
		}
	}
	return nil
}
