package remote

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// keySize is the length of a content key in bytes.
const keySize = 32

// ContentKey returns the secret that this user's content is kept under on
// nodes, so that nobody else can refer to it. The first call makes it, in
// ranvier/content-key below $XDG_STATE_HOME or ~/.local/state. Errors are
// *fs.PathError, or say what is wrong with the file.
func ContentKey() ([]byte, error) {
	state := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, fmt.Errorf("directory for the content key: %w", err)
		}
		state = filepath.Join(home, ".local", "state")
	}
	file := filepath.Join(state, "ranvier", "content-key")
	key, err := readKey(file)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(file)
	}
	return key, err
}

func readKey(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != keySize {
		return nil, fmt.Errorf("%s is no content key; remove it, and another is made", file)
	}
	return key, nil
}

// makeKey writes a key under another name and links it: two programs that begin
// at the same time get the same one.
func makeKey(file string) ([]byte, error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, err
	}
	key := make([]byte, keySize)
	_, _ = rand.Read(key)                                            // it never fails
	temp, err := os.CreateTemp(filepath.Dir(file), ".content-key-*") // of mode 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(temp.Name())
	_, err = fmt.Fprintf(temp, "%x\n", key)
	if err := errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return nil, err
	}
	if err := os.Link(temp.Name(), file); errors.Is(err, fs.ErrExist) {
		return readKey(file)
	} else if err != nil {
		return nil, err
	}
	return key, nil
}
