package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestSalvage damages each byte in turn: what is read of the file then are values
// that were put, and of all records but one.
func TestSalvage(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal")
	j := openTest(t, path)
	for i := range 4 {
		if err := j.Put(Change{"a", fmt.Sprint("one", i), []byte("1")}, Change{"a", fmt.Sprint("two", i), []byte("2")}); err != nil {
			t.Fatal(err)
		}
	}
	end := j.log.end
	j.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := range end {
		whole[at] ^= 4
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		whole[at] ^= 4
		good := map[string]bool{}
		if err := Salvage(path, func(bucket, key string, value []byte, err error) {
			want := map[string]string{"one": "1", "two": "2"}[key[:min(3, len(key))]]
			if err == nil && (bucket != "a" || string(value) != want) {
				t.Errorf("byte %d: %s/%s is %q", at, bucket, key, value)
			}
			if err != nil && !errors.Is(err, ErrDamaged) {
				t.Errorf("byte %d: %v", at, err)
			}
			good[key] = err == nil
		}); err != nil {
			t.Fatal(err)
		}
		missing := 0
		for i := range 4 {
			for _, name := range []string{"one", "two"} {
				if !good[fmt.Sprint(name, i)] {
					missing++
				}
			}
		}
		if missing > 2 { // the records of a batch whose header is damaged
			t.Errorf("byte %d: %d records are missing", at, missing)
		}
	}
}
