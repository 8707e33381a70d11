package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// beRanvier makes the test binary the program itself, so that tests can run it
// under any name.
const beRanvier = "RANVIER_TEST_BE_RANVIER"

// setGrace is workersGrace in the program that the test binary then is.
const setGrace = "RANVIER_TEST_GRACE"

var testHome string // set once by TestMain

func TestMain(m *testing.M) {
	if os.Getenv(beRanvier) != "" {
		if grace, err := time.ParseDuration(os.Getenv(setGrace)); err == nil {
			workersGrace = grace
		}
		os.Exit(execute(os.Args))
	}
	dir, err := os.MkdirTemp("", "ranvier-home")
	if err != nil {
		panic(err)
	}
	testHome = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// ended is how a program ended.
type ended struct {
	code        int
	out, errors string
}

// tool is a program to run and its environment beside a plain one.
type tool struct {
	path string
	env  []string
}

// named is this program under a name.
func named(t *testing.T, name string, env ...string) tool {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	return tool{link, append(env, beRanvier+"=1")}
}

// python is the real one.
func python(t *testing.T, env ...string) tool {
	t.Helper()
	path, err := exec.LookPath("/usr/bin/" + runnerName)
	if err != nil {
		t.Fatal("the Python tool is needed (Debian: python3-ansible-runner): ", err)
	}
	return tool{path, env}
}

func (tl tool) command(t *testing.T, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), tl.path, args...)
	cmd.Env = append([]string{"PATH=/usr/bin:/bin", "HOME=" + testHome, "LC_ALL=C.UTF-8", "TMPDIR=" + os.TempDir()}, tl.env...)
	return cmd
}

func (tl tool) run(t *testing.T, stdin string, args ...string) ended {
	t.Helper()
	cmd := tl.command(t, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errors bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errors
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return ended{cmd.ProcessState.ExitCode(), out.String(), errors.String()}
}

// privateDataDir makes one from files by name.
func privateDataDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
