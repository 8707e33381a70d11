// Package e2e tests the program as its users have it: real `ranvier` processes
// on loopback, the real ansible-core, and the real Python ansible-runner on the
// node that does the work. Nothing waits by the clock: tests go on when a log
// line, a line of output or the end of a process tells them to.
//
// A job that shall stay in its middle reads from a gate, a named pipe that the
// test opens when it wants the play to go on.
package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// patience is how long anything may take that should happen at once. It
	// is generous: machines that build and test are busy.
	patience = 60 * time.Second
	// markName is the environment variable by which a test knows its
	// processes, those of its jobs too.
	markName = "RANVIER_E2E"
	// buildDir names the environment variable with the directory to build in.
	buildDir = "RANVIER_E2E_BUILD"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	for _, tool := range []string{"ansible-playbook", "ansible-runner"} {
		if _, err := exec.LookPath(tool); err != nil {
			fmt.Fprintf(os.Stderr, "e2e: %v: `make setup` installs it\n", err)
			return 1
		}
	}
	dir, err := os.MkdirTemp("", "ranvier-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	os.Setenv(buildDir, dir)
	os.Setenv("XDG_STATE_HOME", filepath.Join(dir, "state")) // of this user, for these tests
	return m.Run()
}

// build builds the program once.
var build = sync.OnceValues(func() (string, error) {
	root := filepath.Join("..", "..")
	if err := touchSources(root); err != nil {
		return "", err
	}
	bin := filepath.Join(os.Getenv(buildDir), "ranvier")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "./cmd/ranvier")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return bin, nil
})

// touchSources looks at every source file of the program, so that `go test` does
// not take a cached verdict for the verdict on a program that has changed: it
// does not see what a `go build` in a test reads.
func touchSources(root string) error {
	return filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "tests" || d.Name() == "bin" || d.Name() == "demo"):
			return fs.SkipDir
		case filepath.Ext(name) == ".go" && !strings.HasSuffix(name, "_test.go"), d.Name() == "go.mod":
			_, err = os.Stat(name)
		}
		return err
	})
}

// program returns the path of the program.
func program(t *testing.T) string {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}
