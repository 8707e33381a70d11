package remote_test

import (
	"context"
	"errors"
	"fmt"
	"os"

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
