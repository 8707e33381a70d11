package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/pipe"
	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/mesh/secure"
	"github.com/ranvier-mesh/ranvier/routing"
)

const (
	// dialTimeout is how long an open may take where the caller's context does not say.
	dialTimeout = 10 * time.Second
	// resumeTimeout bounds one attempt to find another way: it may be a black hole.
	resumeTimeout = 4 * time.Second
)

// Dial opens a stream to a service of a node, any number of hops away. The
// error is a *RefusedError when a node on the way or the target refused,
// ErrClosed when this node is stopped, ctx's, or wraps a *secure.PeerError when the
// node that answered is not to.
func (m *Mesh) Dial(ctx context.Context, to routing.NodeID, service string) (*Conn, error) {
	if service == "" {
		return nil, fmt.Errorf("dial node %s: the service's name is empty", to)
	}
	trail := newTrail(ctx)
	k, path, err := m.connectAround(ctx, wire.Open{To: to, Service: service, Job: trail})
	if err != nil {
		return nil, err
	}
	c, err := m.newConn(k, path, Addr{m.cfg.ID, service}, Addr{to, service}, trail, true)
	if err != nil {
		k.Close()
		return nil, fmt.Errorf("stream to %s: %w", to, err)
	}
	return c, nil
}

// connect opens a carrier and has its other end prove who it is. It returns the
// path with an error too, as far as that is known.
func (m *Mesh) connect(ctx context.Context, open wire.Open) (*secure.Conn, []routing.NodeID, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	o := &opening{open: func(early []byte) (net.Conn, wire.Answer, error) {
		open.Early = early
		return m.open(ctx, open)
	}}
	k, err := secure.Client(ctx, o, m.ends, open.To)
	if err == nil {
		return k, pathOf(o.answer), nil
	}
	o.Close()
	switch path := pathOf(o.answer); {
	case o.err != nil:
		if refused := (*RefusedError)(nil); errors.As(o.err, &refused) {
			path = refused.Path
		}
		return nil, path, o.err
	case errors.Is(err, context.DeadlineExceeded):
		return nil, path, &RefusedError{Code: TimedOut, Node: m.cfg.ID, Path: path, what: "stream to " + string(open.To),
			Reason: fmt.Sprintf("node %s did not say in time who it is", open.To)}
	default:
		return nil, path, fmt.Errorf("stream to %s (via %s): %w", open.To, joinIDs(path, " → "), err)
	}
}

// Hop is a node on a path and the time from here to it and back.
type Hop struct {
	Node routing.NodeID
	RTT  time.Duration
}

// Ping asks a node whether it lives: how long the answer took, and the path,
// this node first. Errors are those of Dial; of a *RefusedError the path is
// returned as far as it is known.
func (m *Mesh) Ping(ctx context.Context, to routing.NodeID) (time.Duration, []Hop, error) {
	start := time.Now()
	carrier, answer, err := m.open(ctx, wire.Open{To: to})
	total := time.Since(start)
	if carrier != nil {
		carrier.Close()
	}
	return total, hopsOf(answer), err
}

// hopsOf turns the times that each node waited for the rest of the way into
// the times from here to each node.
func hopsOf(a wire.Answer) []Hop {
	var hops []Hop
	for _, h := range a.Path {
		rtt := int64(a.Path[0].Micros) - int64(h.Micros)
		hops = append(hops, Hop{h.Node, time.Duration(max(0, rtt)) * time.Microsecond})
	}
	return hops
}

func pathOf(a wire.Answer) []routing.NodeID {
	path := make([]routing.NodeID, len(a.Path))
	for i, h := range a.Path {
		path[i] = h.Node
	}
	return path
}

// open sends an Open from here and turns a refusal into an error.
func (m *Mesh) open(ctx context.Context, open wire.Open) (net.Conn, wire.Answer, error) {
	to := open.To
	if err := to.Validate(); err != nil {
		return nil, wire.Answer{}, err
	}
	m.mu.Lock()
	running := m.running
	m.mu.Unlock()
	if running == nil || running.Err() != nil {
		return nil, wire.Answer{}, ErrClosed
	}
	if err := m.cutOff(); err != nil {
		return nil, wire.Answer{}, err
	}
	if err := m.mayOpen(open); err != nil {
		return nil, wire.Answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	open.From, open.Path, open.Attempts = m.cfg.ID, []routing.NodeID{m.cfg.ID}, wire.MaxAttempts
	var carrier net.Conn
	var answer wire.Answer
	if to == m.cfg.ID {
		near, far := pipe.New(Addr{to, open.Service}, Addr{to, open.Service})
		open.Path = nil
		carrier, answer = m.dialSelf(running, near, far, open)
	} else {
		carrier, answer = m.openVia(ctx, open)
	}
	if answer.Code == wire.CodeOK {
		return carrier, answer, nil
	}
	if carrier != nil {
		carrier.Close()
	}
	if err := context.Cause(ctx); err != nil && answer.Node == m.cfg.ID && ctx.Err() != context.DeadlineExceeded {
		return nil, answer, err // the caller gave up
	}
	return nil, answer, &RefusedError{
		Code: answer.Code, Node: answer.Node, Reason: answer.Reason, Path: pathOf(answer), Known: answer.Known,
		what: "stream to " + string(to),
	}
}
