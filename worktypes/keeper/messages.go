package keeper

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ranvier-mesh/ranvier/internal/process"
	"github.com/ranvier-mesh/ranvier/worktypes"
)

// The operations of a request.
const (
	opStart     = "start"
	opStartAs   = "start as" // opStart with a user: a keeper that does not know that refuses
	opInterrupt = "interrupt"
	opKill      = "kill"
	opForget    = "forget" // no answer
	opQuit      = "quit"   // end, unless there are jobs
)

// request is a line from the node.
type request struct {
	Seq    uint64 // of the answer; unique on a connection
	Op     string
	Unit   string
	Launch *worktypes.Launch `json:",omitempty"`
	// SameEnv says that Launch.Env, which is empty then, is that of the start
	// before on this connection.
	SameEnv bool `json:",omitempty"`
}

// message is a line from the keeper: the greeting, an answer, or the end of a
// job.
type message struct {
	Seq   uint64     `json:",omitempty"` // of the request; 0: not an answer
	Error string     `json:",omitempty"`
	Again bool       `json:",omitempty"` // Error is worktypes.ErrStarted
	Root  process.ID `json:",omitzero"`  // of a start

	Version string `json:",omitempty"` // greeting
	Jobs    []job  `json:",omitempty"` // greeting

	Unit string          `json:",omitempty"` // whose end
	Exit *worktypes.Exit `json:",omitempty"`
}

// job is a job that the keeper has.
type job struct {
	Unit string
	Root process.ID
	Exit *worktypes.Exit `json:",omitempty"` // when it has ended
}

// maxLine is the longest line: an environment, or the jobs of a busy node.
const maxLine = 16 << 20

// The files of a keeper, below the data directory.
const (
	dirName    = "keeper"
	socketName = "socket"
	lockName   = "lock"
	logName    = "log"
)

// lockTime is about half of how long a new keeper waits for the lock.
const lockTime = 250 * time.Millisecond

// place is the keeper's directory, held open: a unix socket's path must be short,
// which that of a data directory need not be.
type place struct {
	dir string
	f   *os.File
}

func openPlace(dataDir string) (place, error) {
	dir := filepath.Join(dataDir, dirName)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return place{}, fmt.Errorf("directory of the keeper: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return place{}, fmt.Errorf("directory of the keeper: %w", err)
	}
	return place{dir, f}, nil
}

// socket is a short path of the socket, for this process only.
func (p place) socket() string {
	return "/proc/self/fd/" + strconv.Itoa(int(p.f.Fd())) + "/" + socketName
}

func (p place) path(name string) string { return filepath.Join(p.dir, name) }

// lock takes the keeper's lock, which goes with the process. It waits for a moment:
// the keeper before this one may be on its way out.
func (p place) lock() (*os.File, error) {
	f, err := os.OpenFile(p.path(lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for wait := time.Millisecond; ; wait *= 2 {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if wait > lockTime {
			f.Close()
			return nil, fmt.Errorf("%w: another keeper has %s", worktypes.ErrInUse, p.dir)
		}
		time.Sleep(wait)
	}
}
