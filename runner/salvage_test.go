package runner

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const twoEvents = `{"status": "starting", "runner_ident": "i", "command": [], "env": {}, "cwd": "/"}
{"uuid": "u1", "counter": 1, "stdout": "", "start_line": 0, "end_line": 0, "event": "playbook_on_start"}
{"uuid": "u2", "counter": 2, "stdout": "\r\nPLAY [all]", "start_line": 0, "end_line": 2, "event": "playbook_on_play_start"}
`

func TestWhatCameBeforeAFaultIsKept(t *testing.T) {
	dir := t.TempDir()
	result, err := Process(t.Context(), strings.NewReader(twoEvents), ProcessOptions{PrivateDataDir: dir, Ident: "i"})
	if !errors.Is(err, io.ErrUnexpectedEOF) || result.Status != "error" {
		t.Fatalf("result %+v, %v", result, err)
	}
	for name, want := range map[string]string{"stdout": "\r\nPLAY [all]\n", "status": "error"} {
		got, err := os.ReadFile(filepath.Join(result.ArtifactDir, name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(result.ArtifactDir, partialStdout)); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", partialStdout, err)
	}
}

func TestNothingIsSalvagedWhereNothingBroke(t *testing.T) {
	dir := t.TempDir()
	in := twoEvents + `{"status": "successful", "runner_ident": "i"}` + "\n" + `{"eof": true}` + "\n"
	result, err := Process(t.Context(), strings.NewReader(in), ProcessOptions{PrivateDataDir: dir, Ident: "i"})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"stdout", "status", partialStdout} {
		if _, err := os.Lstat(filepath.Join(result.ArtifactDir, name)); !os.IsNotExist(err) {
			t.Errorf("%s is there: %v", name, err)
		}
	}
}
