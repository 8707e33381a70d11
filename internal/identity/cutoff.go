package identity

import (
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/ranvier-mesh/ranvier/routing"
)

// errKeyRevoked is the ErrRevoked of a chain that is good but for the member's
// own key.
var errKeyRevoked = fmt.Errorf("%w", ErrRevoked)

// CutOffError says that the key of this node, or of this user, was revoked. It is
// so by the CA's signature, not by what a neighbour says. It wraps ErrRevoked.
type CutOffError struct {
	ID   routing.NodeID
	Mesh string
}

// Error says what to do.
func (e *CutOffError) Error() string {
	return fmt.Sprintf("%s is no member of mesh %s any more: the CA has revoked this key; to come back, remove this identity and join with a new token (ranvier ca token, ranvier join)", e.ID, e.Mesh)
}

// Unwrap returns ErrRevoked.
func (e *CutOffError) Unwrap() error { return ErrRevoked }

// CutOff returns a *CutOffError once this node's own key was revoked.
func (s *Self) CutOff() error {
	if s.trust.RevokedKey(s.Certificate().Leaf) {
		return &CutOffError{s.ID, s.Mesh}
	}
	return nil
}

// RevokedKey tells whether a certificate's key was revoked.
func (t *Trust) RevokedKey(c *x509.Certificate) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.revoked.has(keyIDOfCert(c))
}

// cutOff says it of a node's own certificate.
func cutOff(err error, leaf *x509.Certificate) error {
	if !errors.Is(err, errKeyRevoked) {
		return err
	}
	claims, bad := claimsOf(leaf)
	if bad != nil {
		return err
	}
	return &CutOffError{claims.ID, claims.Mesh}
}
