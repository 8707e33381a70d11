package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/control"
	"github.com/ranvier-mesh/ranvier/internal/metrics"
	"github.com/ranvier-mesh/ranvier/mesh"
)

// requests counts what was wanted of units.
type requests struct {
	mu sync.Mutex
	n  map[metrics.Request]uint64
}

func (r *requests) count(action string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n == nil {
		r.n = map[metrics.Request]uint64{}
	}
	r.n[metrics.Request{Action: action, OK: err == nil}]++
}

func (r *requests) counts() map[metrics.Request]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[metrics.Request]uint64{{Action: "submit", OK: true}: 0, {Action: "submit"}: 0}
	for k, n := range r.n {
		all[k] = n
	}
	return all
}

// openMetrics listens where the file's item metrics says.
func (n *Node) openMetrics(ctx context.Context) (err error) {
	m := n.cfg.Metrics
	key := "listen"
	switch {
	case m.Listen != "":
		n.metrics, err = new(net.ListenConfig).Listen(ctx, "tcp", m.Listen)
	case m.Filename != "":
		key = "filename"
		n.metrics, err = control.ListenUnix(m.Filename, m.Permissions)
	default:
		return nil
	}
	if err != nil {
		return m.Pos.Errorf(key, "%w", err)
	}
	n.log.Info("metrics", "address", n.metrics.Addr())
	return nil
}

// serveMetrics answers until ctx ends.
func (n *Node) serveMetrics(ctx context.Context) error {
	if n.metrics == nil {
		return nil
	}
	s := &http.Server{
		Handler:     metrics.Handler(n.snapshot, n.healthy),
		ReadTimeout: 5 * time.Second, WriteTimeout: time.Minute, IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10,
	}
	defer context.AfterFunc(ctx, func() { s.Close() })()
	if err := s.Serve(n.metrics); !errors.Is(err, http.ErrServerClosed) {
		return n.cfg.Metrics.Pos.Errorf("", "%w", err)
	}
	return nil
}

// healthy returns why the node should have no work, or none more.
func (n *Node) healthy() error {
	if n.leaving.Load() {
		return errors.New("the node is about to stop")
	}
	if err := n.work.Stats().Journal.Failed; err != nil {
		return fmt.Errorf("what was written last is not on the disk: %w", err)
	}
	return nil
}

func (n *Node) snapshot() metrics.Snapshot {
	m, w, refused := n.mesh.Status(), n.work.Stats(), n.refused.status()
	s := metrics.Snapshot{
		Version: n.version, Down: len(m.Down), Known: len(m.Nodes), Requests: n.requests.counts(),
		Units: map[string]int{}, Commits: w.Journal.Commits, Keeper: w.Keeper,
		Refused: map[string]uint64{"work": refused.Work, "services": refused.Services, "commands": refused.Commands, "units": refused.Units,
			"streams": m.Limited.Streams, "adverts": m.Limited.Adverts},
	}
	for _, l := range m.Links {
		s.Streams += l.Streams
		if l.Role == mesh.Ephemeral {
			s.Ephemeral++
			continue
		}
		s.Links = append(s.Links, metrics.Link{Node: string(l.Node), Since: l.Since, Received: l.Received, Sent: l.Sent})
	}
	for _, info := range m.Nodes {
		if info.Reachable {
			s.Reachable++
		}
	}
	for state, count := range w.Units {
		s.Units[state.String()] = count
	}
	return s
}
