package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ranvier-mesh/ranvier/internal/control"
	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/routing"
)

// backend is what the control socket's commands do on this node.
type backend struct{ n *Node }

// Ping implements control.Backend.
func (b backend) Ping(ctx context.Context, target string) (control.PingResult, error) {
	took, _, err := b.n.mesh.Ping(ctx, routing.NodeID(target))
	if err != nil {
		return control.PingResult{}, err
	}
	return control.PingResult{From: string(routing.NodeID(target)), Time: took}, nil
}

// Traceroute implements control.Backend. Where the way ends early, the node
// that refused is the last hop and says why.
func (b backend) Traceroute(ctx context.Context, target string) ([]control.TraceHop, error) {
	_, hops, err := b.n.mesh.Ping(ctx, routing.NodeID(target))
	return TraceHops(hops, err)
}

// TraceHops turns the hops of a ping into a traceroute's; an error becomes
// part of the last hop where there is one.
func TraceHops(hops []mesh.Hop, err error) ([]control.TraceHop, error) {
	trace := make([]control.TraceHop, len(hops))
	for i, h := range hops {
		trace[i] = control.TraceHop{From: string(h.Node), Time: h.RTT}
	}
	if err != nil && len(trace) == 0 {
		return nil, err
	}
	if err != nil {
		text := err.Error()
		if refused := (*mesh.RefusedError)(nil); errors.As(err, &refused) {
			text = refused.Why()
		}
		trace[len(trace)-1].Error = text
	}
	return trace, nil
}

// Connect implements control.Backend.
func (b backend) Connect(ctx context.Context, node, service, client string) (control.Stream, error) {
	secure, err := b.n.tlsClient(client, node)
	if err != nil {
		return nil, err
	}
	conn, err := b.n.mesh.Dial(ctx, routing.NodeID(node), service)
	if err != nil {
		return nil, err // not conn: a nil *Conn is no nil Stream
	}
	if secure == nil {
		return conn, nil
	}
	inner := tls.Client(conn, secure)
	if err := inner.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("TLS to the service %s of node %s: %w", service, node, err)
	}
	return inner, nil
}

// Status implements control.Backend.
func (b backend) Status(_ context.Context, want control.Fields) (control.Status, error) {
	s := b.n.mesh.Status()
	out := control.Status{
		Version:        b.n.version,
		SystemCPUCount: runtime.NumCPU(),
		NodeID:         string(s.ID),
		Software:       "ranvier " + b.n.version,
		Insecure:       b.n.self == nil,

		Connections:          connections(s.Links),
		RoutingTable:         map[string]string{},
		KnownConnectionCosts: knownCosts(s.Nodes),
		Links:                linkStatus(s),
		Open:                 b.n.policy.Open(),
		Refused:              b.n.refused.status(),
		Suspects:             suspects(s),
	}
	out.Refused.Streams, out.Refused.Adverts = s.Limited.Streams, s.Limited.Adverts
	if want.Has("SystemMemoryMiB") {
		out.SystemMemoryMiB = memoryMiB()
	}
	for _, info := range s.Nodes {
		if info.Reachable && info.ID != s.ID && len(info.NextHops) > 0 {
			out.RoutingTable[string(info.ID)] = string(info.NextHops[0])
		}
		out.Nodes = append(out.Nodes, nodeStatus(info))
		out.Advertisements = append(out.Advertisements, advertisements(info)...)
	}
	return out, nil
}

func connections(links []mesh.LinkStatus) []control.Connection {
	var all []control.Connection
	for _, l := range links {
		if l.Role != mesh.Ephemeral {
			all = append(all, control.Connection{NodeID: string(l.Node), Cost: l.Cost.Float64()})
		}
	}
	return all
}

func linkStatus(s mesh.Status) []control.LinkStatus {
	var all []control.LinkStatus
	for _, l := range s.Links {
		direction := "in"
		if l.Dialled {
			direction = "out"
		}
		all = append(all, control.LinkStatus{NodeID: string(l.Node), Address: l.Address, Direction: direction,
			Cost: l.Cost.Float64(), RTT: l.RTT, Since: l.Since, State: "up", BytesIn: l.Received, BytesOut: l.Sent, Insecure: l.Insecure})
	}
	for _, d := range s.Down {
		all = append(all, control.LinkStatus{Address: d.Address, Direction: "out", State: "dialing", LastError: d.Err.Error()})
	}
	return all
}

func suspects(s mesh.Status) []control.Suspect {
	var all []control.Suspect
	for _, k := range s.Suspects {
		all = append(all, control.Suspect{NodeID: string(k.Node), Times: k.Times, First: k.First, Last: k.Last, Why: k.Why})
	}
	return all
}

func nodeStatus(info routing.NodeInfo) control.NodeStatus {
	out := control.NodeStatus{ID: string(info.ID), Reachable: info.Reachable, Since: info.Since,
		Cost: costOf(info.Cost), Leaf: info.Leaf, Draining: info.Draining, Insecure: info.Insecure}
	for _, h := range info.NextHops {
		out.NextHops = append(out.NextHops, string(h))
	}
	for _, w := range info.WorkTypes {
		out.WorkTypes = append(out.WorkTypes, control.WorkCommand{WorkType: w.Name, Secure: w.Secure})
	}
	return out
}

func costOf(sum uint64) float64 { return float64(sum) / float64(routing.CostUnit) }

// advertisements are the services that a node has told of. Receptor's users
// take the Time for when the node was last seen, and look for the control service: a
// node that has none, or tells nobody of it, is to be seen all the same.
func advertisements(info routing.NodeInfo) []control.Advertisement {
	seen := time.Now()
	if !info.Reachable {
		seen = info.Since
	}
	var all []control.Advertisement
	told := false // of its control service
	for _, s := range info.Services {
		ad := control.Advertisement{NodeID: string(info.ID), Service: s.Name, Time: seen, ConnType: int(s.ConnType), Tags: s.Tags}
		if s.Tags["type"] == "Control Service" {
			ad.WorkCommands, told = nodeStatus(info).WorkTypes, true
		}
		all = append(all, ad)
	}
	if !told {
		all = append(all, control.Advertisement{NodeID: string(info.ID), Service: "control", Time: seen, ConnType: connStream,
			Tags: map[string]string{"type": "Control Service"}, WorkCommands: nodeStatus(info).WorkTypes})
	}
	return all
}

// knownCosts are the links of all nodes, those of leaves in both directions.
func knownCosts(nodes []routing.NodeInfo) map[string]map[string]float64 {
	known := map[string]map[string]float64{}
	add := func(from, to routing.NodeID, c routing.Cost) {
		if known[string(from)] == nil {
			known[string(from)] = map[string]float64{}
		}
		known[string(from)][string(to)] = c.Float64()
	}
	for _, info := range nodes {
		for _, l := range info.Links {
			add(info.ID, l.To, l.Cost)
		}
		for _, h := range info.Homes {
			add(info.ID, h.To, h.Cost)
			add(h.To, info.ID, h.Cost)
		}
	}
	return known
}

func memoryMiB() int {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return int(info.Totalram * uint64(info.Unit) >> 20)
}
