package runner_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ranvier-mesh/ranvier/runner"
)

// A worker passes over what it does not know, takes the last kwargs, and unpacks
// one zip on top of the other (docs/runner.md §1.1).
func TestWhatAWorkerTakes(t *testing.T) {
	t.Parallel()
	const file = 0o100644
	sent := `{"kwargs": {"ident": "first"}}` + "\n" + `{"news": [1]}` + "\n" +
		onStream(zipOf(t, [3]any{"args", file, "sh -c 'cat one two'"}, [3]any{"one", file, "old"}, [3]any{"two", file, "2"})) +
		`{"kwargs": {"ident": "last"}}` + "\n" + onStream(zipOf(t, [3]any{"one", file, "1"})) + `{"eof": true}` + "\n"
	d := work(t, t.Context(), strings.NewReader(sent), runner.WorkOptions{})
	if d.err != nil || d.result.RC != 0 || d.result.Ident != "last" || d.output != "12\n" {
		t.Errorf("%+v, %v: %q", d.result, d.err, d.output)
	}
}

// The option to keep the artifacts of so many runs holds here and at a worker.
func TestRotationOfRuns(t *testing.T) {
	t.Parallel()
	dir := privateDataDir(t, map[string]string{"args": "true"})
	for i := range 4 {
		o := runner.Options{PrivateDataDir: dir, RotateArtifacts: 2, Ident: fmt.Sprint("run", i), OnlyTransmitKwargs: true}
		var err error
		if i%2 == 0 {
			_, err = runner.Run(t.Context(), runner.RunOptions{Options: o})
		} else {
			err = runner.Work(t.Context(), strings.NewReader(string(ours(t, o))), io.Discard, runner.WorkOptions{PrivateDataDir: dir})
		}
		if err != nil {
			t.Fatal(err)
		}
		left, err := os.ReadDir(filepath.Join(dir, "artifacts"))
		if err != nil || len(left) != min(i+1, 2) {
			t.Errorf("after run %d: %v, %v", i, left, err)
		}
	}
}
