package runner_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fsnotify/fsnotify"

	"github.com/ranvier-mesh/ranvier/runner"
)

// TestEventsAppearWhole: whoever watches the directory sees no file of an event
// that is still being written.
func TestEventsAppearWhole(t *testing.T) {
	dir := t.TempDir()
	events := filepath.Join(dir, "job_events")
	if err := os.Mkdir(events, 0o700); err != nil {
		t.Fatal(err)
	}
	watcher, err := fsnotify.NewBufferedWatcher(1000)
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close()
	if err := watcher.Add(events); err != nil {
		t.Fatal(err)
	}
	in := event(1, "x") + event(2, strings.Repeat("y", 1<<20)) + event(3, "z") + status("successful") + end
	if _, err := runner.Process(t.Context(), strings.NewReader(in), runner.ProcessOptions{ArtifactDir: dir, PrivateDataDir: dir}); err != nil {
		t.Fatal(err)
	}
	for appeared := 0; appeared < 3; {
		select {
		case e := <-watcher.Events:
			switch {
			case !strings.HasSuffix(e.Name, ".json"):
			case e.Has(fsnotify.Write):
				t.Fatalf("%s was written under its own name", filepath.Base(e.Name))
			case e.Has(fsnotify.Create):
				appeared++
			}
		case err := <-watcher.Errors:
			t.Fatal(err)
		case <-t.Context().Done():
			t.Fatalf("%d of 3 files appeared", appeared)
		}
	}
}
