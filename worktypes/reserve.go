package worktypes

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// reserveSize is what is kept free on the disk for the states of units: when the
// disk is full, jobs fail, and it must be possible to write that down.
const reserveSize = 1 << 20

const reserveFile = "reserve"

// keepReserve takes the reserve, where there is room for it.
func (m *Manager) keepReserve() {
	path := filepath.Join(m.dir, reserveFile)
	if fi, err := os.Stat(path); err == nil && fi.Size() == reserveSize {
		return
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
}

// spendReserve frees the reserve for a state that must be written.
func (m *Manager) spendReserve() bool {
	path := filepath.Join(m.dir, reserveFile)
	if err := os.Remove(path); err != nil {
		return false
	}
	m.log.Error("the disk of the data directory is full: its reserve is used up for the states of work units; release units or make room", "dir", m.dir)
	return true
}
