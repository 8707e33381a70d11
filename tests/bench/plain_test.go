package bench

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// plain runs the play of a directory with ansible-playbook as a user would: on a
// terminal of 24 lines and 80 columns with colours, whose other end is read as
// fast as it comes. It returns milliseconds.
func plain(b *testing.B, dir string) float64 {
	b.Helper()
	cmd := exec.Command("ansible-playbook", "-i", filepath.Join(dir, "inventory"), "test.yml")
	cmd.Dir = filepath.Join(dir, "project")
	cmd.Env = append(os.Environ(), "TERM=xterm-256color")
	master, slave := openTerminal(b)
	defer master.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	start := time.Now()
	err := cmd.Start()
	slave.Close()
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, master); err != nil && !errors.Is(err, syscall.EIO) { // nobody at the other end
		b.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		b.Fatalf("ansible-playbook: %v", err)
	}
	return milliseconds(start)
}

func openTerminal(b *testing.B) (master, slave *os.File) {
	b.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		b.Fatal(err)
	}
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	err = errors.Join(err, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0),
		unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}))
	if err != nil {
		b.Fatal(err)
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		b.Fatal(err)
	}
	return master, slave
}

func milliseconds(since time.Time) float64 { return float64(time.Since(since).Microseconds()) / 1000 }
