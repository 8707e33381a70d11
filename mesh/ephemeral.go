package mesh

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/ranvier-mesh/ranvier/routing"
)

// Attachment is a short-lived node: it opens streams through its peers, and
// the mesh is never told of it.
type Attachment struct {
	*Mesh
	stop context.CancelFunc
	over chan error
}

// Attach starts a node in the role Ephemeral and waits until one of
// cfg.Peers takes it. An empty cfg.ID gets one of its own: below that of cfg.Self,
// or EphemeralID. The
// error is that of New or of Mesh.Attached. Call Close in the end.
func Attach(ctx context.Context, cfg Config) (*Attachment, error) {
	cfg.Role = Ephemeral
	switch {
	case cfg.ID != "":
	case cfg.Self != nil:
		cfg.ID = routing.NodeID(fmt.Sprintf("%s/%s", cfg.Self.ID, ulid.Make()))
	default:
		cfg.ID = EphemeralID()
	}
	m, err := New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	a := &Attachment{Mesh: m, stop: stop, over: make(chan error, 1)}
	go func() { a.over <- m.Run(running) }()
	if err := m.Attached(ctx); err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

// Close leaves the mesh: what was written to streams gets a second to leave.
// It is called once.
func (a *Attachment) Close() error {
	a.stop()
	return <-a.over
}

// EphemeralID makes an id that no other node has: the host's name, for who
// reads the other nodes' logs, and a ULID.
func EphemeralID() routing.NodeID {
	host, err := os.Hostname()
	if err != nil || routing.NodeID(host).Validate() != nil || len(host) > 64 {
		host = "ephemeral"
	}
	host, _, _ = strings.Cut(host, ".")
	return routing.NodeID(fmt.Sprintf("%s/%s", host, ulid.Make()))
}
