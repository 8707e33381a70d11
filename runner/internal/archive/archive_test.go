package archive_test

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/ranvier-mesh/ranvier/runner/internal/archive"
)

// node is what must survive the way through an archive.
type node struct {
	Mode    fs.FileMode
	Content string
	Time    time.Time // zero for symlinks, whose time is not restored
}

func readTree(t testing.TB, dir string) map[string]node {
	t.Helper()
	tree := make(map[string]node)
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || file == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		n := node{Mode: info.Mode()}
		switch {
		case n.Mode.Type() == fs.ModeSymlink:
			n.Content, err = os.Readlink(file)
			tree[file[len(dir)+1:]] = n
			return err
		case n.Mode.IsRegular():
			data, rerr := os.ReadFile(file)
			n.Content, err = string(data), rerr
		}
		n.Time = info.ModTime().Truncate(100)
		tree[file[len(dir)+1:]] = n
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func pack(t testing.TB, dir string, o archive.PackOptions) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := archive.Pack(context.Background(), &buf, dir, o); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func unpack(data []byte, dir string, o archive.UnpackOptions) error {
	return archive.UnpackStream(context.Background(), bytes.NewReader(data), int64(len(data)), dir, o)
}

// drawTree makes a tree below dir, with the names, modes, times and links that
// projects have and those that they had better not have.
func drawTree(t *rapid.T, dir string, depth int) {
	names := rapid.SliceOfNDistinct(rapid.OneOf(
		rapid.StringMatching(`[a-z.]{1,8}`),
		rapid.SampledFrom([]string{"ü", "日本", "a b", "back\\slash", "new\nline", "\xff\xfe", "-rf", "...", "~"}),
	), 0, 6, rapid.ID[string]).Draw(t, "names")
	for _, name := range names {
		if name == "." || name == ".." {
			continue
		}
		file := filepath.Join(dir, name)
		mode := fs.FileMode(rapid.IntRange(0, 0o777).Draw(t, "mode"))
		when := time.Unix(rapid.Int64Range(-3e8, 5e9).Draw(t, "seconds"), rapid.Int64Range(0, 999999999).Draw(t, "ns"))
		var err error
		switch kind := rapid.IntRange(0, 3).Draw(t, "kind"); {
		case kind == 0 && depth > 0:
			if err = os.Mkdir(file, 0o700); err == nil {
				drawTree(t, file, depth-1)
			}
			mode |= 0o500 // Pack itself has to get in
			if rapid.Bool().Draw(t, "setgid") {
				mode |= fs.ModeSetgid
			}
		case kind == 1:
			target := rapid.SampledFrom([]string{".", "..", "/etc/passwd", "gone", "\xff", "a b"}).Draw(t, "target")
			if err := os.Symlink(target, file); err != nil {
				t.Fatal(err)
			}
			continue
		default:
			size := rapid.SampledFrom([]int{0, 1, 100, 300 << 10}).Draw(t, "size")
			err = os.WriteFile(file, bytes.Repeat([]byte(name), size), 0o600)
			mode |= 0o400
		}
		if err := errors.Join(err, os.Chmod(file, mode), os.Chtimes(file, when, when)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPackThenUnpackGivesTheSameTree(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		src, dst := tempDir(rt), tempDir(rt)
		drawTree(rt, src, 3)
		var got []string
		err := unpack(pack(t, src, archive.PackOptions{}), dst,
			archive.UnpackOptions{Extracted: func(name string) { got = append(got, name) }})
		if err != nil {
			rt.Fatal(err)
		}
		want := readTree(t, src)
		if diff := cmp.Diff(want, readTree(t, dst)); diff != "" {
			rt.Fatal(diff)
		}
		if len(got) != len(want) {
			rt.Fatalf("Extracted heard of %d entries of %d", len(got), len(want))
		}
	})
}

// tempDir is t.TempDir for rapid, whose T lasts over many tries. Directories
// inside may forbid writing to others than root.
func tempDir(t *rapid.T) string {
	dir, err := os.MkdirTemp("", "archive")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = filepath.WalkDir(dir, func(file string, d fs.DirEntry, _ error) error {
			if d != nil && d.IsDir() {
				return os.Chmod(file, 0o700)
			}
			return nil
		})
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestPackLeavesOutWhatCannotTravel(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	write(t, filepath.Join(dir, "file"), "x")
	var skipped []string
	data := pack(t, dir, archive.PackOptions{Skipped: func(name, reason string) {
		skipped = append(skipped, name+": "+reason)
	}})
	if diff := cmp.Diff([]string{"sock: it is a socket"}, skipped); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"file"}, names(t, data)); diff != "" {
		t.Error(diff)
	}
}

func TestPackNamesTheFileItCannotRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "secret"), "x")
	for _, d := range []string{dir, filepath.Dir(dir)} { // let nobody in, so far
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "secret"), 0); err != nil {
		t.Fatal(err)
	}
	var err error
	asNobody(func() { err = archive.Pack(context.Background(), io.Discard, dir, archive.PackOptions{}) })
	var perr *fs.PathError
	if !errors.As(err, &perr) || !errors.Is(err, fs.ErrPermission) || perr.Path != filepath.Join(dir, "secret") {
		t.Errorf("error %v, want one that names the file", err)
	}
}

