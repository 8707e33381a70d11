package archive_test

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ranvier-mesh/ranvier/runner/internal/archive"
)

// entry is one of a hand-made archive.
type entry struct {
	name    string
	mode    uint32 // as stat(2) has it
	content string
}

const (
	file, link, dirMode = 0o100644, 0o120777, 0o040755
)

func craft(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	zw := zip.NewWriter(&buf)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, CreatorVersion: 3 << 8, ExternalAttrs: e.mode << 16, Method: zip.Store}
		w, err := zw.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestHostileArchivesStayInside(t *testing.T) {
	t.Parallel()
	for name, entries := range map[string][]entry{
		"dot dot":               {{"../out", file, "x"}},
		"dot dot inside":        {{"a/../../out", file, "x"}},
		"dot dot at the end":    {{"a/..", link, "x"}},
		"absolute":              {{"/tmp/ranvier-out", file, "x"}},
		"through a symlink":     {{"l", link, ".."}, {"l/out", file, "x"}},
		"through an absolute":   {{"l", link, "/tmp"}, {"l/out", file, "x"}},
		"through an inner link": {{"d/", dirMode, ""}, {"l", link, "d"}, {"l/out", file, "x"}},
		"deeper":                {{"d/", dirMode, ""}, {"d/l", link, "../.."}, {"d/l/out", file, "x"}},
		"link then file":        {{"l", link, "../out"}, {"l", file, "x"}},
		"dir then link":         {{"d/", dirMode, ""}, {"d", link, ".."}},
		"twice":                 {{"a", file, "1"}, {"./a", file, "2"}},
		"device":                {{"null", 0o020666, ""}},
		"block device":          {{"sda", 0o060666, ""}},
		"pipe":                  {{"p", 0o010666, ""}},
		"socket":                {{"s", 0o140666, ""}},
		"empty name":            {{"", file, "x"}},
		"zero byte":             {{"a\x00b", file, "x"}},
		"long target":           {{"l", link, strings.Repeat("x", 1<<17)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			outer := t.TempDir()
			dst := mkdir(t, filepath.Join(outer, "in"))
			err := unpack(craft(t, entries...), dst, archive.UnpackOptions{})
			if !errors.Is(err, archive.ErrUnsafe) {
				t.Errorf("error %v, want ErrUnsafe", err)
			}
			last := entries[len(entries)-1].name
			if err != nil && !strings.Contains(err.Error(), fmt.Sprintf("%q", last)) {
				t.Errorf("error %q does not name %q", err, last)
			}
			if tree := readTree(t, outer); tree["out"].Content != "" || len(tree["in/out"].Content) > 0 {
				t.Errorf("something was written: %v", tree)
			}
		})
	}
}

func TestUnpackReplacesWhatIsInTheWay(t *testing.T) {
	t.Parallel()
	outer := t.TempDir()
	dst := mkdir(t, filepath.Join(outer, "in"))
	victim := write(t, filepath.Join(outer, "victim"), "untouched")
	for _, name := range []string{"file", "link"} {
		if err := os.Symlink(victim, filepath.Join(dst, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(victim, filepath.Join(dst, "hard")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dst, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	kept := mkdir(t, filepath.Join(dst, "dir"))
	write(t, filepath.Join(kept, "kept"), "k")
	err := unpack(craft(t, entry{"file", file, "new"}, entry{"hard", file, "new"}, entry{"link", link, "elsewhere"},
		entry{"fifo", file, "new"}, entry{"dir/", 0o040777, ""}), dst, archive.UnpackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tree := readTree(t, outer)
	for name, want := range map[string]string{"victim": "untouched", "in/file": "new", "in/hard": "new",
		"in/link": "elsewhere", "in/fifo": "new", "in/dir/kept": "k"} {
		if tree[name].Content != want {
			t.Errorf("%s holds %q, want %q", name, tree[name].Content, want)
		}
	}
	if tree["in/dir"].Mode.Perm() != 0o700 {
		t.Errorf("the directory that was there got mode %v", tree["in/dir"].Mode)
	}

	err = unpack(craft(t, entry{"dir", link, "victim"}), dst, archive.UnpackOptions{})
	if !errors.Is(err, syscall.ENOTEMPTY) {
		t.Errorf("a symlink in the place of a full directory: error %v", err)
	}
	if err := os.Symlink(outer, filepath.Join(dst, "planted")); err != nil {
		t.Fatal(err)
	}
	err = unpack(craft(t, entry{"planted/out", file, "x"}), dst, archive.UnpackOptions{})
	if !errors.Is(err, archive.ErrUnsafe) {
		t.Errorf("through a symlink that was there: error %v", err)
	}
}

func TestUnpackDropsSetuid(t *testing.T) {
	t.Parallel()
	dst := t.TempDir()
	if err := unpack(craft(t, entry{"su", 0o106755, "x"}, entry{"none", 0, "x"}), dst, archive.UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	tree := readTree(t, dst)
	if got := tree["su"].Mode; got != 0o755 {
		t.Errorf("a setuid file got mode %v", got)
	}
	if got := tree["none"].Mode; got != 0o600 {
		t.Errorf("a file without a mode got %v", got)
	}
}

func TestUnpackKeepsToItsLimit(t *testing.T) {
	t.Parallel()
	src := t.TempDir()
	bomb, err := os.Create(filepath.Join(src, "bomb"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(bomb.Truncate(10<<20), bomb.Close()); err != nil {
		t.Fatal(err)
	}
	data := pack(t, src, archive.PackOptions{})
	for _, lie := range []bool{false, true} {
		bad := data
		if lie { // the size in the directory says less than there is
			at := bytes.LastIndex(data, []byte("PK\x01\x02"))
			bad = bytes.Clone(data)
			copy(bad[at+24:], []byte{1, 0, 0, 0})
		}
		dst := t.TempDir()
		err := unpack(bad, dst, archive.UnpackOptions{MaxBytes: 1 << 20})
		if !lie && !errors.Is(err, archive.ErrTooLarge) || err == nil {
			t.Errorf("lie %v: error %v", lie, err)
		}
		if n := readTree(t, dst)["bomb"]; len(n.Content) > 1<<20+1 {
			t.Errorf("lie %v: %d bytes were written", lie, len(n.Content))
		}
	}
}

func TestUnpackTellsABrokenArchive(t *testing.T) {
	t.Parallel()
	good := craft(t, entry{"a", file, "content"})
	flipped := bytes.Clone(good)
	flipped[bytes.Index(good, []byte("content"))] ^= 1
	if err := unpack(flipped, t.TempDir(), archive.UnpackOptions{}); !errors.Is(err, zip.ErrChecksum) {
		t.Errorf("a changed byte: error %v", err)
	}
	for n := range good {
		if err := unpack(good[:n], t.TempDir(), archive.UnpackOptions{}); err == nil {
			t.Errorf("%d of %d bytes were unpacked", n, len(good))
		}
	}
	err := archive.UnpackStream(context.Background(), bytes.NewReader(good), int64(len(good)+1), t.TempDir(), archive.UnpackOptions{})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a short stream: error %v", err)
	}
}
