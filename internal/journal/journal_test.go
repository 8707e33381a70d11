package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openTest(t testing.TB, path string) *Journal {
	t.Helper()
	j, err := Open(path, Options{Buckets: []string{"a", "b"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func TestPutIsThereAfterReopening(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal")
	j := openTest(t, path)
	j.Later(Change{"a", "later", []byte("1")})
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			if err := j.Put(Change{"b", fmt.Sprint(i), []byte{byte(i)}}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := j.Put(Change{"b", "7", nil}); err != nil {
		t.Fatal(err)
	}
	if err := j.Put(Change{"none", "x", []byte("y")}); err == nil {
		t.Error("a bucket that is not there: no error")
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := j.Put(Change{"a", "x", []byte("y")}); !errors.Is(err, ErrClosed) {
		t.Errorf("after close: %v", err)
	}
	j = openTest(t, path)
	if v, err := j.Get("a", "later"); string(v) != "1" || err != nil {
		t.Errorf("later: %q, %v", v, err)
	}
	n := 0
	if err := j.Each("b", func(string, []byte, error) { n++ }); n != 99 || err != nil {
		t.Errorf("%d records, %v", n, err)
	}
}

func pages(j *Journal) int64 {
	stats := j.db.Stats()
	return stats.TxStats.GetWrite()
}

func TestOneFsyncServesMany(t *testing.T) {
	t.Parallel()
	j := openTest(t, filepath.Join(t.TempDir(), "journal"))
	before := pages(j)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() { _ = j.Put(Change{"a", fmt.Sprint(i), []byte("x")}) })
	}
	wg.Wait()
	// A commit writes a handful of pages; 200 of them would write a thousand.
	if n := pages(j) - before; n > 400 {
		t.Errorf("%d pages were written for 200 records put at once", n)
	}
}

func TestDamage(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp("", "journal")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		path := filepath.Join(dir, "journal")
		j, err := Open(path, Options{Buckets: []string{"a"}})
		if err != nil {
			rt.Fatal(err)
		}
		want := map[string][]byte{}
		var all []Change
		for i := range 50 {
			c := Change{"a", fmt.Sprint(i), bytes.Repeat([]byte{byte(i)}, 300)}
			want[c.Key] = c.Value
			all = append(all, c)
		}
		if err := j.Put(all...); err != nil {
			rt.Fatal(err)
		}
		j.Close()
		whole, _ := os.ReadFile(path)
		if rapid.Bool().Draw(rt, "cut") {
			whole = whole[:rapid.IntRange(0, len(whole)-1).Draw(rt, "at")]
		} else {
			at := rapid.IntRange(0, len(whole)-64).Draw(rt, "at")
			copy(whole[at:], rapid.SliceOfN(rapid.Byte(), 1, 64).Draw(rt, "bytes"))
		}
		os.WriteFile(path, whole, 0o600)
		j, err = Open(path, Options{Buckets: []string{"a"}})
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				rt.Fatalf("not ErrDamaged: %v", err)
			}
			return
		}
		defer j.Close()
		// What is given out is what was put, or nothing.
		_ = j.Each("a", func(key string, value []byte, err error) {
			if err == nil && want[key] != nil && !bytes.Equal(value, want[key]) {
				rt.Errorf("%s: %x", key, value)
			}
		})
	})
}

func TestNoSpaceIsTriedOnceMore(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs to mount a small file system")
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skip("cannot mount: ", err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	reserve := filepath.Join(dir, "reserve")
	asked := 0
	j, err := Open(filepath.Join(dir, "journal"), Options{Buckets: []string{"a"}, NoSpace: func() bool {
		asked++
		return os.Remove(reserve) == nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if err := os.WriteFile(reserve, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = os.WriteFile(filepath.Join(dir, "full"), make([]byte, 1<<20), 0o600)
	if err := j.Put(Change{"a", "x", make([]byte, 20<<10)}); err != nil || asked != 1 {
		t.Errorf("%v after %d questions", err, asked)
	}
	if err := j.Put(Change{"a", "y", make([]byte, 100<<10)}); !errors.Is(err, syscall.ENOSPC) || asked != 2 {
		t.Errorf("%v after %d questions, want ENOSPC", err, asked)
	}
	if v, err := j.Get("a", "x"); len(v) != 20<<10 || err != nil {
		t.Errorf("what was put is %d bytes, %v", len(v), err)
	}
}
