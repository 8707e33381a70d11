package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A data directory that others could write, or exchange, is refused with the reason;
// what is as it should be is taken, and left alone.
func TestDataDirectories(t *testing.T) {
	t.Parallel()
	const sticky = os.ModeSticky | 0o777
	for name, tt := range map[string]struct {
		mode, parent os.FileMode // 0: not there
		owner        int         // of which; 0: the node's
		ofParent     int
		want         string // empty: taken
	}{
		"not there":                 {},
		"private":                   {mode: 0o700, parent: 0o700},
		"readable":                  {mode: 0o755, parent: 0o755},
		"in a place like /tmp":      {mode: 0o700, parent: sticky},
		"written by its group":      {mode: 0o770, want: "may be written by others (its mode is 0770): chmod go-w it"},
		"written by all":            {mode: 0o702, want: "may be written by others (its mode is 0702)"},
		"another's":                 {mode: 0o700, owner: 12345, want: "belongs to the user 12345, and this node runs as "},
		"where everybody may write": {mode: 0o700, parent: 0o777, want: "which everybody may write (its mode is 0777)"},
		"in another's":              {mode: 0o700, parent: 0o755, ofParent: 12345, want: "which belongs to the user 12345, who could put another one in its place"},
	} {
		parent := filepath.Join(t.TempDir(), "parent")
		dir := filepath.Join(parent, "data")
		if tt.mode != 0 {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(dir, tt.mode); err != nil {
				t.Fatal(err)
			}
		}
		if tt.parent != 0 {
			if err := os.Chmod(parent, tt.parent); err != nil {
				t.Fatal(err)
			}
		}
		if tt.owner+tt.ofParent != 0 {
			if os.Geteuid() != 0 {
				continue // only root gives files away
			}
			if err := os.Chown(map[bool]string{true: dir, false: parent}[tt.owner != 0], tt.owner+tt.ofParent, -1); err != nil {
				t.Fatal(err)
			}
		}
		n, err := New(t.Context(), parse(t, "- node: {id: a, datadir: "+dir+"}\n- local-only\n"), Options{})
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			n.close()
			info, err := os.Stat(dir)
			if want := tt.mode; err != nil || want != 0 && info.Mode().Perm() != want || want == 0 && info.Mode().Perm() != 0o700 {
				t.Errorf("%s: %v, %v", name, info, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", name, err)
		}
		if names, _ := os.ReadDir(dir); len(names) > 0 {
			t.Errorf("%s: the node has written there: %v", name, names)
		}
	}
}
