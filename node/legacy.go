package node

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/config"
	"github.com/ranvier-mesh/ranvier/internal/control"
	"github.com/ranvier-mesh/ranvier/worktypes"
	"github.com/ranvier-mesh/ranvier/worktypes/remote"
)

// How long a Receptor node may take to answer: what this node asks for itself, and
// what it passes on, where a cancel takes Receptor ten seconds.
const (
	legacyTime     = 5 * time.Second
	legacyUnitTime = time.Minute
)

// legacy is a Receptor node on this host, whose mesh is being moved over
// (docs/moving-from-receptor.md section 3): what is meant for nodes that only it
// knows goes to its control socket. It is for who comes to this host's sockets: Receptor
// asks nobody there who he is. It is safe for use by many goroutines.
type legacy struct {
	socket string
	own    string // this node's id
	log    *slog.Logger
	silent atomic.Bool // it did not answer the last time
}

// newLegacy returns nil where the file has no legacy-control.
func newLegacy(cfg *config.Config, log *slog.Logger) *legacy {
	if cfg.LegacyControl.Filename == "" {
		return nil
	}
	return &legacy{socket: cfg.LegacyControl.Filename, own: string(cfg.Node.ID), log: log}
}

// dial connects to Receptor.
func (l *legacy) dial(ctx context.Context) (*control.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, legacyTime)
	defer cancel()
	c, err := control.Dial(ctx, l.socket)
	if err != nil {
		if !l.silent.Swap(true) {
			l.log.Warn("Receptor does not answer: its part of the mesh is not seen (legacy-control)", "err", err)
		}
		return nil, fmt.Errorf("legacy-control: Receptor does not answer: %w", err)
	}
	if l.silent.Swap(false) {
		l.log.Info("Receptor answers again", "socket", l.socket)
	}
	return c, nil
}

// call asks for one line of JSON. An ERROR line is the error, as Receptor has it.
func (l *legacy) call(ctx context.Context, bound time.Duration, request map[string]any, reply any) error {
	c, err := l.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	return asReceptorSays(c.Call(ctx, request, reply))
}

// begin asks for what has a line and raw bytes after it.
func (l *legacy) begin(ctx context.Context, request map[string]any) (string, control.Stream, error) {
	c, err := l.dial(ctx)
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, legacyUnitTime)
	defer cancel()
	line, stream, err := c.Begin(ctx, request)
	if err != nil {
		c.Close()
		return "", nil, asReceptorSays(err)
	}
	return line, stream, nil
}

// asReceptorSays leaves an ERROR line as it was: clients look for its words.
func asReceptorSays(err error) error {
	if said := (*control.ServerError)(nil); errors.As(err, &said) {
		return errors.New(said.Text)
	}
	return err
}

func (l *legacy) status(ctx context.Context, fields ...string) (s control.Status, err error) {
	err = l.call(ctx, legacyTime, map[string]any{"command": "status", "requested_fields": fields}, &s)
	return s, err
}

// knows tells whether Receptor has seen the node, whose routes it drops when it is
// away, but not its advertisements.
func (l *legacy) knows(ctx context.Context, node string) (bool, error) {
	s, err := l.status(ctx, "NodeID", "RoutingTable", "Advertisements")
	if err != nil {
		return false, err
	}
	_, routed := s.RoutingTable[node]
	return routed || s.NodeID == node || slices.ContainsFunc(s.Advertisements, func(a control.Advertisement) bool { return a.NodeID == node }), nil
}

// legacyNode tells whether a node is Receptor's: this mesh does not know it, and
// Receptor does. So a site that is moved over is found here as soon as it is.
func (n *Node) legacyNode(ctx context.Context, node string) (bool, error) {
	if n.legacy == nil || node == string(n.cfg.Node.ID) || strings.EqualFold(node, "localhost") {
		return false, nil
	}
	for _, info := range n.mesh.Status().Nodes {
		if string(info.ID) == node {
			return false, nil
		}
	}
	known, err := n.legacy.knows(ctx, node)
	if err != nil {
		return false, fmt.Errorf("node %s is not of this mesh, and whether it is Receptor's cannot be known: %w", node, err)
	}
	return known, nil
}

// backend is what the control socket's commands do.
func (n *Node) backend() control.Backend {
	if n.legacy == nil {
		return backend{n}
	}
	return bothMeshes{backend{n}}
}

