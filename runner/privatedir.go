package runner

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ranvier-mesh/ranvier/internal/jobdir"
)

// memoryShare is the part of a tmpfs's free memory that a job's files may take
// to be put there: the play needs memory too, and writes beside them.
const memoryShare = 16

// privateDir is a worker's directory of its own. It is made when it is known how
// much goes there: keys and passwords stay in memory (a tmpfs) where they, and the
// project with them, are a small part of it. It is used by Work's goroutine and the
// one that receives, which Work may leave behind.
type privateDir struct {
	memory string // a directory on a tmpfs; empty: none

	mu     sync.Mutex
	dir    string
	lock   *jobdir.Lock
	within bool // the memory
	over   bool
}

var errOver = errors.New("the job is over")

// place makes the directory for files of so many bytes, or returns the one that is
// there, and how much may be unpacked into it; 0 is the default.
func (p *privateDir) place(bytes int64) (dir string, limit int64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return "", 0, errOver
	}
	if p.dir == "" && fits(p.memory, bytes) {
		p.dir, p.lock, err = makeInUse(p.memory)
		p.within = err == nil
	}
	if p.dir == "" {
		p.dir, p.lock, err = makeInUse(os.TempDir())
	}
	if !p.within {
		return p.dir, 0, err
	}
	if !fits(p.memory, bytes) {
		bytes = 0 // a second archive that is large
	}
	return p.dir, max(bytes, 1), nil // a zip that says less than it has does not get more
}

// remove removes it, and nobody makes it again.
func (p *privateDir) remove() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	if p.dir == "" {
		return nil
	}
	defer p.lock.Unlock()
	return os.RemoveAll(p.dir)
}

// ownPrefix begins the names of such directories.
const ownPrefix = "ranvier-worker-"

// makeInUse makes a directory below base that is in use from its beginning: one
// that a sweep gets hold of before is made once more.
func makeInUse(base string) (string, *jobdir.Lock, error) {
	for {
		dir, err := os.MkdirTemp(base, ownPrefix)
		if err != nil {
			return "", nil, err
		}
		lock, err := jobdir.Use(dir)
		if err == nil && isDir(dir) {
			return dir, lock, nil
		}
		lock.Unlock()
		if err != nil && !errors.Is(err, jobdir.ErrInUse) && !errors.Is(err, fs.ErrNotExist) {
			return "", nil, errors.Join(err, os.Remove(dir))
		}
	}
}

// sweep removes what workers of this user have left that were killed: their
// directories hold keys and passwords, and nobody else knows of them. One that is
// locked, or that a process still works in, is a job's.
func (p *privateDir) sweep(log *slog.Logger) {
	for _, base := range []string{p.memory, os.TempDir()} {
		if base == "" {
			continue
		}
		found, err := filepath.Glob(filepath.Join(base, ownPrefix+"*"))
		if err != nil {
			continue // base has brackets in its name
		}
		for _, dir := range found {
			if err := removeLeft(dir); err != nil {
				log.Warn("what a killed worker has left stays", "dir", dir, "err", err)
			}
		}
	}
}

func removeLeft(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() || info.Sys().(*syscall.Stat_t).Uid != uint32(os.Getuid()) {
		return nil
	}
	claim, err := jobdir.Claim(dir)
	if err != nil {
		return nil // it is used, or gone, or nobody can tell
	}
	defer claim.Unlock()
	if inside, err := jobdir.Inside(dir); err != nil || len(inside) > 0 {
		return err
	}
	return os.RemoveAll(dir)
}

// fits tells whether the tmpfs at dir takes so many bytes easily.
func fits(dir string, bytes int64) bool {
	var st unix.Statfs_t
	if dir == "" || unix.Statfs(dir, &st) != nil {
		return false
	}
	return bytes <= int64(st.Bavail)*st.Bsize/memoryShare
}

// memoryDir returns a directory in memory that is safe to make a private one in:
// the user's own or one that is shared as /tmp is; empty where there is none. It has
// to let programs run, as inventories may be. $TMPDIR says where temporary files
// shall be, and goes before.
func memoryDir() string {
	if os.Getenv("TMPDIR") != "" {
		return ""
	}
	if own := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(own) && isMemory(own, os.Getuid(), 0o700) {
		return own
	}
	if isMemory("/dev/shm", 0, 0o777|os.ModeSticky) {
		return "/dev/shm"
	}
	return ""
}

func isMemory(dir string, owner int, mode os.FileMode) bool {
	info, err := os.Lstat(dir)
	if err != nil || info.Mode() != os.ModeDir|mode {
		return false
	}
	var st unix.Statfs_t
	sys, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(sys.Uid) == owner && unix.Statfs(dir, &st) == nil &&
		st.Type == unix.TMPFS_MAGIC && st.Flags&(unix.ST_NOEXEC|unix.ST_RDONLY) == 0 && unix.Access(dir, unix.W_OK) == nil
}
