package runner_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/ranvier-mesh/ranvier/runner"
)

// A job goes into a stream, for a worker on another machine to read.
func ExampleTransmit() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	playbook := filepath.Join(dir, "project", "site.yml")
	if err := errors.Join(os.Mkdir(filepath.Dir(playbook), 0o700),
		os.WriteFile(playbook, []byte("- hosts: all\n  tasks: [ping: ]\n"), 0o600)); err != nil {
		fmt.Println(err)
		return
	}

	var stream bytes.Buffer // or the stdin of `ssh host ansible-runner worker`
	err = runner.Transmit(context.Background(), &stream, runner.Options{
		PrivateDataDir: dir,
		Ident:          "nightly",
		Playbook:       "site.yml",
		Inventory:      "web1,web2",
		ExtraVars:      map[string]any{"release": "1.2"},
		Warn:           func(message string) { fmt.Println("warning:", message) },
	})
	fmt.Println(err)
	fmt.Println(stream.String()[:66])
	fmt.Print(stream.String()[stream.Len()-14:])
	// Output:
	// <nil>
	// {"kwargs": {"ident": "nightly", "binary": null, "playbook": "site.
	// {"eof": true}
}

// What a worker wrote becomes output, events, artifacts and an exit code.
func ExampleProcess() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	fromWorker := strings.NewReader(`{"status": "running", "runner_ident": "nightly"}
{"uuid": "c653b115", "counter": 1, "stdout": "ok: [web1]", "event": "runner_on_ok", "event_data": {"host": "web1"}}
{"uuid": "c653b116", "counter": 2, "stdout": "ok: [web2]", "event": "runner_on_ok", "event_data": {"host": "web2"}}
{"status": "successful", "runner_ident": "nightly"}
{"eof": true}
`)

	result, err := runner.Process(context.Background(), fromWorker, runner.ProcessOptions{
		PrivateDataDir: dir,
		Ident:          "nightly",
		Output:         os.Stdout,
		StatusHandler:  func(s runner.Status) { fmt.Println("now", s.Status) },
	})
	var lost *runner.LinkError
	switch {
	case errors.As(err, &lost):
		fmt.Println("the worker may still be running:", err)
	case err != nil:
		fmt.Println(err)
	default:
		fmt.Println(result.Status, result.RC, result.Events)
	}
	saved, _ := filepath.Glob(filepath.Join(result.ArtifactDir, "job_events", "*.json"))
	fmt.Println(len(saved), "events saved")
	// Output:
	// now running
	// ok: [web1]
	// ok: [web2]
	// now successful
	// successful 0 2
	// 2 events saved
}

// A handler of one's own sees each event, and decides which are kept.
func ExampleProcess_eventHandler() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	fromWorker := io.Reader(strings.NewReader(`{"uuid": "a", "counter": 1, "stdout": "", "event": "runner_on_start", "event_data": {"host": "web1"}}
{"uuid": "b", "counter": 2, "stdout": "fatal: [web1]", "event": "runner_on_failed", "event_data": {"host": "web1", "res": {"msg": "no"}}}
{"status": "failed"}
{"eof": true}
`))

	result, err := runner.Process(context.Background(), fromWorker, runner.ProcessOptions{
		PrivateDataDir: dir,
		EventHandler: func(e runner.Event) bool {
			if e.Name != "runner_on_failed" {
				return false
			}
			var failed struct {
				Data struct {
					Host string
					Res  struct{ Msg string }
				} `json:"event_data"`
			}
			if err := e.Decode(&failed); err != nil {
				fmt.Println(err)
			}
			fmt.Println(failed.Data.Host, "failed:", failed.Data.Res.Msg)
			return true
		},
	})
	fmt.Println(result.RC, err)
	// Output:
	// web1 failed: no
	// 1 <nil>
}