// bothMeshes is a backend that also looks into Receptor's mesh. It connects to
// nothing there: who may, Receptor does not ask.
type bothMeshes struct{ backend }

// Ping implements control.Backend.
func (b bothMeshes) Ping(ctx context.Context, target string) (r control.PingResult, err error) {
	if there, err := b.n.legacyNode(ctx, target); err != nil || !there {
		return b.backend.Ping(ctx, target) // its error says more
	}
	c, err := b.n.legacy.dial(ctx)
	if err != nil {
		return r, err
	}
	defer c.Close()
	r, err = c.Ping(ctx, target)
	return r, asReceptorSays(err)
}

// Traceroute implements control.Backend. The Receptor node is the hop after this one.
func (b bothMeshes) Traceroute(ctx context.Context, target string) ([]control.TraceHop, error) {
	if there, err := b.n.legacyNode(ctx, target); err != nil || !there {
		return b.backend.Traceroute(ctx, target)
	}
	c, err := b.n.legacy.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	hops, err := c.Traceroute(ctx, target)
	if err != nil {
		return nil, asReceptorSays(err)
	}
	here, err := b.backend.Traceroute(ctx, string(b.n.cfg.Node.ID))
	return append(here, hops...), err
}

// Status implements control.Backend: what Receptor knows and this mesh does not
// is added.
func (b bothMeshes) Status(ctx context.Context, want control.Fields) (control.Status, error) {
	s, err := b.backend.Status(ctx, want)
	fields := slices.DeleteFunc([]string{"Connections", "RoutingTable", "Advertisements", "KnownConnectionCosts"},
		func(f string) bool { return !want.Has(f) })
	if err != nil || len(fields) == 0 {
		return s, err
	}
	theirs, err := b.n.legacy.status(ctx, append(fields, "NodeID")...)
	if err != nil {
		return s, nil // dial has told of it
	}
	merge(&s, theirs)
	return s, nil
}

// merge adds another mesh to a status. What both know is as this mesh has it.
func merge(s *control.Status, theirs control.Status) {
	ours := map[string]bool{s.NodeID: true}
	for _, n := range s.Nodes {
		ours[n.ID] = true
	}
	for to, hop := range theirs.RoutingTable {
		if !ours[to] {
			s.RoutingTable[to] = hop
		}
	}
	for _, ad := range theirs.Advertisements {
		if !ours[ad.NodeID] {
			s.Advertisements = append(s.Advertisements, ad)
		}
	}
	for from, costs := range theirs.KnownConnectionCosts {
		if s.KnownConnectionCosts[from] == nil {
			s.KnownConnectionCosts[from] = map[string]float64{}
		}
		for to, cost := range costs {
			if _, known := s.KnownConnectionCosts[from][to]; !known {
				s.KnownConnectionCosts[from][to] = cost
			}
		}
	}
	for _, c := range theirs.Connections {
		if theirs.NodeID == s.NodeID && !slices.ContainsFunc(s.Connections, func(o control.Connection) bool { return o.NodeID == c.NodeID }) {
			s.Connections = append(s.Connections, c)
		}
	}
}

// elsewhere does a submit for a node that only Receptor knows; false: it is for
// this mesh.
func (w workRequest) elsewhere(ctx context.Context) (bool, error) {
	if w.n.legacy == nil || w.peer != "" {
		return false, nil
	}
	w.req.Name("node", "worktype")
	node, err := w.req.Need("node")
	if err != nil {
		return false, err
	}
	there, err := w.n.legacyNode(ctx, node)
	if err != nil || !there {
		return false, err
	}
	return true, w.legacySubmit(ctx)
}

