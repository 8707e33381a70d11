package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/ranvier-mesh/ranvier/routing"
)

// Request describes a join token.
type Request struct {
	Role Role
	// Pattern is what the id must match, with * and ? as in a shell.
	Pattern string
	Work    []string
	// TTL is how long the token can be used; 0: an hour.
	TTL time.Duration
	// Addresses are where the CA's node listens; empty: those of the CA.
	Addresses []string
}

// wild are the letters that make a pattern of an id.
const wild = `*?[]^\`

// checkPattern refuses what no id that may join is like.
func (c *CA) checkPattern(pattern string) error {
	if _, err := path.Match(pattern, "x"); err != nil || pattern == "" {
		return errors.New("write an id, where * stands for any letters and ? for one")
	}
	if strings.Contains(pattern, "/") {
		return errors.New("an id with a slash belongs to whoever has the part before it, and needs no token")
	}
	letters := routing.NodeID(strings.Map(func(r rune) rune {
		if strings.ContainsRune(wild, r) {
			return -1
		}
		return r
	}, pattern))
	switch letters {
	case "": // all of it is open
		return nil
	case routing.NodeID(pattern):
		return Claims{Mesh: c.mesh, ID: letters, Role: Router}.check()
	}
	return letters.Validate()
}

// Token makes a join token. The CA keeps a hash of its secret.
func (c *CA) Token(r Request) (Token, error) {
	if _, err := ParseRole(string(r.Role)); err != nil {
		return Token{}, err
	}
	if err := checkWork(r.Work); err != nil {
		return Token{}, err
	}
	if err := c.checkPattern(r.Pattern); err != nil {
		return Token{}, fmt.Errorf("id pattern %q: %w", r.Pattern, err)
	}
	if r.TTL == 0 {
		r.TTL = time.Hour
	}
	if r.TTL < 0 || r.TTL > 30*24*time.Hour {
		return Token{}, fmt.Errorf("a token for %v: at most 30 days are allowed", r.TTL)
	}
	roots, err := c.Roots()
	if err != nil {
		return Token{}, err
	}
	now := c.clock.Now()
	t := Token{Mesh: c.mesh, Addresses: r.Addresses, Pin: keyIDOfCert(roots[0]), Issued: now, Role: r.Role}
	if !strings.ContainsAny(r.Pattern, wild) {
		t.ID = routing.NodeID(r.Pattern)
	}
	rand.Read(t.Secret[:])
	err = c.update(func(s *caState) error {
		if len(t.Addresses) == 0 {
			t.Addresses = s.Addresses
		}
		if err := t.check(); err != nil {
			return err
		}
		if m := s.Members[routing.NodeID(r.Pattern)]; m != nil {
			return fmt.Errorf("node %s: %w: revoke it first, or choose another id", r.Pattern, ErrTaken)
		}
		s.Tokens[secretHash(t.Secret)] = &grantable{Role: r.Role, Pattern: r.Pattern, Work: r.Work, Ends: now.Add(r.TTL)}
		return nil
	})
	return t, err
}

// Redeem spends a token's secret: the key gets a certificate for the id.
func (c *CA) Redeem(secret [SecretLen]byte, id routing.NodeID, key ed25519.PublicKey) (g *Grant, err error) {
	keyID, err := KeyIDOf(key)
	if err != nil {
		return nil, err
	}
	err = c.update(func(s *caState) error {
		t, err := s.redeem(secret, id, keyID, c.clock.Now())
		if err != nil {
			return err
		}
		g, err = c.grant(s, Claims{Mesh: c.mesh, ID: id, Role: t.Role, Work: t.Work}, key)
		return err
	})
	return g, err
}
