package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/ranvier-mesh/ranvier/routing"
)

// RootKey is where the root's key is when it is needed: at a rollover, and to
// make a new issuer. In between it may be offline.
type RootKey struct {
	File       string // empty: in the CA's directory
	Passphrase string
}

// ErrPassphrase is wrapped by the error of an encrypted file that needs a
// passphrase, or another one.
var ErrPassphrase = errors.New("the passphrase is missing or wrong")

const ageHeader = "-----BEGIN AGE ENCRYPTED FILE-----"

// seal encrypts with a passphrase, in the format of age. work is the logarithm
// of scrypt's cost; 0 is age's own choice, about a second.
func seal(plain []byte, passphrase string, work int) ([]byte, error) {
	r, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return nil, err
	}
	if work > 0 {
		r.SetWorkFactor(work)
	}
	var out bytes.Buffer
	a := armor.NewWriter(&out)
	w, err := age.Encrypt(a, r)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := errors.Join(w.Close(), a.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func sealed(text []byte) bool { return strings.HasPrefix(string(text), ageHeader) }

// unseal decrypts what seal made; at most max bytes.
func unseal(text []byte, passphrase string, max int64) ([]byte, error) {
	if passphrase == "" {
		return nil, ErrPassphrase
	}
	id, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, err
	}
	r, err := age.Decrypt(armor.NewReader(bytes.NewReader(text)), id)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPassphrase, err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, max+1))
	if err != nil {
		return nil, err
	}
	if int64(len(plain)) > max {
		return nil, fmt.Errorf("it holds more than %d bytes", max)
	}
	return plain, nil
}

func (c *CA) writeRootKey(key ed25519.PrivateKey, passphrase string) error {
	text, err := encodeKey(key)
	if err != nil {
		return err
	}
	if passphrase != "" {
		if text, err = seal(text, passphrase, c.scrypt); err != nil {
			return fmt.Errorf("encrypt the root's key: %w", err)
		}
	}
	return writeFile(filepath.Join(c.dir, rootKeyFile), text, 0o600)
}

// readRootKey returns the key of a root that is in use, with that root.
func (c *CA) readRootKey(k RootKey) (*x509.Certificate, ed25519.PrivateKey, error) {
	file := k.File
	if file == "" {
		file = filepath.Join(c.dir, rootKeyFile)
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("the root's key is not in %s: if it is kept offline, name its file with --root-key", file)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the root's key: %w", err)
	}
	if sealed(text) {
		if text, err = unseal(text, k.Passphrase, 1<<16); err != nil {
			return nil, nil, fmt.Errorf("read the root's key: %s: %w", file, err)
		}
	}
	key, err := decodeKey(text)
	if err != nil {
		return nil, nil, fmt.Errorf("read the root's key: %s: %w", file, err)
	}
	roots, err := c.Roots()
	if err != nil {
		return nil, nil, err
	}
	for _, r := range roots {
		if key.Public().(ed25519.PublicKey).Equal(r.PublicKey) {
			return r, key, nil
		}
	}
	return nil, nil, fmt.Errorf("%s is not the key of this CA's root", file)
}

// crosses returns the old roots' signatures of a root, which the issuer's
// chain carries.
func (c *CA) crosses(root *x509.Certificate) ([]*x509.Certificate, error) {
	chain, _, err := c.issuer()
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for _, x := range chain[1:] {
		if keyIDOfCert(x) == keyIDOfCert(root) {
			out = append(out, x)
		}
	}
	return out, nil
}

// RenewIssuer makes a new issuer under the newest root. Members notice nothing.
func (c *CA) RenewIssuer(k RootKey) error {
	return c.update(func(s *caState) error {
		root, key, err := c.readRootKey(k)
		if err != nil {
			return err
		}
		crosses, err := c.crosses(root)
		if err != nil {
			return err
		}
		if err := c.newIssuer(root, key, crosses); err != nil {
			return fmt.Errorf("make an issuer: %w", err)
		}
		return c.republish(s)
	})
}

