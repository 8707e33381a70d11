package control

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// deadSocket leaves what a killed process leaves.
func deadSocket(t *testing.T, path string) {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
}

func TestListenUnix(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made")
	path := filepath.Join(dir, "s")
	for _, perm := range []fs.FileMode{0o600, 0o660, 0o666} {
		ln, err := ListenUnix(path, perm)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(path)
		if err != nil || info.Mode() != fs.ModeSocket|perm {
			t.Errorf("mode %v, %v; want %v", info.Mode(), err, perm)
		}
		if ln.Addr().String() != path || ln.Addr().Network() != "unix" {
			t.Errorf("address %v", ln.Addr())
		}
		if names, _ := filepath.Glob(dir + "/.*"); len(names) > 0 {
			t.Errorf("left behind: %v", names)
		}
		if _, err := ListenUnix(path, perm); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), path) {
			t.Errorf("a live socket: %v", err)
		}
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket after Close: %v", err)
		}
	}
}

func TestListenUnixReplacesADeadSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	deadSocket(t, path)
	// Of several that start at once, one gets it and the others see it.
	const n = 8
	var wg sync.WaitGroup
	lns, errs := make([]net.Listener, n), make([]error, n)
	for i := range n {
		wg.Go(func() { lns[i], errs[i] = ListenUnix(path, 0o600) })
	}
	wg.Wait()
	got := 0
	for i := range n {
		if errs[i] == nil {
			got++
			defer lns[i].Close()
		} else if !errors.Is(errs[i], ErrInUse) {
			t.Error(errs[i])
		}
	}
	if got != 1 {
		t.Errorf("%d listeners have the socket", got)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestListenUnixLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link, dir} {
		if _, err := ListenUnix(path, 0o600); err == nil || !strings.Contains(err.Error(), "no socket") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if data, err := os.ReadFile(file); string(data) != "data" || err != nil {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := ListenUnix(filepath.Join(dir, strings.Repeat("x", 120)), 0o600); err == nil || !strings.Contains(err.Error(), "too long by") {
		t.Errorf("a long path: %v", err)
	}
	if names, _ := os.ReadDir(dir); len(names) != 2 {
		t.Errorf("left behind: %v", names)
	}
}

// TestListenUnixCloseKeepsASuccessor removes the socket by hand and lets
// another one take its place before the first is closed.
func TestListenUnixCloseKeepsASuccessor(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	first, err := ListenUnix(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	second, err := ListenUnix(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	first.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the successor's socket is gone: %v", err)
	}
}

// The longest path that clients can dial is one to listen on, whatever its folder's
// share in it.
func TestListenUnixAtTheLongestPath(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if len(dir) > 90 {
		t.Skipf("%s is too long to begin with", dir)
	}
	dir = filepath.Join(dir, strings.Repeat("d", maxSocketPath-len(dir)-len("//s")))
	for name, ok := range map[string]bool{"s": true, "ss": false} {
		ln, err := ListenUnix(filepath.Join(dir, name), 0o600)
		if !ok {
			if err == nil || !strings.Contains(err.Error(), "the path is too long by 1 bytes") {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Error(err)
			continue
		}
		conn, err := net.Dial("unix", filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		} else {
			conn.Close()
		}
		ln.Close()
	}
}
