package mesh

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/pipe"
	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/muxlink"
	"github.com/ranvier-mesh/ranvier/mesh/secure"
	"github.com/ranvier-mesh/ranvier/routing"
)

// A stream of yamux that was closed goes on reading until the other end closes
// too: a node that has stopped never does.
func TestNobodyWaitsForAStoppedNode(t *testing.T) {
	self, err := secure.SelfMade("a")
	if err != nil {
		t.Fatal(err)
	}
	open := wire.Open{From: "a", To: "c", Path: []routing.NodeID{"a"}}
	for name, wait := range map[string]func(context.Context, link.Link, net.Conn) error{
		"open": func(ctx context.Context, l link.Link, _ net.Conn) error {
			_, err := (&neighbour{id: "mute", link: l}).open(ctx, open, new(wire.Answer))
			return err
		},
		"handshake of who opened": func(ctx context.Context, _ link.Link, stream net.Conn) error {
			_, err := secure.Client(ctx, &opening{open: func([]byte) (net.Conn, wire.Answer, error) {
				return stream, wire.Answer{}, nil
			}}, self, "c")
			return err
		},
		"handshake of who answered": func(ctx context.Context, _ link.Link, stream net.Conn) error {
			_, err := secure.Server(ctx, &answering{Conn: stream, answer: func([]byte) error { return nil }}, self, "c")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			near, far := pipe.New(Addr{}, Addr{})
			l, err := muxlink.Client(near, nil)
			if err != nil {
				t.Fatal(err)
			}
			mute, err := muxlink.Server(far, nil)
			if err != nil {
				t.Fatal(err)
			}
			link.Known(mute)
			defer mute.Close()
			defer l.Close()
			stream, err := l.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			over := make(chan error, 1)
			go func() { over <- wait(ctx, l, stream) }()
			select {
			case err := <-over:
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
			case <-time.After(10 * time.Second):
				t.Error("it still waits")
			}
		})
	}
}
