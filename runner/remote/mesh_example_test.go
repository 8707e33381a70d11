package remote_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/memlink"
	"github.com/ranvier-mesh/ranvier/worktypes"
	"github.com/ranvier-mesh/ranvier/worktypes/ansiblerunner"
	work "github.com/ranvier-mesh/ranvier/worktypes/remote"
)

// exampleMesh is a mesh in memory whose one node, edge7, takes plays and listens
// on hub.example; and a private data directory. stop ends and removes both.
func exampleMesh() (dir string, transports map[string]link.Transport, stop func()) {
	dir, err := os.MkdirTemp("", "example")
	must(err)
	for name, text := range map[string]string{
		"project/test.yml": "- hosts: all\n  gather_facts: false\n  tasks: [debug: ]\n",
		"inventory/hosts":  "web1 ansible_connection=local\n",
	} {
		file := filepath.Join(dir, name)
		must(os.MkdirAll(filepath.Dir(file), 0o700))
		must(os.WriteFile(file, []byte(text), 0o600))
	}
	runner, err := ansiblerunner.Find("", "edge7")
	must(err)
	types, err := worktypes.NewRegistry(runner)
	must(err)
	jobs, err := worktypes.Open(filepath.Join(dir, "edge7"), types, worktypes.Options{})
	must(err)

	ctx, cancel := context.WithCancel(context.Background())
	transports = map[string]link.Transport{"tcp": &memlink.Network{}}
	node, err := mesh.New(ctx, mesh.Config{ID: "edge7", Epoch: 1, Transports: transports,
		Listeners: []mesh.ListenerConfig{{Address: "tcp://hub.example:8888"}}})
	must(err)
	over := make(chan error)
	go func() { over <- node.Run(ctx) }()
	service, err := node.Listen(work.ServiceName)
	must(err)
	go func() {
		for {
			conn, err := service.Accept()
			if err != nil {
				return
			}
			go work.NewServer(jobs, nil).Serve(ctx, conn, "")
		}
	}()
	return dir, transports, func() {
		cancel()
		<-over
		must(jobs.Close(context.Background()))
		must(os.RemoveAll(dir))
	}
}

func must(err error) {
	if err != nil {
		panic(fmt.Sprint("the mesh of the example: ", err))
	}
}
