package mesh_test

import (
	"context"
	"fmt"
	"io"

	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/memlink"
)

// Two nodes on an in-memory transport; over TCP the transport is
// tcplink.Transport{} and the addresses are tcp://host:port.
func Example() {
	transports := map[string]link.Transport{"mem": &memlink.Network{}}
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan error)
	start := func(cfg mesh.Config) *mesh.Mesh {
		cfg.Epoch, cfg.Transports = 1, transports
		m, err := mesh.New(ctx, cfg)
		if err != nil {
			panic(err)
		}
		go func() { over <- m.Run(ctx) }()
		return m
	}
	hub := start(mesh.Config{ID: "hub", Listeners: []mesh.ListenerConfig{{Address: "mem://hub"}}})
	greetings, err := hub.Listen("greetings")
	if err != nil {
		panic(err)
	}
	go func() {
		conn, err := greetings.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "hello from %v", greetings.Addr())
	}()

	// A short-lived node: nobody is told of it, and it may open streams at once.
	user, err := mesh.Attach(ctx, mesh.Config{Transports: transports, Peers: []mesh.PeerConfig{{Address: "mem://hub"}}})
	if err != nil {
		panic(err)
	}
	conn, err := user.Dial(ctx, "hub", "greetings")
	if err != nil {
		panic(err)
	}
	text, err := io.ReadAll(conn)
	fmt.Printf("%s, %v\n", text, err)
	conn.Close()

	user.Close()
	stop()
	<-over
	// Output: hello from hub:greetings, <nil>
}
