package jobdir

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ranvier-mesh/ranvier/internal/process"
)

// PIDName is the file in a private data directory that names the job in the
// background. Its first line is all that the Python tool knows of.
const PIDName = "pid"

// PIDFile is held by a job in the background as long as it runs. Its lock
// belongs to the open file, so that a child that is given the file has it too.
type PIDFile struct{ f *os.File }

// CreatePID makes the file in dir and locks it. A file that nobody holds is what
// a killed job left, and is taken over. Errors are ErrInUse, which names the
// process, and *fs.PathError.
func CreatePID(dir string) (*PIDFile, error) {
	name := filepath.Join(dir, PIDName)
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		d, err := readPID(f)
		if err == nil && d.alive(f) {
			f.Close()
			return nil, fmt.Errorf("%s: %w (process %d)", dir, ErrInUse, d.PID)
		}
		if err := flock(f, unix.LOCK_EX); errors.Is(err, ErrInUse) {
			f.Close()
			return nil, fmt.Errorf("%s: %w (it is just starting)", dir, err)
		} else if err != nil && !errors.Is(err, ErrNoLocks) {
			f.Close()
			return nil, err
		}
		// The one who held it may have removed it since it was opened.
		if same(f, name) {
			return &PIDFile{f}, nil
		}
		f.Close()
	}
}

func same(f *os.File, name string) bool {
	a, aerr := f.Stat()
	b, berr := os.Lstat(name)
	return aerr == nil && berr == nil && os.SameFile(a, b)
}

// InheritPID is the file that a parent created and passed on as descriptor fd
// for the job in dir. Children of this process do not get it.
func InheritPID(fd uintptr, dir string) *PIDFile {
	unix.CloseOnExec(int(fd))
	return &PIDFile{os.NewFile(fd, filepath.Join(dir, PIDName))}
}

// File is what is passed on to a child.
func (p *PIDFile) File() *os.File { return p.f }

// Write says who runs and where its artifacts will be.
func (p *PIDFile) Write(pid int, artifacts string) error {
	if err := p.f.Truncate(0); err != nil {
		return err
	}
	_, err := p.f.WriteAt(fmt.Appendf(nil, "%d\n%s\n", pid, artifacts), 0)
	return err
}

// Remove removes the file and gives up its lock.
func (p *PIDFile) Remove() error {
	defer p.f.Close()
	if !same(p.f, p.f.Name()) {
		return nil // somebody else's by now
	}
	return os.Remove(p.f.Name())
}

// Close gives up this process's hold of the file.
func (p *PIDFile) Close() error { return p.f.Close() }

// Daemon is the job in the background that a pid file names.
type Daemon struct {
	PID       int
	Artifacts string // its artifact directory; empty where the Python tool wrote the file
	Alive     bool
}

// Find returns the job in the background of dir. The error is fs.ErrNotExist
// where there is none, and tells of a file that names no process.
func Find(dir string) (Daemon, error) {
	f, err := os.OpenFile(filepath.Join(dir, PIDName), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return Daemon{}, err
	}
	defer f.Close()
	d, err := readPID(f)
	if err != nil {
		return Daemon{}, err
	}
	d.Alive = d.alive(f)
	return d, nil
}

func readPID(f *os.File) (Daemon, error) {
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 8<<10))
	if err != nil {
		return Daemon{}, err
	}
	first, rest, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 1 {
		return Daemon{}, fmt.Errorf("%s: %.20q is no process id", f.Name(), first)
	}
	artifacts, _, _ := strings.Cut(rest, "\n")
	return Daemon{PID: pid, Artifacts: artifacts}, nil
}

// alive tells whether the process still runs that the file was written for. A
// held lock is the proof. The Python tool holds none, and some file systems
// have none: there it is a process of this id that is no younger than the file.
func (d Daemon) alive(f *os.File) bool {
	if err := flock(f, unix.LOCK_SH); errors.Is(err, ErrInUse) {
		return true
	} else if err == nil {
		defer unix.Flock(int(f.Fd()), unix.LOCK_UN)
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	started, err := process.Started(d.PID)
	const clocks = 2 * time.Second // the kernel's and the file system's are not the same
	return err == nil && started.Before(info.ModTime().Add(clocks))
}

// Inside returns the processes whose working directory is dir or below it, as
// far as they can be seen: a play of a worker that holds no lock runs so.
func Inside(dir string) ([]int, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, link := range links {
		cwd, err := os.Readlink(link)
		if err != nil || cwd != dir && !strings.HasPrefix(cwd, dir+"/") {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(link, "/")[2])
		if err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
