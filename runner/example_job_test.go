package runner_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ranvier-mesh/ranvier/runner"
)

// A monitor counts what a job does while it runs. Here it looks at each task as
// it begins; another goroutine might as well look twice a second.
func ExampleMonitor() {
	fromWorker := strings.NewReader(`{"status": "running"}
{"uuid": "a", "counter": 1, "event": "playbook_on_play_start", "event_data": {"name": "web"}}
{"uuid": "b", "counter": 2, "event": "playbook_on_task_start", "event_data": {"name": "install"}}
{"uuid": "c", "counter": 3, "event": "runner_on_ok", "event_data": {"host": "web1", "res": {"changed": true}}}
{"uuid": "d", "counter": 4, "event": "runner_on_failed", "event_data": {"host": "web2", "res": {"changed": false}}}
{"uuid": "e", "counter": 5, "event": "playbook_on_task_start", "event_data": {"name": "restart"}}
{"uuid": "f", "counter": 6, "event": "runner_on_unreachable", "event_data": {"host": "web1"}}
{"status": "failed"}
{"eof": true}
`)
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	var monitor runner.Monitor
	_, err = runner.Process(context.Background(), fromWorker, monitor.Watch(runner.ProcessOptions{
		PrivateDataDir: dir,
		EventHandler: func(e runner.Event) bool {
			if p := monitor.Progress(); e.Name == "playbook_on_task_start" {
				fmt.Printf("%s: %s, %s; %d hosts so far\n", p.Status, p.Play, p.Task, len(p.Hosts))
			}
			return true
		},
	}))
	end := monitor.Progress()
	fmt.Println(end.Status, end.Events, err)
	fmt.Printf("web1 %+v\n", end.Hosts["web1"])
	// Output:
	// running: web, install; 0 hosts so far
	// running: web, restart; 2 hosts so far
	// failed 6 <nil>
	// web1 {OK:1 Changed:1 Failed:0 Unreachable:1 Skipped:0 Rescued:0 Ignored:0}
}

// A job in the background can be waited for, looked at, and canceled. What runs
// is the caller's: here a worker's stream that never ends by itself.
func ExampleBackground() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	fromWorker, worker := io.Pipe()
	running := make(chan struct{})
	options := runner.ProcessOptions{
		PrivateDataDir: dir,
		StatusHandler: func(s runner.Status) {
			if s.Status == "running" {
				close(running)
			}
		},
	}

	job := runner.Background(context.Background(), options,
		func(ctx context.Context, o runner.ProcessOptions) (runner.Result, error) {
			defer context.AfterFunc(ctx, func() { worker.CloseWithError(context.Cause(ctx)) })()
			return runner.Process(ctx, fromWorker, o)
		})
	io.WriteString(worker, "{\"status\": \"running\"}\n")
	<-running
	fmt.Println("status:", job.Status().Status)
	job.Cancel()
	<-job.Done()
	result, err := job.Wait()
	fmt.Println(result.RC, errors.Is(err, context.Canceled))
	// Output:
	// status: running
	// 1 true
}

// One transmitter feeds several workers: the directory is read and packed once.
// Each worker's results go into a directory of its own. The workers are
// in this process here; behind a pipe, ssh or a mesh it is the same.
func Example_severalWorkers() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	project := filepath.Join(dir, "job", "project")
	err = errors.Join(os.MkdirAll(project, 0o700), os.WriteFile(filepath.Join(project, "site.yml"), []byte(
		"- hosts: localhost\n  connection: local\n  gather_facts: false\n  tasks: [command: 'true']\n"), 0o600))
	if err != nil {
		fmt.Println(err)
		return
	}

	const workers = 2
	inputs := make([]io.Writer, workers)
	ends := make([]string, workers)
	var running sync.WaitGroup
	for i := range workers {
		job, toWorker := io.Pipe()
		fromWorker, results := io.Pipe()
		inputs[i] = toWorker
		running.Go(func() {
			results.CloseWithError(runner.Work(context.Background(), job, results, runner.WorkOptions{}))
		})
		running.Go(func() {
			result, err := runner.Process(context.Background(), fromWorker, runner.ProcessOptions{
				ArtifactDir: filepath.Join(dir, fmt.Sprint("results-", i))})
			ends[i] = fmt.Sprint(result.Status, " ", result.RC, " ", err)
		})
	}
	err = runner.Transmit(context.Background(), io.MultiWriter(inputs...), runner.Options{
		PrivateDataDir: filepath.Join(dir, "job"), Playbook: "site.yml"})
	for _, in := range inputs {
		in.(*io.PipeWriter).CloseWithError(err) // nil is the end of the stream
	}
	running.Wait()
	fmt.Println(err, ends)
	// Output:
	// <nil> [successful 0 <nil> successful 0 <nil>]
}

// A job of this machine in the background: it is looked at, and its end waited for.
func ExampleAsync() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	job := runner.Async(context.Background(), runner.RunOptions{
		Options: runner.Options{PrivateDataDir: dir, Module: "command", ModuleArgs: "echo hello", HostPattern: "localhost",
			Inventory: "localhost ansible_connection=local ansible_python_interpreter=/usr/bin/python3"},
		Process: runner.ProcessOptions{StatusHandler: func(s runner.Status) { fmt.Println("now", s.Status) }},
	})
	select {
	case <-job.Done():
	case <-time.After(time.Minute): // enough of it
		job.Cancel()
	}
	result, err := job.Wait()
	fmt.Println(result.RC, err, job.Status().Hosts["localhost"].Changed, "changed")
	// Output:
	// now starting
	// now running
	// now successful
	// 0 <nil> 1 changed
}

// A job that runs in a sandbox, which does not see what is hidden from it.
func ExampleOptions_processIsolation() {
	if exec.Command("bwrap", "--dev-bind", "/", "/", "true").Run() != nil {
		fmt.Println("successful 0 secret: false") // bubblewrap may not run here, as in many containers
		return
	}
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	hidden := filepath.Join(dir, "hidden")
	err = errors.Join(os.MkdirAll(filepath.Join(hidden, "secret"), 0o700), os.Mkdir(filepath.Join(dir, "job"), 0o700))
	if err != nil {
		fmt.Println(err)
		return
	}

	var output strings.Builder
	result, err := runner.Run(context.Background(), runner.RunOptions{
		Options: runner.Options{
			PrivateDataDir: filepath.Join(dir, "job"), Module: "command", ModuleArgs: "ls -a " + hidden, HostPattern: "localhost",
			Inventory:                  "localhost ansible_connection=local ansible_python_interpreter=/usr/bin/python3",
			ProcessIsolation:           true,
			ProcessIsolationExecutable: "bwrap", // or podman, with ContainerImage
			ProcessIsolationHidePaths:  []string{hidden},
		},
		Process: runner.ProcessOptions{Output: &output},
	})
	if err != nil || result.RC != 0 {
		fmt.Println(err, output.String())
	}
	fmt.Println(result.Status, result.RC, "secret:", strings.Contains(output.String(), "secret"))
	// Output:
	// successful 0 secret: false
}
