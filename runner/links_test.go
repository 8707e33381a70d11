package runner_test

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ranvier-mesh/ranvier/runner"
)

// A worker writes what comes of a job below its own directory, whatever links the
// sender has put there.
func TestNothingIsWrittenThroughLinksThatWereSent(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"artifacts", "artifacts/id1", "artifacts/id1/stdout", "artifacts/id1/stderr", "artifacts/id1/rc",
		"artifacts/id1/status", "artifacts/id1/command", "artifacts/id1/events", "artifacts/id1/job_events", "artifacts/id1/callback",
		"artifacts/id1/tmp", "artifacts/id1/fact_cache", "elsewhere"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			outside := filepath.Join(t.TempDir(), "outside")
			precious := map[string]string{"tmp/x": "", "events": "", "callback/x": "", "job_events/x": "", "id1/events": ""}
			for file := range precious {
				path := filepath.Join(outside, file)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("mine"), 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			before := tree(t, outside)
			kwargs := `{"kwargs": {"binary": "/bin/echo", "cmdline": "done", "ident": "id1"`
			if name == "elsewhere" {
				kwargs += `, "artifact_dir": "elsewhere"`
			}
			sent := kwargs + "}}\n" + onStream(zipOf(t, [3]any{name, 0o120777, outside})) + "{\"eof\": true}\n"
			at := filepath.Join(t.TempDir(), "at")
			d := work(t, t.Context(), strings.NewReader(sent), runner.WorkOptions{PrivateDataDir: at})
			if d.err != nil || d.last().Status != "successful" || d.result.RC != 0 || !strings.Contains(d.output, "done") {
				t.Errorf("%v; %+v; %q", d.err, d.last(), d.output)
			}
			if after := tree(t, outside); !maps.Equal(after, before) {
				t.Errorf("outside was %v and is %v", before, after)
			}
		})
	}
}

// A job may put something else in the place of what is written at its end: a
// play in a container sees no more of the host than this.
func TestNothingIsWrittenThroughLinksOfTheJob(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"rc":        `ln -s "$OUT/f" "$ART/rc"`,
		"pipe":      `mkfifo "$ART/rc"`,
		"directory": `mv "$ART" "$ART.away" && ln -s "$OUT" "$ART"`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			outside := t.TempDir()
			for _, file := range []string{"f", "events", "tmp"} {
				if err := os.WriteFile(filepath.Join(outside, file), []byte("mine"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			d := workDir(t, map[string]string{"project/x": "", "args": `sh -c 'ART=$AWX_ISOLATED_DATA_DIR; OUT=` + outside + `; ` + script + `'`}, runner.Options{Ident: "id1"})
			if name == "directory" {
				if d.err == nil || !strings.Contains(d.err.Error(), "another directory") {
					t.Errorf("%v", d.err)
				}
			} else if d.err != nil || d.result.RC != 0 || d.last().Status != "successful" {
				t.Errorf("%v; %+v; %v", d.err, d.last(), d.perr)
			}
			if got := tree(t, outside); len(got) != 3 || got["f"] != "-rw------- mine" || got["events"] != "-rw------- mine" {
				t.Errorf("outside: %v", got)
			}
		})
	}
}

