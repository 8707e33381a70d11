package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/tcplink"
	"github.com/ranvier-mesh/ranvier/routing"
)

const transferred = 1 << 30

// BenchmarkThroughput sends a GiB over one stream through 0, 1 and 3 relays, and
// as much through a bare splice: yamux over as many loopback connections,
// io.Copy between them, nothing else.
func BenchmarkThroughput(b *testing.B) {
	for _, relays := range []int{0, 1, 3} {
		b.Run(fmt.Sprintf("relays=%d", relays), func(b *testing.B) {
			dial, stop := meshLine(b, relays)
			defer stop()
			refDial, refStop := bareLine(b, relays)
			defer refStop()
			var ours, reference []float64
			for range max(b.N, 5) {
				ours = append(ours, transfer(b, dial))
				reference = append(reference, transfer(b, refDial))
			}
			report(b, fmt.Sprintf("one stream, %d relays", relays), "MB/s", ours, reference)
		})
	}
}

// dialer opens a stream and returns both of its ends.
type dialer func() (near, far net.Conn)

func transfer(b *testing.B, dial dialer) (mbPerSecond float64) {
	near, far := dial()
	start := time.Now()
	go func() {
		defer near.Close()
		buf := make([]byte, 64<<10)
		for sent := 0; sent < transferred; sent += len(buf) {
			if _, err := near.Write(buf); err != nil {
				b.Error(err)
				return
			}
		}
	}()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{far}, make([]byte, 64<<10))
	if err != nil || n != transferred {
		b.Fatalf("%d bytes came, %v", n, err)
	}
	far.Close()
	return transferred / 1e6 / time.Since(start).Seconds()
}

func meshLine(b *testing.B, relays int) (dialer, func()) {
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan error)
	var nodes []*mesh.Mesh
	for i := range relays + 2 {
		cfg := mesh.Config{
			ID: routing.NodeID(fmt.Sprintf("n%d", i)), Epoch: 1,
			Transports: map[string]link.Transport{"tcp": tcplink.Transport{}},
			Listeners:  []mesh.ListenerConfig{{Address: "tcp://127.0.0.1:0"}},
		}
		if i > 0 {
			cfg.Peers = []mesh.PeerConfig{{Address: nodes[i-1].Addrs()[0]}}
		}
		m, err := mesh.New(ctx, cfg)
		if err != nil {
			b.Fatal(err)
		}
		nodes = append(nodes, m)
		go func() { over <- m.Run(ctx) }()
	}
	last := nodes[len(nodes)-1]
	l, err := last.Listen("bench")
	if err != nil {
		b.Fatal(err)
	}
	for {
		if _, _, err := nodes[0].Ping(ctx, last.ID()); err == nil {
			break
		}
	}
	dial := func() (net.Conn, net.Conn) {
		near, err := nodes[0].Dial(ctx, last.ID(), "bench")
		if err != nil {
			b.Fatal(err)
		}
		far, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		return near, far
	}
	return dial, func() {
		stop()
		for range nodes {
			<-over
		}
	}
}

// bareLine is the reference. Its windows are as large as ours.
func bareLine(b *testing.B, relays int) (dialer, func()) {
	var closers []io.Closer
	connect := func() (client, server *yamux.Session) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		near, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		far, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		cfg := yamux.DefaultConfig()
		cfg.MaxStreamWindowSize = 1 << 20
		cfg.EnableKeepAlive = false
		cfg.LogOutput = io.Discard
		client, err = yamux.Client(near, cfg)
		if err != nil {
			b.Fatal(err)
		}
		if server, err = yamux.Server(far, cfg); err != nil {
			b.Fatal(err)
		}
		closers = append(closers, client, server)
		return client, server
	}
	first, server := connect()
	for range relays {
		client, next := connect()
		go splice(server, client)
		server = next
	}
	dial := func() (net.Conn, net.Conn) {
		near, err := first.Open()
		if err != nil {
			b.Fatal(err)
		}
		near.Write([]byte{0})
		far, err := server.Accept()
		if err != nil {
			b.Fatal(err)
		}
		io.ReadFull(far, make([]byte, 1))
		return near, far
	}
	return dial, func() {
		for _, c := range closers {
			c.Close()
		}
	}
}

func splice(from, to *yamux.Session) {
	for {
		in, err := from.Accept()
		if err != nil {
			return
		}
		out, err := to.Open()
		if err != nil {
			return
		}
		go func() {
			io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, make([]byte, 32<<10))
			out.Close()
		}()
		go func() {
			io.CopyBuffer(struct{ io.Writer }{in}, struct{ io.Reader }{out}, make([]byte, 32<<10))
			in.Close()
		}()
	}
}
