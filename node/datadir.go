package node

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// mkdir makes the data directory, for this user only. Nobody else may write into it
// or put another one in its place.
func mkdir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w (set datadir in the item node to one that this user may write)", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if owner, ok := ownerOf(info); ok && owner != os.Geteuid() {
		return fmt.Errorf("data directory %s belongs to the user %d, and this node runs as %d: chown it, or set datadir in the item node to another one", dir, owner, os.Geteuid())
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("data directory %s may be written by others (its mode is %04o): chmod go-w it", dir, mode)
	}
	return checkParents(dir)
}

// checkParents looks at the directories that a data directory is in: who may rename
// something there gives the node another data directory.
func checkParents(dir string) error {
	whole, err := filepath.Abs(dir)
	if err == nil {
		whole, err = filepath.EvalSymlinks(whole)
	}
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	for parent := filepath.Dir(whole); parent != "/"; parent = filepath.Dir(parent) {
		info, err := os.Stat(parent)
		if err != nil {
			return fmt.Errorf("data directory: %w", err)
		}
		if owner, ok := ownerOf(info); ok && owner != 0 && owner != os.Geteuid() {
			return fmt.Errorf("data directory %s is in %s, which belongs to the user %d, who could put another one in its place: set datadir in the item node to another one", dir, parent, owner)
		}
		if info.Mode()&0o002 != 0 && info.Mode()&os.ModeSticky == 0 {
			return fmt.Errorf("data directory %s is in %s, which everybody may write (its mode is %04o): chmod o-w it, or set datadir in the item node to another one", dir, parent, info.Mode().Perm())
		}
	}
	return nil
}

func ownerOf(info os.FileInfo) (uid int, ok bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(stat.Uid), true
}
