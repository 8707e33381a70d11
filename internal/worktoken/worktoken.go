// Package worktoken signs and checks work as Receptor does: a JSON web token
// (RFC 7519), signed with RS512, whose audience is the node that is to do the
// work and that expires. It says nothing of what the work is: for that there is
// identity.Self.SignWork.
package worktoken

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/crypto/ssh"
)

// DefaultLife is how long a token counts where nobody says.
const DefaultLife = 5 * time.Minute

const (
	// maxToken is the longest token that is looked at, in bytes.
	maxToken = 8 << 10
	// maxKeyFile is the largest file of a key, in bytes.
	maxKeyFile = 64 << 10
	// skew is how far clocks may be apart.
	skew = time.Minute
)

// Signer makes tokens. Its key is read each time, so that a bad one stops nobody
// who never signs, and a new one needs no restart.
type Signer struct {
	KeyFile string        // an RSA private key: PEM or OpenSSH, without a passphrase
	Life    time.Duration // 0: DefaultLife
}

// Token returns a token for work at a node.
func (s Signer) Token(node string, now time.Time) (string, error) {
	b, err := readKey(s.KeyFile)
	if err != nil {
		return "", err
	}
	key, err := ssh.ParseRawPrivateKey(b) // PEM too
	if missing := (*ssh.PassphraseMissingError)(nil); errors.As(err, &missing) {
		return "", fmt.Errorf("key for signing work %s: it has a passphrase: keep it without", s.KeyFile)
	}
	if err != nil {
		key, err = pkcs8(b)
	}
	if err != nil {
		return "", fmt.Errorf("key for signing work %s: no private key in PEM or OpenSSH form: %w", s.KeyFile, err)
	}
	private, ok := key.(*rsa.PrivateKey)
	if !ok {
		return "", fmt.Errorf("key for signing work %s: it is a %T, and RSA is needed", s.KeyFile, key)
	}
	life := s.Life
	if life == 0 {
		life = DefaultLife
	}
	return jwt.NewWithClaims(jwt.SigningMethodRS512, jwt.RegisteredClaims{
		ExpiresAt: jwt.NewNumericDate(now.Add(life)), Audience: jwt.ClaimStrings{node},
	}).SignedString(private)
}

func pkcs8(b []byte) (any, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, errors.New("there is no PEM block in it")
	}
	return x509.ParsePKCS8PrivateKey(block.Bytes)
}

// Verifier checks tokens. Its key is read each time, as Signer's.
type Verifier struct {
	KeyFile string // an RSA public key: PEM or OpenSSH
}

// Verify returns nil for a token that the key's owner has made for work at this
// node and that has not expired.
func (v Verifier) Verify(token, node string, now time.Time) error {
	if len(token) > maxToken {
		return fmt.Errorf("the work's signature has %d bytes, at most %d are allowed", len(token), maxToken)
	}
	key, err := v.key()
	if err != nil {
		return err
	}
	_, err = jwt.ParseWithClaims(token, &jwt.RegisteredClaims{}, func(*jwt.Token) (any, error) { return key, nil },
		jwt.WithValidMethods([]string{jwt.SigningMethodRS512.Alg()}), jwt.WithAudience(node), jwt.WithExpirationRequired(),
		jwt.WithLeeway(skew), jwt.WithTimeFunc(func() time.Time { return now }))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jwt.ErrTokenExpired):
		return fmt.Errorf("the work's signature has expired, by this node's clock, which says %s: %w", now.UTC().Format(time.RFC3339), err)
	}
	return fmt.Errorf("the work's signature does not hold for node %s: %w", node, err)
}

func (v Verifier) key() (*rsa.PublicKey, error) {
	b, err := readKey(v.KeyFile)
	if err != nil {
		return nil, err
	}
	key, err := publicKey(b)
	if err != nil {
		return nil, fmt.Errorf("key for checking work %s: no public key in PEM or OpenSSH form: %w", v.KeyFile, err)
	}
	public, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("key for checking work %s: it is a %T, and RSA is needed", v.KeyFile, key)
	}
	return public, nil
}

func publicKey(b []byte) (any, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		key, _, _, _, err := ssh.ParseAuthorizedKey(b)
		if err != nil {
			return nil, err
		}
		if c, ok := key.(ssh.CryptoPublicKey); ok {
			return c.CryptoPublicKey(), nil
		}
		return nil, fmt.Errorf("a key of the type %s", key.Type())
	}
	if key, err := x509.ParsePKCS1PublicKey(block.Bytes); err == nil {
		return key, nil
	}
	return x509.ParsePKIXPublicKey(block.Bytes)
}

func readKey(file string) ([]byte, error) {
	fi, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("key for signed work: %w", err)
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxKeyFile {
		return nil, fmt.Errorf("key for signed work %s: it is no file of at most %d bytes", file, maxKeyFile)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("key for signed work: %w", err)
	}
	return b, nil
}
