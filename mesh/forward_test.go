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

// lingering is a stream as some links have it: where it was closed, a read goes
// on until the other end closes too. A node that has stopped never does.
type lingering struct{ net.Conn }

func (lingering) Close() error { return nil }

// lingeringLink opens such streams.
type lingeringLink struct{ link.Link }

func (l lingeringLink) Open(ctx context.Context) (net.Conn, error) {
	s, err := l.Link.Open(ctx)
	return lingering{s}, err
}

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
			below, err := muxlink.Client(near, nil)
			if err != nil {
				t.Fatal(err)
			}
			l := lingeringLink{below}
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