// republish signs the list anew, so that it hangs on the issuer of today.
func (c *CA) republish(s *caState) error {
	if s.Number == 0 {
		return nil
	}
	_, err := c.publish(s)
	return err
}

// Rollover puts a new root beside the old one, which signs it: who trusts the
// old one trusts both from the next renewal on. The new root's key replaces the
// old one's file, encrypted with passphrase where that is not empty.
func (c *CA) Rollover(k RootKey, passphrase string) error {
	return c.update(func(s *caState) error {
		if s.Rollover != nil {
			return fmt.Errorf("a rollover is under way since %s: end it with `ranvier ca rollover --finish`", s.Rollover.Format("2006-01-02"))
		}
		old, oldKey, err := c.readRootKey(k)
		if err != nil {
			return err
		}
		root, key, err := c.newRoot()
		if err != nil {
			return err
		}
		t := *root
		if t.SerialNumber, err = serial(); err != nil {
			return err
		}
		t.NotAfter = old.NotAfter
		cross, err := create(&t, old, key.Public(), oldKey)
		if err != nil {
			return err
		}
		if err := c.writeRootKey(key, passphrase); err != nil {
			return err
		}
		if err := writeFile(filepath.Join(c.dir, rootsFile), encodeCerts(root.Raw, old.Raw), 0o644); err != nil {
			return err
		}
		if err := c.newIssuer(root, key, []*x509.Certificate{cross}); err != nil {
			return err
		}
		now := c.clock.Now()
		s.Rollover = &now
		return c.republish(s)
	})
}

// Waiting returns the members that have not renewed since the rollover began:
// they do not know the new root, though their certificates hold.
func (c *CA) Waiting() (waiting []routing.NodeID, err error) {
	err = c.view(func(s *caState) error {
		now := c.clock.Now()
		for id, m := range s.Members {
			if s.Rollover != nil && m.Renewed.Before(*s.Rollover) && m.NotAfter.After(now) {
				waiting = append(waiting, id)
			}
		}
		slices.Sort(waiting)
		return nil
	})
	return waiting, err
}

// FinishRollover takes the old roots out of use: the next list of revocations
// tells everybody.
func (c *CA) FinishRollover() (list *Revocations, err error) {
	err = c.update(func(s *caState) error {
		if s.Rollover == nil {
			return errors.New("no rollover is under way")
		}
		roots, err := c.Roots()
		if err != nil {
			return err
		}
		for _, old := range roots[1:] {
			s.Retired = append(s.Retired, keyIDOfCert(old))
		}
		s.Retired = s.Retired[max(0, len(s.Retired)-maxRetired):]
		if err := writeFile(filepath.Join(c.dir, rootsFile), encodeCerts(roots[0].Raw), 0o644); err != nil {
			return err
		}
		s.Rollover = nil
		if list, err = c.publish(s); err != nil {
			return err
		}
		// The list still has the old root's signature of the new one, for who
		// has slept through the overlap; from now on certificates do not.
		chain, _, err := c.issuer()
		if err != nil {
			return err
		}
		return writeFile(filepath.Join(c.dir, IssuerFile), encodeCerts(chain[0].Raw), 0o644)
	})
	return list, err
}

// MemberInfo is a member as the CA knows it.
type MemberInfo struct {
	ID       routing.NodeID
	Role     Role
	Work     []string
	Key      KeyID
	NotAfter string
}

// Members returns the members, sorted by id.
func (c *CA) Members() (all []MemberInfo, err error) {
	err = c.view(func(s *caState) error {
		for id, m := range s.Members {
			all = append(all, MemberInfo{id, m.Role, m.Work, m.Key, m.NotAfter.UTC().Format("2006-01-02 15:04")})
		}
		slices.SortFunc(all, func(a, b MemberInfo) int { return strings.Compare(string(a.ID), string(b.ID)) })
		return nil
	})
	return all, err
}
