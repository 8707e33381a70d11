package tree

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// heap is a place for pieces.
type heap map[Hash][]byte

// receive takes what snap sends of what h lacks, and returns how many bytes
// came.
func (h heap) receive(t testing.TB, snap *Snapshot) (sent int) {
	t.Helper()
	var wire bytes.Buffer
	lacking := make([]bool, len(snap.Pieces()))
	for i, p := range snap.Pieces() {
		lacking[i] = h[p.Hash] == nil
	}
	if err := snap.Send(t.Context(), func(i int) bool { return lacking[i] }, func(b []byte) error {
		wire.Write(b)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	sent = wire.Len()
	r, err := NewPieceReader(&wire)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for i, p := range snap.Pieces() {
		if !lacking[i] {
			continue
		}
		data, err := r.Next(p)
		if err == nil {
			err = p.Check(data)
		}
		if err != nil {
			t.Fatal(err)
		}
		h[p.Hash] = bytes.Clone(data)
	}
	if wire.Len() > 0 {
		t.Fatalf("%d bytes more than the pieces", wire.Len())
	}
	return sent
}

func (h heap) fetch(p Piece, buf []byte) ([]byte, error) {
	data, ok := h[p.Hash]
	if !ok {
		return nil, fmt.Errorf("piece %v is not there", p.Hash)
	}
	return append(buf[:0], data...), nil
}

func scan(t testing.TB, dir string, o ScanOptions) *Snapshot {
	t.Helper()
	snap, err := Scan(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

func write(t testing.TB, dir, name string, data []byte) {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// describe lists a directory with all that has to survive.
func describe(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || file == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, file)
		switch {
		case d.Type() == fs.ModeSymlink:
			target, _ := os.Readlink(file)
			fmt.Fprintf(&b, "%s -> %s\n", name, target)
		case d.IsDir():
			fmt.Fprintf(&b, "%s %v %v\n", name, info.Mode(), info.ModTime().UnixNano())
		default:
			data, err := os.ReadFile(file)
			fmt.Fprintf(&b, "%s %v %v %x %v\n", name, info.Mode(), info.ModTime().UnixNano(), sha256.Sum256(data), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

// TestRoundTrip: a tree of everything arrives as it was.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	src, dst := t.TempDir(), t.TempDir()
	write(t, src, "project/site.yml", []byte("- hosts: all\n"))
	write(t, src, "project/empty", nil)
	write(t, src, "project/large", random(1, 3*MaxPiece+17))
	write(t, src, "project/exact", random(2, MaxPiece))
	write(t, src, "project/a/b/c/deep", random(3, 100))
	write(t, src, "project/a.b/sorts between a and a/b?", nil)
	write(t, src, "project/not \xff text", []byte("x"))
	for _, err := range []error{
		os.Mkdir(filepath.Join(src, "project/emptydir"), 0o700),
		os.Symlink("../../outside", filepath.Join(src, "project/link")),
		os.Chmod(filepath.Join(src, "project/site.yml"), 0o751|fs.ModeSetuid),
		os.Chtimes(filepath.Join(src, "project/empty"), time.Time{}, time.Unix(-5, 7)),
		os.Chmod(filepath.Join(src, "project/a/b"), 0o555),
		syscall.Mkfifo(filepath.Join(src, "project/pipe"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	snap, h := scan(t, src, ScanOptions{}), heap{}
	h.receive(t, snap)
	if err := Build(t.Context(), bytes.NewReader(snap.Manifest()), dst, h.fetch); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, dir := range []string{src, dst} {
			_ = os.Chmod(filepath.Join(dir, "project/a/b"), 0o755)
		}
	})
	os.Remove(filepath.Join(src, "project/pipe"))
	_ = os.Chmod(filepath.Join(src, "project/site.yml"), 0o751) // setuid does not travel
	// Removing the pipe has changed the directory's time.
	at := time.Unix(100, 0)
	for _, dir := range []string{src, dst} {
		if err := os.Chtimes(filepath.Join(dir, "project"), at, at); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := describe(t, dst), describe(t, src); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestSmallChangesSendLittle: what a change costs is bounded by a few pieces,
// whatever it is and however large the tree.
func TestSmallChangesSendLittle(t *testing.T) {
	t.Parallel()
	dir, h := t.TempDir(), heap{}
	write(t, dir, "project/large", random(1, 8<<20))
	for i := range 2000 {
		write(t, dir, fmt.Sprintf("project/%02d/file%d", i%40, i), random(uint64(i), 100+i%3000))
	}
	first := h.receive(t, scan(t, dir, ScanOptions{}))
	if first < 8<<20 {
		t.Fatalf("%d bytes of random content were sent: it cannot have been all", first)
	}
	grow := func(name string, data []byte) func() {
		return func() {
			f, err := os.OpenFile(filepath.Join(dir, name), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = f.Write(data)
			f.Close()
		}
	}
	for name, change := range map[string]func(){
		"nothing":                func() {},
		"a small file grows":     grow("project/07/file7", random(9, 500)),
		"a file is new":          grow("project/03/new", random(10, 900)),
		"a file is gone":         func() { os.Remove(filepath.Join(dir, "project/11/file11")) },
		"a large file grows":     grow("project/large", random(11, 1000)),
		"a directory is renamed": func() { os.Rename(filepath.Join(dir, "project/20"), filepath.Join(dir, "project/20x")) },
		"a large file is edited in the middle": func() {
			f, err := os.OpenFile(filepath.Join(dir, "project/large"), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = f.WriteAt([]byte("changed"), 4<<20-3)
			f.Close()
		},
	} {
		change()
		snap := scan(t, dir, ScanOptions{})
		if n := h.receive(t, snap); n > 3*MaxPiece || name == "nothing" && n > 0 {
			t.Errorf("%s: %d bytes were sent", name, n)
		}
		if n := len(snap.Manifest()); n > 64<<10 {
			t.Errorf("%s: a manifest of %d bytes", name, n)
		}
	}
}

func TestScanLeavesOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"env/passwords", "project/main.json", "project/x", "args"} {
		write(t, dir, name, []byte(name))
	}
	if err := os.Chmod(filepath.Join(dir, "project"), 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "project"), 0o755) })
	snap := scan(t, dir, ScanOptions{
		Leave: func(name string, isDir bool) bool { return name == "env" || !isDir && !strings.Contains(name, "/") },
		Later: []string{"project/main.json"},
	})
	var got []string
	m, err := Open(bytes.NewReader(snap.Manifest()))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for e, err := m.Next(); err != io.EOF; e, err = m.Next() {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %v", e.Name, e.Perm))
	}
	// project has to take main.json, which comes later.
	if want := []string{"project -rwxr-xr-x", "project/x -rw-r--r--"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestSendTellsOfChanges: bytes that are not those of the manifest are never
// sent.
func TestSendTellsOfChanges(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(file string) error{
		"other bytes": func(f string) error { return os.WriteFile(f, random(2, 3*MaxPiece), 0o600) },
		"shorter":     func(f string) error { return os.Truncate(f, MaxPiece+1) },
		"gone":        os.Remove,
		"a symlink":   func(f string) error { return errors.Join(os.Remove(f), os.Symlink("/etc/passwd", f)) },
		"a pipe":      func(f string) error { return errors.Join(os.Remove(f), syscall.Mkfifo(f, 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir, "project/f", random(1, 3*MaxPiece))
			snap := scan(t, dir, ScanOptions{})
			if err := change(filepath.Join(dir, "project/f")); err != nil {
				t.Fatal(err)
			}
			n := 0
			err := snap.Send(t.Context(), func(int) bool { return true }, func(b []byte) error { n++; return nil })
			if !errors.Is(err, ErrChanged) {
				t.Errorf("%v after %d pieces", err, n)
			}
		})
	}
}

func TestSendEndsWithContextAndEmit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "f", random(1, 40*MaxPiece))
	snap := scan(t, dir, ScanOptions{})
	all := func(int) bool { return true }
	full := errors.New("full")
	if err := snap.Send(t.Context(), all, func([]byte) error { return full }); !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("why")
	err := snap.Send(ctx, all, func([]byte) error { cancel(why); return nil })
	if !errors.Is(err, why) && !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// entries is a manifest made by hand.
func entries(t testing.TB, pieces []Piece, list ...Entry) []byte {
	t.Helper()
	w, err := newManifestWriter()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if err := w.put(e); err != nil { // as a liar would, without add's checks
			t.Fatal(err)
		}
	}
	m, err := w.finish(pieces)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestHostileManifests: nothing is made outside, and nothing passes for a tree
// that is none.
func TestHostileManifests(t *testing.T) {
	t.Parallel()
	data := []byte("content")
	piece := Piece{sha256.Sum256(data), len(data)}
	one := []Piece{piece}
	h := heap{piece.Hash: data}
	dir := Entry{Name: "d", Kind: Dir, Perm: 0o755}
	link := Entry{Name: "l", Kind: Symlink, Target: "/tmp"}
	f := func(name string, size int64) Entry { return Entry{Name: name, Perm: 0o644, Size: size} }
	for name, m := range map[string][]byte{
		"up":                    entries(t, one, f("../x", 7)),
		"up inside":             entries(t, one, dir, f("d/../../x", 7)),
		"absolute":              entries(t, one, f("/x", 7)),
		"dot":                   entries(t, one, f(".", 7)),
		"empty part":            entries(t, one, dir, f("d//x", 7)),
		"no name":               entries(t, one, f("", 7)),
		"nul":                   entries(t, one, f("a\x00b", 7)),
		"through a symlink":     entries(t, one, link, f("l/x", 7)),
		"in no directory":       entries(t, one, f("e/x", 7)),
		"twice":                 entries(t, one, f("x", 7), f("x", 0)),
		"not in order":          entries(t, one, f("x", 7), f("w", 0)),
		"in a file":             entries(t, one, f("x", 7), f("x/y", 0)),
		"back into a directory": entries(t, one, dir, f("e", 7), f("d/x", 0)),
		"too long a name":       entries(t, one, f(strings.Repeat("n", maxName+1), 7)),
		"a file too long":       entries(t, one, f("x", 8)),
		"a file too short":      entries(t, one, f("x", 6)),
		"pieces for nothing":    entries(t, one),
		"no pieces":             entries(t, nil, f("x", 7)),
		"setuid":                entries(t, one, Entry{Name: "x", Perm: 0o4755, Size: 7}),
		"another kind":          entries(t, one, Entry{Name: "x", Kind: 3, Size: 7}),
		"an empty target":       entries(t, nil, Entry{Name: "x", Kind: Symlink}),
		"a piece of nothing":    entries(t, []Piece{{piece.Hash, 0}}, f("x", 0)),
		"a piece too large":     entries(t, []Piece{{piece.Hash, MaxPiece + 1}}, f("x", MaxPiece+1)),
		"no manifest":           []byte("RVT2"),
		"nothing":               nil,
		"more behind":           append(entries(t, one, f("x", 7)), "more"...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			outer := t.TempDir()
			inner := filepath.Join(outer, "inner")
			if err := os.Mkdir(inner, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := Build(t.Context(), bytes.NewReader(m), inner, h.fetch); !errors.Is(err, ErrMalformed) {
				t.Errorf("got %v", err)
			}
			if around, _ := os.ReadDir(outer); len(around) != 1 {
				t.Errorf("left outside: %v", around)
			}
		})
	}
	// The same entries in order are taken: the checker can say yes.
	good := entries(t, one, dir, f("d/x", 7), link)
	if err := Build(t.Context(), bytes.NewReader(good), t.TempDir(), h.fetch); err != nil {
		t.Error(err)
	}
}

// TestManifestCutShort: no beginning of a manifest is a manifest.
func TestManifestCutShort(t *testing.T) {
	t.Parallel()
	data := random(1, 100)
	m := entries(t, []Piece{{sha256.Sum256(data), 100}}, Entry{Name: "d", Kind: Dir, Perm: 0o700}, Entry{Name: "d/x", Size: 100})
	for n := range m {
		if err := readAll(m[:n]); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d of %d bytes: %v", n, len(m), err)
		}
	}
	if err := readAll(m); err != nil {
		t.Error(err)
	}
}

func readAll(b []byte) error {
	m, err := Open(bytes.NewReader(b))
	if err != nil {
		return err
	}
	defer m.Close()
	for {
		if _, err := m.Next(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func TestPiecesThatLie(t *testing.T) {
	t.Parallel()
	zip, err := newPieceEncoder()
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("text "), 2000)
	good := appendPiece(nil, data, zip)
	bomb := appendPiece(nil, make([]byte, 100<<20), zip)
	p := Piece{sha256.Sum256(data), len(data)}
	for name, c := range map[string]struct {
		wire []byte
		p    Piece
		ok   bool
	}{
		"good":         {good, p, true},
		"another hash": {good, Piece{Hash{1}, len(data)}, false},
		"another size": {good, Piece{p.Hash, len(data) + 1}, false},
		"cut short":    {good[:len(good)-1], p, false},
		"a bomb":       {bomb, Piece{Hash{1}, MaxPiece}, false},
		"no zstd":      {append(good[:4:4], bytes.Repeat([]byte("x"), len(good)-4)...), p, false},
		"nothing":      {nil, p, false},
	} {
		r, err := NewPieceReader(bytes.NewReader(c.wire))
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.Next(c.p)
		if err == nil {
			err = c.p.Check(got)
		}
		if c.ok != (err == nil) || c.ok && !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		r.Close()
	}
}

// TestAnyTree: whatever files there are, they arrive, and the pieces do not
// depend on when one looks.
func TestAnyTree(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		src, dst := filepath.Join(base, fmt.Sprint("s", n)), filepath.Join(base, fmt.Sprint("d", n))
		for _, d := range []string{src, dst} {
			if err := os.Mkdir(d, 0o700); err != nil {
				rt.Fatal(err)
			}
		}
		for range rapid.IntRange(0, 12).Draw(rt, "files") {
			name := rapid.StringMatching(`[ab.\-](/[ab.x]y?){0,2}x`).Draw(rt, "name")
			size := rapid.SampledFrom([]int{0, 1, 999, minPiece, MaxPiece - 1, MaxPiece, MaxPiece + 1}).Draw(rt, "size")
			file := filepath.Join(src, name)
			if os.MkdirAll(filepath.Dir(file), 0o755) == nil {
				_ = os.WriteFile(file, random(uint64(size), size), 0o640)
			}
		}
		snap, h := scan(t, src, ScanOptions{}), heap{}
		h.receive(t, snap)
		if !bytes.Equal(snap.Manifest(), scan(t, src, ScanOptions{}).Manifest()) {
			rt.Fatal("two scans differ")
		}
		if err := Build(t.Context(), bytes.NewReader(snap.Manifest()), dst, h.fetch); err != nil {
			rt.Fatal(err)
		}
		if got, want := describe(t, dst), describe(t, src); got != want {
			rt.Fatalf("got\n%swant\n%s", got, want)
		}
	})
}

func FuzzManifest(f *testing.F) {
	data := []byte("content")
	p := []Piece{{sha256.Sum256(data), len(data)}}
	f.Add(entries(f, p, Entry{Name: "d", Kind: Dir}, Entry{Name: "d/x", Size: 7}, Entry{Name: "l", Kind: Symlink, Target: "d"}))
	f.Add(entries(f, p, Entry{Name: "../x", Size: 7}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Open(bytes.NewReader(b))
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		defer m.Close()
		var total int64
		last := ""
		for {
			e, err := m.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				if !errors.Is(err, ErrMalformed) {
					t.Fatal(err)
				}
				return
			}
			if !filepath.IsLocal(e.Name) || last != "" && !before(last, e.Name) {
				t.Fatalf("%q after %q", e.Name, last)
			}
			last = e.Name
			total += e.Size
		}
		if total != m.Bytes {
			t.Fatalf("files of %d bytes, pieces of %d", total, m.Bytes)
		}
	})
}

func FuzzPiece(f *testing.F) {
	zip, err := newPieceEncoder()
	if err != nil {
		f.Fatal(err)
	}
	data := bytes.Repeat([]byte("text "), 20)
	f.Add(appendPiece(nil, data, zip), len(data))
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		if size < 1 || size > MaxPiece {
			return
		}
		r, err := NewPieceReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		p := Piece{sha256.Sum256(data), size}
		if got, err := r.Next(p); err == nil && len(got) > MaxPiece || err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%d bytes for %v, %v", len(got), p, err)
		}
	})
}

// A directory that has become a link since it was seen is none; the one at the
// top may be one.
func TestReadDirDoesNotFollow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"b", "a"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if entries, err := ReadDir(link, true); err != nil || len(entries) != 2 || entries[0].Name() != "a" {
		t.Errorf("%v, %v", entries, err)
	}
	if entries, err := ReadDir(link, false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, %v", entries, err)
	}
	if entries, err := ReadDir(filepath.Join(dir, "a"), false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, %v", entries, err)
	}
}
