package archive_test

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/ranvier-mesh/ranvier/runner/internal/archive"
)

// FuzzUnpack throws bytes at Unpack. Whatever they are, it returns, and
// nothing appears beside the target or is written through a symlink in it.
func FuzzUnpack(f *testing.F) {
	f.Add(craft(f, entry{"d/", dirMode, ""}, entry{"d/f", file, "x"}, entry{"l", link, "../victim"}))
	f.Add(craft(f, entry{"l", link, "../victim"}, entry{"l/x", file, "x"}, entry{"../y", file, "x"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		outer := t.TempDir()
		dst := mkdir(t, filepath.Join(outer, "in"))
		victim := write(t, filepath.Join(outer, "victim"), "v")
		_ = archive.Unpack(context.Background(), bytes.NewReader(data), int64(len(data)), dst,
			archive.UnpackOptions{MaxBytes: 1 << 20})
		if got, err := os.ReadFile(victim); err != nil || string(got) != "v" {
			t.Fatalf("the file beside the target is %q, %v", got, err)
		}
		if entries, err := os.ReadDir(outer); err != nil || len(entries) != 2 {
			t.Fatalf("beside the target is %v, %v", entries, err)
		}
		_ = filepath.WalkDir(dst, func(file string, d fs.DirEntry, _ error) error {
			if d != nil && d.IsDir() {
				return os.Chmod(file, 0o700)
			}
			return nil
		})
	})
}
