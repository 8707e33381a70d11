package identity

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// CheckPrivate returns an error that says what to do where others than this user,
// and root, can read a file with a secret, or own it. Of a file that is not there it
// says nothing.
func CheckPrivate(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return nil
	}
	owner := os.Geteuid()
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		owner = int(st.Uid)
	}
	return private(file, info.Mode(), owner, os.Geteuid())
}

func private(file string, mode fs.FileMode, owner, me int) error {
	switch {
	case owner != me && owner != 0:
		return fmt.Errorf("%s is a secret and belongs to the user %d, and this program runs as %d: chown it", file, owner, me)
	case mode.Perm()&0o077 != 0:
		return fmt.Errorf("%s is a secret and others may read or change it (its mode is %04o): chmod 600 %[1]s", file, mode.Perm())
	}
	return nil
}