// legacySubmit passes a submit on, with its standard input.
func (w workRequest) legacySubmit(ctx context.Context) error {
	params, err := w.req.Others("signwork")
	if err != nil {
		return err
	}
	sign, err := w.req.Flag("signwork")
	if err != nil {
		return err
	}
	request := map[string]any{}
	for key, value := range params {
		request[key] = value
	}
	if sign {
		request["signwork"] = "true"
	}
	if w.req.Rest != "" {
		request["params"] = w.req.Rest
	}
	request["command"], request["subcommand"] = "work", "submit"
	kind, _ := w.req.String("worktype")
	line, stream, err := w.n.legacy.begin(ctx, request)
	if err != nil {
		w.record(remote.Event{Type: kind, Err: err})
		return err
	}
	defer stream.Close()
	defer context.AfterFunc(ctx, func() { stream.Close() })()
	id, _, ok := strings.Cut(strings.TrimPrefix(line, "Work unit created with ID "), ".")
	if !ok || strings.HasPrefix(line, id) {
		return fmt.Errorf("legacy-control: Receptor's reply to work submit is not understood: %.60q", line)
	}
	if err := w.s.Say(line); err != nil {
		w.legacyForget(ctx, id)
		return err
	}
	hash, size := sha256.New(), int64(0)
	size, err = io.Copy(io.MultiWriter(stream, hash), struct{ io.Reader }{w.s})
	asked := remote.Event{Unit: id, Type: kind, Payload: &worktypes.PayloadRef{Size: size, SHA256: [sha256.Size]byte(hash.Sum(nil))}}
	if err != nil || w.s.Gone() {
		asked.Err = errors.Join(err, errGone)
		w.record(asked)
		w.legacyForget(ctx, id) // before the connection ends: Receptor takes that for the end of the input
		return errors.Join(err, control.ErrClose)
	}
	w.record(asked)
	if err := stream.CloseWrite(); err != nil {
		return fmt.Errorf("legacy-control: %w", err)
	}
	if _, err := io.Copy(w.s, struct{ io.Reader }{stream}); err != nil {
		return fmt.Errorf("legacy-control: Receptor's reply to the input of unit %s: %w", id, err)
	}
	return control.ErrClose
}

// legacyForget ends a unit whose submitter died in the middle of its input.
func (w workRequest) legacyForget(ctx context.Context, id string) {
	for _, sub := range []string{"cancel", "release"} {
		var reply json.RawMessage
		err := w.n.legacy.call(ctx, legacyUnitTime, map[string]any{"command": "work", "subcommand": sub, "unitid": id}, &reply)
		if err != nil {
			w.n.log.Warn("a unit at Receptor whose submitter is gone could not be ended", "unit", id, "command", sub, "err", err)
		}
	}
}

// mayBeLegacy tells whether an id that is not known here is one that Receptor could
// have. What is no such id never reaches it.
func (w workRequest) mayBeLegacy(id string) bool {
	return w.n.legacy != nil && w.peer == "" && len(id) <= 64 && !strings.ContainsFunc(id, func(r rune) bool {
		return r > 'z' || r < '0' || r > '9' && r < 'A' || r > 'Z' && r < 'a'
	})
}

// legacyUnit passes a command for one of Receptor's units on.
func (w workRequest) legacyUnit(ctx context.Context, sub, id string) error {
	request := map[string]any{"command": "work", "subcommand": sub, "unitid": id}
	if sub == "results" {
		return w.legacyResults(ctx, request)
	}
	var reply json.RawMessage
	err := w.n.legacy.call(ctx, legacyUnitTime, request, &reply)
	if sub != "status" && sub != "list" {
		w.audit(id, err)
	}
	if err != nil {
		return err
	}
	return w.s.Reply(reply)
}

func (w workRequest) legacyResults(ctx context.Context, request map[string]any) error {
	from, err := w.req.Int("startpos")
	if err != nil {
		return err
	}
	if from > 0 {
		request["startpos"] = from
	}
	line, stream, err := w.n.legacy.begin(ctx, request)
	unit, _ := request["unitid"].(string)
	w.audit(unit, err)
	if err != nil {
		return err
	}
	defer stream.Close()
	defer context.AfterFunc(ctx, func() { stream.Close() })()
	if err := w.s.Say(line); err != nil {
		return err
	}
	if _, err := io.Copy(w.s, struct{ io.Reader }{stream}); err != nil {
		w.n.log.Debug("work results ended early", "request", request, "err", err)
	}
	return control.ErrClose
}

// legacyUnits are Receptor's units for a list; none where it does not answer, or
// where somebody asks who may see his own only.
func (w workRequest) legacyUnits(ctx context.Context) map[string]any {
	all := map[string]any{}
	if w.n.legacy == nil || w.peer != "" {
		return all
	}
	var theirs map[string]json.RawMessage
	if err := w.n.legacy.call(ctx, legacyUnitTime, map[string]any{"command": "work", "subcommand": "list"}, &theirs); err != nil {
		w.n.log.Debug("Receptor's units are not listed", "err", err)
	}
	for id, status := range theirs {
		all[id] = status
	}
	return all
}
