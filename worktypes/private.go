package worktypes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// closeToOthers takes from other users what they have no business in: the outputs and
// payloads of jobs, and what is believed of them. What belongs to another user he could
// change at any time: the error says what to do. It follows symbolic links.
func (m *Manager) closeToOthers() error {
	var open []string
	for _, path := range []string{m.store.units, filepath.Join(m.dir, journalFile), filepath.Join(m.dir, recordsFile)} {
		was, err := closeFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if was != 0 {
			open = append(open, fmt.Sprintf("%s (mode %#o)", path, was))
		}
	}
	if len(open) > 0 {
		m.log.Warn("other users could read or write files of work units: they cannot any more; what is in them may have been changed", "files", strings.Join(open, ", "))
	}
	return nil
}

// closeFile returns the mode that a file had and does not have any more; 0: it
// was as it should be. Others may pass a directory, which jobs of other users need.
func closeFile(path string) (was fs.FileMode, err error) {
	fi, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	if owner := int(fi.Sys().(*syscall.Stat_t).Uid); owner != os.Geteuid() {
		return 0, fmt.Errorf("%s belongs to user %d, this node runs as user %d: run the node as its owner, or chown it after a look at what is in it", path, owner, os.Geteuid())
	}
	mode, allowed := fi.Mode().Perm(), fs.FileMode(0o600)
	if fi.IsDir() {
		allowed = 0o700
		if mode == passable {
			allowed = passable
		}
	}
	if mode&^allowed == 0 {
		return 0, nil
	}
	return mode, os.Chmod(path, allowed)
}
