package worktypes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// reserveSize is what is kept free on the disk for the states of units: when the
// disk is full, jobs fail, and it must be possible to write that down.
const reserveSize = 1 << 20

const reserveFile = "reserve"

// minRoom is how much must be free beside the reserve: with less a disk counts as
// full. A write may fail before the last byte is taken.
const minRoom = 64 << 10

// keepReserve takes the reserve, where there is room for it. The error is told
// already.
func (m *Manager) keepReserve() error {
	m.reserve.Lock()
	defer m.reserve.Unlock()
	path := filepath.Join(m.dir, reserveFile)
	if fi, err := os.Stat(path); err == nil && fi.Size() == reserveSize {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		defer f.Close()
		err = unix.Fallocate(int(f.Fd()), 0, 0, reserveSize)
		if err == unix.EOPNOTSUPP {
			_, err = f.Write(make([]byte, reserveSize))
		}
	}
	if err != nil {
		_ = os.Remove(path)
		m.log.Warn("there is no room for the reserve of the data directory: its disk is nearly full", "file", path, "error", err)
	}
	return err
}

// room refuses a start where the output of the job could not be stored. What the
// reserve has freed is for the states of units and not for more jobs: without it
// nothing starts until it is there again.
func (m *Manager) room(to *User) error {
	err := m.keepReserve()
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		err = nil
		var st unix.Statfs_t
		if unix.Statfs(m.dir, &st) == nil && full(st, to) {
			err = unix.ENOSPC
		}
	}
	if err != nil {
		return fmt.Errorf("the disk of the data directory %s is full, so that its output could not be kept: %w; release units or make room", m.dir, err)
	}
	return nil
}

// full reports whether a file system has no room for what a user writes; nil is
// this process's.
func full(st unix.Statfs_t, to *User) bool {
	free := st.Bavail
	if os.Geteuid() == 0 && (to == nil || to.UID == 0) {
		free = st.Bfree // what is kept for root
	}
	return st.Blocks > 0 && free*uint64(st.Bsize) < minRoom
}

// spendReserve frees the reserve for a state that must be written.
func (m *Manager) spendReserve() bool {
	m.reserve.Lock()
	defer m.reserve.Unlock()
	path := filepath.Join(m.dir, reserveFile)
	if err := os.Remove(path); err != nil {
		return false
	}
	m.log.Error("the disk of the data directory is full: its reserve is used up for the states of work units; release units or make room", "dir", m.dir)
	return true
}
