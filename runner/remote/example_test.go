package remote_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/runner"
	"github.com/ranvier-mesh/ranvier/runner/remote"
)

// Run a playbook on node1, which hub.example knows the way to.
func ExampleRun() {
	var o remote.Options
	o.PrivateDataDir = "demo"
	o.Playbook = "test.yml"
	o.ViaReceptor = "node1"
	o.ReceptorPeer = []string{"hub.example:8888"}
	o.Process.Output = os.Stdout
	o.Process.EventHandler = func(e runner.Event) bool {
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
		fmt.Println(result.Status, result.RC, result.ArtifactDir, "via", result.Nodes)
	}
}

// A job on another node of the mesh, in the background: its progress is shown
// every now and then, and it is canceled after an hour.
func ExampleAsync() {
	job := remote.Async(context.Background(), remote.Options{
		Options:      runner.Options{PrivateDataDir: "demo", Playbook: "test.yml"},
		ViaReceptor:  "edge7",
		ReceptorPeer: []string{"a.example:8888"},
		Process: runner.ProcessOptions{
			Output: os.Stdout,
			EventHandler: func(e runner.Event) bool {
				return e.Name != "verbose" // these are not worth a file
			},
			ArtifactsHandler: func(dir string) { fmt.Println("artifacts in", dir) },
		},
	})

	show := time.NewTicker(10 * time.Second)
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
		fmt.Println(result.Status, result.RC)
	}
}
