package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// ErrInUse is wrapped by ListenUnix's error when a live process listens on the
// socket.
var ErrInUse = errors.New("another process listens there")

// maxSocketPath is the longest path that Linux binds a unix socket to, in bytes.
const maxSocketPath = 107

// ListenUnix listens on a unix socket at path, with the permissions perm from
// the moment that it is there. A folder that is missing is made. A socket whose process is
// dead is replaced; one that is alive gives an error that wraps ErrInUse, and
// what is no socket is left alone too. Closing the listener removes the socket.
func ListenUnix(path string, perm fs.FileMode) (net.Listener, error) {
	ln, err := listenUnix(path, perm)
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	return ln, nil
}

func listenUnix(path string, perm fs.FileMode) (net.Listener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	// Two nodes that start at once may both find the same dead socket. The
	// lock makes the second one see the live socket of the first.
	if n := len(path); n > maxSocketPath {
		return nil, fmt.Errorf("the path is too long by %d bytes for a unix socket", n-maxSocketPath)
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := mayReplace(path); err != nil {
		return nil, err
	}
	// bind gives a socket the permissions of the umask, which is the whole
	// process's and cannot be changed safely. So it is made where nobody else
	// can reach it, and moved when it is right.
	private, err := os.MkdirTemp(dir, ".")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(private)
	hidden := filepath.Join(private, "s")
	ln, err := bind(private, "s")
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false) // it would remove the hidden path
	info, err := publish(hidden, path, perm)
	if err != nil {
		ln.Close()
		return nil, err
	}
	return &unixListener{UnixListener: ln, path: path, info: info}, nil
}

// bind listens on a socket in a folder, by a short name: the folder's own may be too
// long where that of the socket in the end is not.
func bind(dir, name string) (*net.UnixListener, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return net.ListenUnix("unix", &net.UnixAddr{Name: fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name), Net: "unix"})
}

// publish moves a socket to where clients look for it.
func publish(hidden, path string, perm fs.FileMode) (fs.FileInfo, error) {
	if err := os.Chmod(hidden, perm); err != nil {
		return nil, err
	}
	info, err := os.Lstat(hidden)
	if err != nil {
		return nil, err
	}
	return info, os.Rename(hidden, path)
}

// lockDir locks a folder among those that call it.
func lockDir(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX)
		if err == nil {
			return func() { d.Close() }, nil
		}
		if err != syscall.EINTR {
			d.Close()
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
	}
}

// mayReplace returns nil if there is nothing at path, or a socket that nobody
// listens on.
func mayReplace(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("something that is no socket is there: remove it, or choose another path")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("%w: stop it, or choose another path", ErrInUse)
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, syscall.EAGAIN): // alive, with a full queue
		return fmt.Errorf("%w: stop it, or choose another path", ErrInUse)
	}
	return fmt.Errorf("a socket is there, and whether a process listens on it cannot be told: %w", err)
}

// unixListener is a listener whose socket was moved after it was bound.
type unixListener struct {
	*net.UnixListener
	path string
	info fs.FileInfo // of the socket, to know it again
}

// Addr returns the path that clients use.
func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close removes the socket and then ends the listening: while it is there it
// is alive, so that nobody else has put his own in its place.
func (l *unixListener) Close() error {
	if info, err := os.Lstat(l.path); err == nil && os.SameFile(info, l.info) {
		os.Remove(l.path)
	}
	return l.UnixListener.Close()
}
