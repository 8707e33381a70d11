package identity

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// maxBackup bounds a backup that is restored.
const maxBackup = 64 << 20

// caFiles are what a CA consists of. The root's key may be elsewhere.
func caFiles() []string {
	return []string{stateFile, rootsFile, issuerKeyFile, IssuerFile, RevocationsFile, rootKeyFile}
}

// Backup returns the whole CA, encrypted with a passphrase (age). Who has both
// is the CA.
func (c *CA) Backup(passphrase string) (text []byte, err error) {
	if passphrase == "" {
		return nil, fmt.Errorf("a backup needs a passphrase: %w", ErrPassphrase)
	}
	err = c.view(func(*caState) error {
		var plain bytes.Buffer
		w := tar.NewWriter(&plain)
		for _, name := range caFiles() {
			data, err := os.ReadFile(filepath.Join(c.dir, name))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(data)), Format: tar.FormatPAX}); err != nil {
				return err
			}
			if _, err := w.Write(data); err != nil {
				return err
			}
		}
		if err := w.Close(); err != nil {
			return err
		}
		text, err = seal(plain.Bytes(), passphrase, c.scrypt)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("back up the CA: %w", err)
	}
	return text, nil
}

// RestoreCA writes a backup to dir, which must not have a CA. The number of the
// newest revocations jumps ahead: lists that were signed after the backup must
// not count for newer than those to come. What they revoked the CA's node hears
// from the first member that it links to (CA.Recall).
func RestoreCA(dir string, text []byte, passphrase string) (*CA, error) {
	if _, err := os.Stat(filepath.Join(dir, stateFile)); err == nil {
		return nil, fmt.Errorf("%s has a CA already", dir)
	}
	plain, err := unseal(text, passphrase, maxBackup)
	if err != nil {
		return nil, fmt.Errorf("restore the CA: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := unpackCA(dir, plain); err != nil {
		return nil, fmt.Errorf("restore the CA: %w", err)
	}
	c, err := OpenCA(dir, nil)
	if err != nil {
		return nil, err
	}
	return c, c.update(func(s *caState) error {
		s.Number += restoredJump + rand.Uint64N(restoredJump) // and no two restores are alike
		return c.republish(s)
	})
}

// restoredJump is more revocations than happen between two backups.
const restoredJump = 1 << 20

// unpackCA writes the files, the state last: a directory with it is whole.
func unpackCA(dir string, plain []byte) error {
	known := map[string]bool{}
	for _, name := range caFiles() {
		known[name] = true
	}
	var state []byte
	for r := tar.NewReader(bytes.NewReader(plain)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if !known[h.Name] {
			return fmt.Errorf("the backup has a file %q, which no CA has", h.Name)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if h.Name == stateFile {
			state = data
			continue
		}
		if err := writeFile(filepath.Join(dir, h.Name), data, 0o600); err != nil {
			return err
		}
	}
	if state == nil {
		return errors.New("the backup is not that of a CA")
	}
	return writeFile(filepath.Join(dir, stateFile), state, 0o600)
}