// A worker that was processed without an ident may leave a link of the next
// run's name in artifacts/. Where artifacts/ itself leads is its owner's affair.
func TestARunsArtifactsAreNoLink(t *testing.T) {
	t.Parallel()
	dir, outside := privateDataDir(t, map[string]string{"inventory/hosts": local, "project/x": ""}), t.TempDir()
	planted := status("successful") + onStream(zipOf(t, [3]any{"id2", 0o120777, outside})) + "{\"eof\": true}\n"
	if _, err := runner.Process(t.Context(), strings.NewReader(planted), runner.ProcessOptions{PrivateDataDir: dir}); err != nil {
		t.Fatal(err)
	}
	said := event(1, "x") + status("successful") + onStream(zipOf(t, [3]any{"rc", 0o100600, "0"})) + "{\"eof\": true}\n"
	var artifacts *runner.ArtifactsError
	_, err := runner.Process(t.Context(), strings.NewReader(said), runner.ProcessOptions{PrivateDataDir: dir, Ident: "id2"})
	if !errors.As(err, &artifacts) || !strings.Contains(err.Error(), "is a link") {
		t.Errorf("process: %v", err)
	}
	_, err = runner.Run(t.Context(), runner.RunOptions{Options: runner.Options{PrivateDataDir: dir, Ident: "id2", Binary: "/bin/true", Playbook: "x"}})
	if !errors.As(err, &artifacts) || !strings.Contains(err.Error(), "is a link") {
		t.Errorf("run: %v", err)
	}
	if got := tree(t, outside); len(got) != 0 {
		t.Errorf("outside: %v", got)
	}
	own := filepath.Join(t.TempDir(), "own")
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, "artifacts")), os.Mkdir(own, 0o700), os.Symlink(own, filepath.Join(dir, "artifacts"))); err != nil {
		t.Fatal(err)
	}
	r, err := runner.Run(t.Context(), runner.RunOptions{Options: runner.Options{PrivateDataDir: dir, Ident: "id2", Binary: "/bin/true", Playbook: "x"}})
	if err != nil || r.RC != 0 {
		t.Errorf("one's own link: %v, %+v", err, r)
	}
	if got := tree(t, own); got["id2/rc"] != "-rw------- 0" {
		t.Errorf("one's own link: %v", got)
	}
}

// Whatever a faulty stream has put in the way, what was kept by the way goes.
func TestNothingOfWhatIsSalvagedStays(t *testing.T) {
	t.Parallel()
	for name, said := range map[string]string{
		"stdout is a link":      event(1, "x") + onStream(zipOf(t, [3]any{"stdout", 0o120777, "/outside/x"}, [3]any{"rc", 0o120777, "/outside/rc"})),
		"stdout is a directory": event(1, "x") + onStream(zipOf(t, [3]any{"stdout/x", 0o100600, "x"}, [3]any{"../x", 0o100600, ""})),
		"job_events is a link":  event(1, "x") + onStream(zipOf(t, [3]any{"job_events", 0o120777, "/outside"})),
		"status is a link":      event(1, "x") + onStream(zipOf(t, [3]any{"status", 0o120777, "job_events"}, [3]any{"../x", 0o100600, ""})),
		"events after the zip":  event(1, "x") + onStream(zipOf(t, [3]any{"rc", 0o100600, "0"})) + event(2, "y"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if r, err := runner.Process(t.Context(), strings.NewReader(said), runner.ProcessOptions{PrivateDataDir: dir}); err == nil || r.RC == 0 {
				t.Errorf("%v, %+v", err, r)
			}
			for file := range tree(t, dir) {
				if strings.Contains(file, "partial") {
					t.Errorf("%s stays", file)
				}
			}
		})
	}
}

// The private data directory itself may be a link, as to the latest of many.
func TestPrivateDataDirIsALink(t *testing.T) {
	t.Parallel()
	dir := privateDataDir(t, map[string]string{"args": "sh -c 'echo done'"})
	link := filepath.Join(t.TempDir(), "current")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	result, err := runner.Run(t.Context(), runner.RunOptions{Options: runner.Options{PrivateDataDir: link, Ident: "id1"}})
	if err != nil || result.RC != 0 {
		t.Errorf("run: %+v, %v", result, err)
	}
	sent := ours(t, runner.Options{PrivateDataDir: link, Ident: "id2"})
	if d := work(t, t.Context(), bytes.NewReader(sent), runner.WorkOptions{PrivateDataDir: link}); d.err != nil || d.result.RC != 0 {
		t.Errorf("worker: %+v, %v", d.result, d.err)
	}
}
