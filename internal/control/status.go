package control

import (
	"encoding/json"
	"slices"
	"strconv"
	"time"
)

// Names of the status fields that Receptor does not have. They are sent only
// when requested_fields names them.
const (
	FieldSoftware = "Software"
	FieldInsecure = "Insecure"
	FieldNodes    = "Nodes"
	FieldLinks    = "Links"
	FieldRefused  = "Refused"
	FieldOpen     = "Open"
	FieldSuspects = "Suspects"
)

// Status is the state of a node as the command status tells it: docs/control.md
// section 4.1. The fields up to KnownConnectionCosts are exactly Receptor's.
type Status struct {
	Version              string
	SystemCPUCount       int
	SystemMemoryMiB      int
	NodeID               string
	Connections          []Connection
	RoutingTable         map[string]string // destination to next hop
	Advertisements       []Advertisement
	KnownConnectionCosts map[string]map[string]float64

	Software string       `json:",omitempty"` // "ranvier 0.1.0"
	Insecure bool         `json:",omitempty"` // the node runs without an identity
	Nodes    []NodeStatus `json:",omitempty"`
	Links    []LinkStatus `json:",omitempty"`
	Refused  Refused
	Open     bool      `json:",omitempty"` // whoever reaches the node may do what no work-policy item names
	Suspects []Suspect `json:",omitempty"`
}

// Suspect is a node that seems to drop or change what it should pass on.
type Suspect struct {
	NodeID string
	Times  int // it was suspected since First, each time less than ten minutes after the one before
	First  time.Time
	Last   time.Time
	Why    string // the last time
}

// Refused is how often the policy has refused something since the node is up.
type Refused struct {
	Work, Services, Commands uint64
	Units                    uint64 // requests for units of others
	Streams, Adverts         uint64 // beyond the limits of an identity
}

// Connection is a neighbour.
type Connection struct {
	NodeID string
	Cost   float64
}

// Advertisement is a service of a node.
type Advertisement struct {
	NodeID       string
	Service      string
	Time         time.Time // when the node was last known to be reachable
	ConnType     int       // 0 datagram, 1 stream, 2 stream with TLS
	Tags         map[string]string
	WorkCommands []WorkCommand
}

// WorkCommand is a work type that a node takes.
type WorkCommand struct {
	WorkType string
	Secure   bool // submits must be signed
}

// NodeStatus is what this node knows of a node, itself included.
type NodeStatus struct {
	ID        string
	Reachable bool
	Since     time.Time // of Reachable
	Cost      float64   // of the way to it
	NextHops  []string
	Leaf      bool
	Draining  bool
	Insecure  bool
	WorkTypes []WorkCommand
}

// LinkStatus is a link of this node, or one that it tries to make.
type LinkStatus struct {
	NodeID    string // empty until the peer has said it
	Address   string
	Direction string // "in" or "out"
	Cost      float64
	RTT       time.Duration // nanoseconds
	Since     time.Time     // of State
	State     string        // "up", "dialing", ...
	LastError string        // why it was not up the last time
	BytesIn   uint64
	BytesOut  uint64
	Insecure  bool // the other end has no identity
}

// Fields are the status fields that a client asks for. Empty means all that
// Receptor has.
type Fields []string

// AllFields returns every status field, those that Receptor does not have too.
func AllFields() Fields {
	var all Fields
	for _, f := range new(Status).fields() {
		all = append(all, f.name)
	}
	return all
}

// Has tells whether a field is to be sent.
func (f Fields) Has(name string) bool {
	if len(f) == 0 {
		return !slices.Contains([]string{FieldSoftware, FieldInsecure, FieldNodes, FieldLinks, FieldRefused, FieldOpen, FieldSuspects}, name)
	}
	return slices.Contains(f, name)
}

type statusField struct {
	name  string
	value any
}

// fields returns the fields in the order of the reply. Lists and maps are never
// null: clients iterate over them.
func (s *Status) fields() []statusField {
	return []statusField{
		{"Version", s.Version},
		{"SystemCPUCount", s.SystemCPUCount},
		{"SystemMemoryMiB", s.SystemMemoryMiB},
		{"NodeID", s.NodeID},
		{"Connections", list(s.Connections)},
		{"RoutingTable", object(s.RoutingTable)},
		{"Advertisements", list(s.Advertisements)},
		{"KnownConnectionCosts", object(s.KnownConnectionCosts)},
		{FieldSoftware, s.Software},
		{FieldInsecure, s.Insecure},
		{FieldNodes, list(s.Nodes)},
		{FieldLinks, list(s.Links)},
		{FieldRefused, s.Refused},
		{FieldOpen, s.Open},
		{FieldSuspects, list(s.Suspects)},
	}
}

// statusReply is an object with only the fields that were asked for.
type statusReply struct {
	Status
	want Fields
}

// MarshalJSON writes the fields in their order.
func (r statusReply) MarshalJSON() ([]byte, error) {
	out := []byte{'{'}
	for _, f := range r.fields() {
		if !r.want.Has(f.name) {
			continue
		}
		value, err := json.Marshal(f.value)
		if err != nil {
			return nil, err
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(strconv.AppendQuote(out, f.name), ':')
		out = append(out, value...)
	}
	return append(out, '}'), nil
}

func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func object[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return m
}
