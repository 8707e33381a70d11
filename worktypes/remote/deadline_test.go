package remote_test

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/worktypes"
	"github.com/ranvier-mesh/ranvier/worktypes/remote"
)

// A client that says nothing, and one that does not take its refusal, are let go.
func TestClientsThatHang(t *testing.T) {
	for name, say := range map[string][]byte{
		"nothing":                     nil,
		"half a header":               {0, 0},
		"half a request":              {0, 0, 0, 9, 0x40, 0xa1},
		"a frame of no bytes":         {0, 0, 0, 0, 0},
		"a frame of 4 GiB":            {0xff, 0xff, 0xff, 0xff, 0x40},
		"a type that is none":         {0, 0, 0, 1, 0x99},
		"a request that is no CBOR":   {0, 0, 0, 2, 0x40, 0xff},
		"a unit that is not there":    frame(0x41, map[int]any{1: worktypes.NewID()}),
		"a submit of an unknown type": frame(0x40, map[int]any{1: worktypes.NewID(), 2: "nope"}),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				m, err := worktypes.Open(dir, &worktypes.Registry{}, worktypes.Options{})
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close(context.Background())
				client, conn := net.Pipe()
				defer client.Close()
				start := time.Now()
				go func() { _, _ = client.Write(say) }()
				remote.NewServer(m, nil).Serve(context.Background(), conn, "x")
				if took := time.Since(start); took > 20*time.Second {
					t.Errorf("it was served for %v", took)
				}
			})
		})
	}
}

// identified is a connection that knows its peer.
type identified struct{ net.Conn }

func (identified) PeerID() string { return "alice" }

// The owner is whom the connection belongs to, whatever the request says.
func TestOwnerIsTheConnections(t *testing.T) {
	t.Parallel()
	n := newNode(t, "pipe")
	client, conn := net.Pipe()
	defer client.Close()
	n.serving.Go(func() { remote.NewServer(n.m, nil).Serve(context.Background(), identified{conn}, "") })
	id := worktypes.NewID()
	if _, err := client.Write(frame(0x40, map[int]any{1: id, 2: "fixed", 99: "owner: mallory"})); err != nil {
		t.Fatal(err)
	}
	if typ, _, err := wire.ReadFrame(client, nil, wire.MaxFrame); err != nil || typ != 0x50 {
		t.Fatalf("%v, %v", typ, err)
	}
	if st, err := n.m.Status(id); err != nil || st.Owner != "alice" {
		t.Errorf("%+v, %v", st, err)
	}
}