// asNobody runs f without root's right to read everything. The right goes with
// the thread, which is not used again.
func asNobody(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		_ = unix.Setfsuid(65534) // who is not root cannot, and need not
		f()
	}()
	<-done
}

func TestExtraFilesTakeThePlaceOfThoseOnDisk(t *testing.T) {
	t.Parallel()
	src, dst := t.TempDir(), t.TempDir()
	mkdir(t, filepath.Join(src, "env"))
	write(t, filepath.Join(src, "env", "cmdline"), "old")
	extra := []archive.File{
		{Name: "env/cmdline", Mode: 0o400, Data: []byte("new")},
		{Name: "inventory/hosts", Mode: 0o600, Data: []byte("h")},
		{Name: "inventory/more", Mode: 0o600, Data: []byte("m")},
	}
	if err := unpack(pack(t, src, archive.PackOptions{Extra: extra}), dst, archive.UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	tree := readTree(t, dst)
	if n := tree["env/cmdline"]; n.Content != "new" || n.Mode != 0o400 {
		t.Errorf("env/cmdline is %v", n)
	}
	if n := tree["inventory"]; n.Mode != fs.ModeDir|0o700 {
		t.Errorf("inventory is %v", n)
	}
	if tree["inventory/hosts"].Content != "h" || tree["inventory/more"].Content != "m" || len(tree) != 5 {
		t.Errorf("the tree is %v", tree)
	}
	if got, err := os.ReadFile(filepath.Join(src, "env", "cmdline")); err != nil || string(got) != "old" {
		t.Errorf("the source has %q, %v", got, err)
	}

	if err := os.Symlink("/elsewhere", filepath.Join(src, "project")); err != nil {
		t.Fatal(err)
	}
	err := archive.Pack(context.Background(), io.Discard, src,
		archive.PackOptions{Extra: []archive.File{{Name: "project/x", Mode: 0o600}}})
	if err == nil || !strings.Contains(err.Error(), "no directory") {
		t.Errorf("a file below a symlink: error %v", err)
	}
}

func TestPackStopsWithItsContext(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), "x")
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("enough")
	cancel(why)
	if err := archive.Pack(ctx, io.Discard, dir, archive.PackOptions{}); !errors.Is(err, why) {
		t.Errorf("error %v", err)
	}
}

// failAfter fails after n bytes, in the middle of a file's blocks.
type failAfter struct{ n int }

func (w *failAfter) Write(p []byte) (int, error) {
	if w.n -= len(p); w.n < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

func TestPackEndsItsWorkersWhenWritingFails(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	dir := t.TempDir()
	random := make([]byte, 4<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(random)
	write(t, filepath.Join(dir, "a"), string(random))
	for _, n := range []int{0, 100, 1 << 20, 4 << 20} {
		if err := archive.Pack(context.Background(), &failAfter{n}, dir, archive.PackOptions{}); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("after %d bytes: error %v", n, err)
		}
	}
}

// A large file must not be in memory: 300 MB pass with a heap of a few.
func TestMemoryDoesNotGrowWithTheFiles(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	f, err := os.Create(filepath.Join(src, "large"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(300<<20), f.Close()); err != nil {
		t.Fatal(err)
	}
	zipped, err := os.Create(filepath.Join(t.TempDir(), "zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer zipped.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := archive.Pack(context.Background(), zipped, src, archive.PackOptions{}); err != nil {
		t.Fatal(err)
	}
	size, err := zipped.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	if err := archive.Unpack(context.Background(), zipped, size, dst, archive.UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	// All that was ever allocated, so that no peak can hide between two looks.
	if got := after.TotalAlloc - before.TotalAlloc; got > 32<<20 {
		t.Errorf("%d MiB were allocated", got>>20)
	}
	info, err := os.Stat(filepath.Join(dst, "large"))
	if err != nil || info.Size() != 300<<20 {
		t.Errorf("unpacked to %v, %v", info, err)
	}
}

func write(t testing.TB, name, content string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func mkdir(t testing.TB, name string) string {
	t.Helper()
	if err := os.Mkdir(name, 0o700); err != nil {
		t.Fatal(err)
	}
	return name
}

func names(t testing.TB, data []byte) []string {
	t.Helper()
	zr, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range zr.File {
		names = append(names, f.Name)
	}
	return names
}
