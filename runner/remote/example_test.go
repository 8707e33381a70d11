package remote_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/runner"
	"github.com/ranvier-mesh/ranvier/runner/remote"
)

// Run a playbook on edge7, which hub.example knows the way to. Without Transports
// the links are TCP.
func ExampleRun() {
	dir, transports, stop := exampleMesh()
	defer stop()

	var o remote.Options
	o.PrivateDataDir = dir
	o.Playbook = "test.yml"
	o.ViaReceptor = "edge7"
	o.ReceptorPeer = []string{"hub.example:8888"}
	o.Transports = transports
	o.Process.EventHandler = func(e runner.Event) bool {
		if e.Name == "runner_on_ok" {
			fmt.Println("a host is done")
		}
		return e.Name != "runner_on_start" // false: do not store it
	}
	result, err := remote.Run(context.Background(), o)
	var unreachable *mesh.PeerError
	switch {
	case errors.As(err, &unreachable):
		fmt.Println("nothing was started:", err)
	case err != nil:
		fmt.Println(err)
	default:
		fmt.Println(result.Status, result.RC, "on", result.Nodes[len(result.Nodes)-1])
	}
	// Output:
	// a host is done
	// successful 0 on edge7
}

// A job on another node of the mesh, in the background: its progress is shown
// every now and then, and it is canceled after an hour.
func ExampleAsync() {
	dir, transports, stop := exampleMesh()
	defer stop()

	job := remote.Async(context.Background(), remote.Options{
		Options:      runner.Options{PrivateDataDir: dir, Playbook: "test.yml", Ident: "nightly"},
		ViaReceptor:  "edge7",
		ReceptorPeer: []string{"hub.example:8888"},
		Transports:   transports,
		Process: runner.ProcessOptions{
			EventHandler: func(e runner.Event) bool {
				return e.Name != "verbose" // these are not worth a file
			},
			ArtifactsHandler: func(dir string) { fmt.Println("artifacts of", filepath.Base(dir)) },
		},
	})

	show := time.NewTicker(time.Minute)
	defer show.Stop()
	limit := time.After(time.Hour)
	for running := true; running; {
		select {
		case <-job.Done():
			running = false
		case <-show.C:
			p := job.Status()
			fmt.Printf("%s: task %q, %d events, %d hosts\n", p.Status, p.Task, p.Events, len(p.Hosts))
		case <-limit:
			job.Cancel()
		}
	}
	result, err := job.Wait()
	var noPeer *mesh.PeerError
	switch {
	case errors.As(err, &noPeer):
		fmt.Println("not started:", err)
	case err != nil:
		fmt.Println(err)
	default:
		fmt.Println(result.Status, result.RC, job.Status().Hosts["web1"].OK)
	}
	// Output:
	// artifacts of nightly
	// successful 0 1
}
