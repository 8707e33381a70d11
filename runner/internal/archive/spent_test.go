package archive

import (
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// What has been unpacked of a large archive is given free meanwhile, and that alone.
func TestSpent(t *testing.T) {
	t.Parallel()
	var packed bytes.Buffer
	z := zip.NewWriter(&packed)
	want := map[string][]byte{"a": bytes.Repeat([]byte{1, 2, 3}, aheadSize), "b": []byte("small"), "c": bytes.Repeat([]byte{7}, 2*aheadSize)}
	for _, name := range []string{"a", "b", "c"} {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(want[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	in := packed.Bytes()
	free := bytes.Clone(in)
	var spent int64
	dir := t.TempDir()
	o := UnpackOptions{spent: func(at, n int64) {
		mu.Lock()
		defer mu.Unlock()
		clear(free[at : at+n])
		spent += n
	}}
	if err := Unpack(t.Context(), bytes.NewReader(in), int64(len(in)), dir, o); err != nil {
		t.Fatal(err)
	}
	for name, data := range want {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if kept := bytes.Contains(free, data[:5]); kept != (name == "b") {
			t.Errorf("%s is kept: %v", name, kept)
		}
	}
	if spent != int64(len(want["a"])+len(want["c"])) {
		t.Errorf("%d bytes were given free", spent)
	}
	if err := UnpackStream(t.Context(), bytes.NewReader(in), int64(len(in)), t.TempDir(), UnpackOptions{}); err != nil {
		t.Error(err)
	}
}
