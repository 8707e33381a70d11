package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// epochs counts the starts of a node in a file: the mesh takes what a node says
// in a higher epoch for newer, and no clock is involved.
type epochs struct {
	file    string
	current uint64 // of this start
}

func openEpochs(dir string) (*epochs, error) {
	e := &epochs{file: filepath.Join(dir, "epoch")}
	text, err := os.ReadFile(e.file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the node's epoch: %w", err)
	}
	if err == nil {
		if e.current, err = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err != nil {
			return nil, fmt.Errorf("%s: %q is not a number; if the file is beyond repair remove it, and the mesh will tell the node its epoch", e.file, text)
		}
	}
	return e, e.save(e.current + 1)
}

// save puts the epoch on disk before it is used.
func (e *epochs) save(epoch uint64) error {
	tmp, err := os.CreateTemp(filepath.Dir(e.file), "epoch-*")
	if err != nil {
		return fmt.Errorf("store the node's epoch: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = fmt.Fprintln(tmp, epoch)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("store the node's epoch: %w", err)
	}
	if err := os.Rename(tmp.Name(), e.file); err != nil {
		return fmt.Errorf("store the node's epoch: %w", err)
	}
	e.current = epoch
	return nil
}
