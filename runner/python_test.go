package runner_test

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ranvier-mesh/ranvier/runner"
)

// python runs the Python tool and returns what it wrote. It is part of what is
// tested, so that a machine without it fails.
func python(t testing.TB, stdin []byte, args ...string) []byte {
	t.Helper()
	tool, err := exec.LookPath("ansible-runner")
	if err != nil {
		t.Fatal("the Python tool ansible-runner is needed (Debian: python3-ansible-runner, ansible-core): ", err)
	}
	cmd := exec.Command(tool, args...)
	// A home of its own: Ansible leaves files there. One for all, so that two
	// runs have the same environment.
	cmd.Env = append(os.Environ(), "HOME="+home, "ANSIBLE_FORCE_COLOR=1", "LC_ALL=C.UTF-8")
	cmd.Stdin = bytes.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && out.Len() == 0 {
		t.Fatalf("ansible-runner %v: %v\n%s", args, err, errs.Bytes())
	}
	return out.Bytes()
}

var home string // set once by TestMain

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "runner-home")
	if err != nil {
		panic(err)
	}
	home = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// ours is Transmit into memory.
func ours(t testing.TB, o runner.Options) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := runner.Transmit(t.Context(), &out, o); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// privateDataDir makes one from files by name; a name that ends with a slash
// is a directory.
func privateDataDir(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(file, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// tree returns what is below dir: "mode content" by name.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || file == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		var content string
		switch info.Mode().Type() {
		case 0:
			data, rerr := os.ReadFile(file)
			content, err = string(data), rerr
		case fs.ModeSymlink:
			content, err = os.Readlink(file)
		}
		found[file[len(dir)+1:]] = info.Mode().String() + " " + content
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
