package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
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

func TestOneFsyncServesMany(t *testing.T) {
	t.Parallel()
	j := openTest(t, filepath.Join(t.TempDir(), "journal"))
	before := j.log.next
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() { _ = j.Put(Change{"a", fmt.Sprint(i), []byte("x")}) })
	}
	wg.Wait()
	if n := j.log.next - before; n > 100 {
		t.Errorf("%d commits were made for 200 records put at once", n)
	}
}

// An fsync of a batch has no size to write: the file has zeros where it goes.
func TestRoomIsMadeInAdvance(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal")
	j := openTest(t, path)
	sizes := map[int64]bool{}
	for i := range 200 {
		if err := j.Put(Change{"a", fmt.Sprint(i), make([]byte, 1000)}); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		sizes[fi.Size()] = true
	}
	if len(sizes) > 2 {
		t.Errorf("the file had %d sizes in 200 commits", len(sizes))
	}
}

// Every prefix of the log is what a crash may leave. What was acknowledged before the
// last batch is in it.
func TestCutAtEveryByte(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "journal")
	j := openTest(t, path)
	ends := []int64{j.log.end}
	for i := range 3 {
		if err := j.Put(Change{"a", fmt.Sprint(i), []byte("value")}, Change{"b", fmt.Sprint(i), []byte("other")}); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, j.log.end)
	}
	j.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(dir, "cut")
	for at := ends[0]; at <= ends[3]; at++ {
		for _, zeros := range []int{0, 5000} { // the file's end, or zeros where the bytes did not come
			if err := os.WriteFile(cut, append(bytes.Clone(whole[:at]), make([]byte, zeros)...), 0o600); err != nil {
				t.Fatal(err)
			}
			want := 0
			for want < 3 && at >= ends[want+1] {
				want++
			}
			expectRecords(t, cut, want)
			expectRecords(t, cut, want+1, Change{"a", "next", []byte("x")}) // it can be written to
		}
	}
}

// expectRecords opens a journal, puts, and counts the records of a.
func expectRecords(t *testing.T, path string, want int, put ...Change) {
	t.Helper()
	j, err := Open(path, Options{Buckets: []string{"a", "b"}})
	if err != nil {
		t.Fatalf("%d records: %v", want, err)
	}
	defer j.Close()
	if len(put) > 0 {
		if err := j.Put(put...); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	_ = j.Each("a", func(key string, v []byte, err error) {
		if n++; err != nil {
			t.Errorf("%s: %v", key, err)
		}
	})
	if n != want {
		t.Fatalf("%d records, want %d", n, want)
	}
}

// A batch in the middle that is not whole is damage and not the end: what comes
// behind it was acknowledged.
func TestDamageInTheMiddle(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal")
	j := openTest(t, path)
	first := j.log.end
	for i := range 3 {
		if err := j.Put(Change{"a", fmt.Sprint(i), []byte("a value to be damaged")}); err != nil {
			t.Fatal(err)
		}
	}
	value := j.index["a"]["1"].at
	j.Close()
	whole, _ := os.ReadFile(path)
	write := func(at int64) {
		b := bytes.Clone(whole)
		b[at] ^= 1
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(first + 1)
	if j, err := Open(path, Options{Buckets: []string{"a"}}); !errors.Is(err, ErrDamaged) {
		t.Errorf("a batch's header: %v", err)
		j.Close()
	}
	write(value)
	j = openTest(t, path)
	var bad []string
	if err := j.Each("a", func(key string, _ []byte, err error) {
		if errors.Is(err, ErrDamaged) {
			bad = append(bad, key)
		}
	}); err != nil || len(bad) != 1 || bad[0] != "1" {
		t.Errorf("%v are told as damaged, want 1 (%v)", bad, err)
	}
}

func TestCompaction(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal")
	j := openTest(t, path)
	want := map[string]string{}
	put := func(key string, value []byte) {
		if err := j.Put(Change{"a", key, value}); err != nil {
			t.Fatal(err)
		}
		want[key] = string(value)
		if value == nil {
			delete(want, key)
		}
	}
	check := func() {
		t.Helper()
		got := map[string]string{}
		if err := j.Each("a", func(key string, v []byte, err error) {
			if got[key] = string(v); err != nil {
				t.Errorf("%s: %v", key, err)
			}
		}); err != nil || !maps.Equal(got, want) {
			t.Errorf("%d records, want %d (%v)", len(got), len(want), err)
		}
	}
	for i := range 3000 { // 6 MB, of which 200 KB count
		put(fmt.Sprint(i%100), bytes.Repeat([]byte{byte(i)}, 2000))
		if i%10 == 0 {
			put(fmt.Sprint((i+50)%100), nil)
		}
	}
	check()
	j.Close()
	if fi, err := os.Stat(path); err != nil || fi.Size() > 3<<20 {
		t.Errorf("the log has %d bytes, %v", fi.Size(), err)
	}
	if j.log.f.Name() == path {
		t.Error("it was never written anew")
	}
	j = openTest(t, path)
	check()
}

func TestOldFormatIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal")
	b := binary.NativeEndian.AppendUint32(make([]byte, 16), 0xed0cdaed)
	if err := os.WriteFile(path, append(b, make([]byte, 4096)...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{}); err == nil || errors.Is(err, ErrDamaged) {
		t.Errorf("%v, want an error that is not ErrDamaged: nobody moves it away", err)
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
