package identity

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// KeyID names a public key: the first half of the SHA-256 of its
// SubjectPublicKeyInfo.
type KeyID [16]byte

// String returns the id in hexadecimal.
func (k KeyID) String() string { return hex.EncodeToString(k[:]) }

// MarshalText implements encoding.TextMarshaler.
func (k KeyID) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *KeyID) UnmarshalText(b []byte) error {
	raw, err := hex.DecodeString(string(b))
	if err != nil || len(raw) != len(k) {
		return fmt.Errorf("%q is no key id: %d hexadecimal digits are expected", b, 2*len(k))
	}
	*k = KeyID(raw)
	return nil
}

// KeyIDOf returns the id of a public key. The error is that of a kind of key
// that X.509 does not know.
func KeyIDOf(key crypto.PublicKey) (KeyID, error) {
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return KeyID{}, err
	}
	return keyIDOfSPKI(spki), nil
}

func keyIDOfSPKI(spki []byte) KeyID {
	sum := sha256.Sum256(spki)
	return KeyID(sum[:16])
}

func keyIDOfCert(c *x509.Certificate) KeyID { return keyIDOfSPKI(c.RawSubjectPublicKeyInfo) }

// NewKey makes an ed25519 key.
func NewKey() (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return key, err
}

const (
	pemKey  = "PRIVATE KEY"
	pemCert = "CERTIFICATE"
)

func encodeKey(key ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

func decodeKey(text []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != pemKey {
		return nil, errors.New("it has no PEM block PRIVATE KEY")
	}
	any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := any.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("it holds a %T, an ed25519 key is expected", any)
	}
	return key, nil
}

func readKey(file string) (ed25519.PrivateKey, error) {
	if err := CheckPrivate(file); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	key, err := decodeKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return key, nil
}

func encodeCerts(ders ...[]byte) []byte {
	var out []byte
	for _, der := range ders {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: der})...)
	}
	return out
}

// decodeCerts reads PEM certificates; other blocks are skipped.
func decodeCerts(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != pemCert {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("it has no PEM block CERTIFICATE")
	}
	return certs, nil
}

func readCerts(file string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	certs, err := decodeCerts(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return certs, nil
}

func rawCerts(certs []*x509.Certificate) [][]byte {
	raw := make([][]byte, len(certs))
	for i, c := range certs {
		raw[i] = c.Raw
	}
	return raw
}

// parseChain parses a chain as it came from a peer, within the limits of a Cert
// message: a large certificate is refused before it is parsed.
func parseChain(ders [][]byte) ([]*x509.Certificate, error) {
	if len(ders) == 0 || len(ders) > maxChain {
		return nil, fmt.Errorf("a chain of %d certificates, 1 to %d are allowed", len(ders), maxChain)
	}
	chain := make([]*x509.Certificate, len(ders))
	for i, der := range ders {
		if len(der) > maxCertLen {
			return nil, fmt.Errorf("a certificate of %d bytes, at most %d are allowed", len(der), maxCertLen)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		chain[i] = c
	}
	return chain, nil
}

// writeFile replaces a file in one step, and has it on disk before it returns.
func writeFile(name string, data []byte, mode os.FileMode) (err error) {
	dir := filepath.Dir(name)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(name)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err := errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(tmp.Name(), name); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
