package worktypes

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// User is who a job runs as, where that is not the node's own user.
type User struct {
	Name     string
	UID, GID uint32
	Groups   []uint32 `json:",omitempty"` // supplementary; GID need not be among them
	Home     string   `json:",omitempty"` // of $HOME
}

// Credential is the user for who forks; nil for a nil user.
func (u *User) Credential() *syscall.Credential {
	if u == nil {
		return nil
	}
	return &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
}

// environ is a job's environment without what is the node's user's. Who has no home
// has the scratch directory.
func (u *User) environ(env []string, scratch string) []string {
	if u == nil {
		return env
	}
	env = slices.DeleteFunc(env, func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return strings.HasPrefix(name, "XDG_") || slices.Contains([]string{"HOME", "USER", "LOGNAME", "MAIL", "SSH_AUTH_SOCK"}, name)
	})
	home := u.Home
	if u.homeless() {
		home = scratch
	}
	return append(env, "HOME="+home, "USER="+u.Name, "LOGNAME="+u.Name)
}

func (u *User) homeless() bool {
	if u == nil {
		return false
	}
	fi, err := os.Stat(u.Home)
	return err != nil || !fi.IsDir()
}

// passable is what another user needs to come through a directory: he cannot list
// it, and files in it have modes of their own.
const passable fs.FileMode = 0o711

// hand gives the scratch directory to the user that the job runs as. The
// directories above it let him pass, no more.
func (u *unit) hand(to *User) error {
	if to == nil {
		return nil
	}
	dataDir := u.m.dir
	for _, dir := range []string{u.dir, u.m.store.units, dataDir} {
		if err := os.Chmod(dir, passable); err != nil {
			return err
		}
	}
	abs, err := filepath.Abs(dataDir)
	if err != nil {
		return err
	}
	for dir := filepath.Dir(abs); ; dir = filepath.Dir(dir) {
		if fi, err := os.Stat(dir); err != nil {
			return err
		} else if !mayPass(fi, to) {
			return fmt.Errorf("user %s may not pass %s (mode %#o) to the job's files: let everybody pass it (chmod o+x), or set datadir elsewhere", to.Name, dir, fi.Mode().Perm())
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	// What is in it first: from then on it is his, and he might change it below us.
	scratch := u.file(scratchDir)
	err = filepath.WalkDir(scratch, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == scratch {
			return err
		}
		return os.Lchown(path, int(to.UID), int(to.GID))
	})
	if err != nil {
		return err
	}
	return os.Lchown(scratch, int(to.UID), int(to.GID))
}

func mayPass(fi fs.FileInfo, u *User) bool {
	mode, st := fi.Mode().Perm(), fi.Sys().(*syscall.Stat_t)
	switch {
	case st.Uid == u.UID:
		return mode&0o100 != 0
	case st.Gid == u.GID || slices.Contains(u.Groups, st.Gid):
		return mode&0o010 != 0
	}
	return mode&0o001 != 0
}
