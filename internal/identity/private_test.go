package identity

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPrivate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mode      fs.FileMode
		owner, me int
		want      string
	}{
		{0o600, 1000, 1000, ""},
		{0o400, 1000, 1000, ""},
		{0o600, 0, 1000, ""}, // root may read it anyway
		{0o600, 1001, 1000, "key is a secret and belongs to the user 1001, and this program runs as 1000: chown it"},
		{0o600, 1001, 0, "belongs to the user 1001"},
		{0o644, 1000, 1000, "key is a secret and others may read or change it (its mode is 0644): chmod 600 key"},
		{0o620, 0, 0, "its mode is 0620"},
	} {
		err := private("key", c.mode, c.owner, c.me)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// Neither a node nor the CA begins with a key that others can read.
func TestKeysThatOthersRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, err := InitCA(filepath.Join(dir, "ca"), "test", "a", CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Begin(ca, Claims{ID: "a", Role: Router}, filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	for file, load := range map[string]func() error{
		filepath.Join(dir, "a", keyFile):        func() error { _, err := Load(filepath.Join(dir, "a"), nil); return err },
		filepath.Join(dir, "ca", issuerKeyFile): func() error { _, err := OpenCA(filepath.Join(dir, "ca"), nil); return err },
	} {
		if err := load(); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, 0o640); err != nil {
			t.Fatal(err)
		}
		if err := load(); err == nil || !strings.Contains(err.Error(), "chmod 600 "+file) {
			t.Errorf("%s: %v", file, err)
		}
	}
}
