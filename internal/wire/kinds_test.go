package wire

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/ranvier-mesh/ranvier/routing"
)

// kind is one message as the tests that hold for all messages see it.
type kind struct {
	typ    Type
	parse  func(body []byte) (any, error)
	append func(dst []byte, m any) ([]byte, error)
}

type appender interface {
	Append(dst []byte) ([]byte, error)
}

func kindOf[M appender](t Type, parse func([]byte) (M, error)) kind {
	return kind{
		typ:    t,
		parse:  func(body []byte) (any, error) { return boxed(parse(body)) },
		append: func(dst []byte, m any) ([]byte, error) { return m.(M).Append(dst) },
	}
}

func routingKind[M any](t Type, parse func([]byte) (M, error)) kind {
	return kind{
		typ:    t,
		parse:  func(body []byte) (any, error) { return boxed(parse(body)) },
		append: func(dst []byte, m any) ([]byte, error) { return AppendRouting(dst, m.(routing.Message)) },
	}
}

var (
	hello     = kindOf(TypeHello, ParseHello)
	cert      = kindOf(TypeCert, ParseCert)
	attach    = kindOf(TypeAttach, ParseAttach)
	digest    = routingKind(TypeDigest, ParseDigest)
	ack       = routingKind(TypeAck, ParseAck)
	heartbeat = kindOf(TypeHeartbeat, ParseHeartbeat)
	goaway    = kindOf(TypeGoAway, ParseGoAway)
	revoked   = kindOf(TypeRevoked, ParseRevoked)
	draining  = kindOf(TypeDraining, ParseDraining)
	open      = kindOf(TypeOpen, ParseOpen)
	answer    = kindOf(TypeAnswer, ParseAnswer)
	fin       = kindOf(TypeFin, ParseFin)
	reset     = kindOf(TypeReset, ParseReset)
	progress  = kindOf(TypeProgress, ParseProgress)
	resume    = kindOf(TypeResume, ParseResume)
	advert    = routingKind(TypeAdvert, func(body []byte) (*routing.Advert, error) {
		a, _, err := ParseAdvert(body)
		return a, err
	})
)

// same ignores the difference between absent and empty lists.
func same(a, b any) string {
	return cmp.Diff(a, b, cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(Hop{}))
}

// readAll splits bytes into frames.
func readAll(tb testing.TB, stream []byte) (types []Type, bodies [][]byte) {
	tb.Helper()
	r := bytes.NewReader(stream)
	for r.Len() > 0 {
		t, body, err := ReadFrame(r, nil, MaxFrame)
		if err != nil {
			tb.Fatalf("ReadFrame: %v", err)
		}
		types, bodies = append(types, t), append(bodies, body)
	}
	return types, bodies
}

// vector is a message whose bytes are kept in testdata.
type vector struct {
	name string
	kind kind
	msg  any
}

func vectors() []vector {
	nonce := []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	stamps := []routing.Stamp{
		{Key: routing.Key{Origin: "a"}, Version: routing.Version{Epoch: 3, Seq: 7}},
		{Key: routing.Key{Origin: "hub.example.com", Fragment: 2}, Version: routing.Version{Epoch: 1 << 40, Seq: 1 << 20}},
	}
	return []vector{
		{"hello_router", hello, Hello{
			Protocol: 1, ID: "a", Epoch: 3, Nonce: nonce, Role: RoleRouter, Cost: 2500,
			Features: []string{"resume"}, Addrs: []string{"tcp://10.0.0.1:8888"}, Software: "ranvier 0.1.0", Insecure: true,
		}},
		{"hello_ephemeral", hello, Hello{Protocol: 1, ID: "alice/6b1f", Nonce: nonce, Role: RoleEphemeral}},
		{"cert", cert, Cert{Origin: "a", KeyID: []byte{1, 2, 3, 4}, Chain: [][]byte{{0x30, 0x03, 0x02, 0x01, 0x05}, {0x30, 0x00}}}},
		{"cert_endorsed", cert, Cert{Origin: "a", KeyID: []byte{1, 2, 3, 4}, Chain: [][]byte{{0x30, 0x00}}, Endorsement: []byte{0xa0}}},
		{"advert", advert, sealed(fullAdvert())},
		{"advert_empty", advert, sealed(&routing.Advert{
			Key: routing.Key{Origin: "a", Fragment: 1}, Version: routing.Version{Epoch: 3, Seq: 8},
		})},
		{"advert_signed", advert, signed(&routing.Advert{
			Key: routing.Key{Origin: "a"}, Version: routing.Version{Epoch: 3, Seq: 9},
			Links: []routing.Adjacency{{To: "b", Cost: 1000}},
		})},
		{"attach", attach, Attach{Leaf: "edge-1", Home: "a", HomeEpoch: 3, Sig: []byte{9, 9, 9}}},
		{"attach_unsigned", attach, Attach{Leaf: "edge-1", Home: "a", HomeEpoch: 3}},
		{"digest", digest, &routing.Digest{Entries: stamps, More: true}},
		{"digest_empty", digest, &routing.Digest{}},
		{"ack", ack, &routing.Ack{Entries: stamps}},
		{"heartbeat", heartbeat, Heartbeat{}},
		{"heartbeat_cost", heartbeat, Heartbeat{Cost: 2500, HasCost: true}},
		{"heartbeat_hash", heartbeat, Heartbeat{Hash: 0xfedcba9876543210, HasHash: true}},
		{"goaway", goaway, GoAway{Code: CodeDuplicateID, Node: "a", Reason: "node b is linked already"}},
		{"revoked", revoked, Revoked{List: []byte{0xa0}}},
		{"draining", draining, Draining{Nodes: []routing.NodeID{"b", "c"}}},
		{"open", open, Open{
			To: "c", From: "alice/6b1f", Service: "control", Path: []routing.NodeID{"alice/6b1f", "a"},
			Avoid: []routing.NodeID{"x"}, Timeout: 30_000, Attempts: 8, Job: "01JABCDEFGHJKMNPQRSTVWXYZ0",
		}},
		{"open_ping", open, Open{To: "c", From: "a", Path: []routing.NodeID{"a"}, Timeout: 10_000}},
		{"open_resume", open, Open{
			To: "c", From: "a", Service: "control", Path: []routing.NodeID{"a"}, Avoid: []routing.NodeID{"b"},
			Timeout: 3_000, Attempts: 8, Early: []byte{0x16, 3, 1, 0, 1, 0}, Resume: true,
		}},
		{"answer_early", answer, Answer{Node: "c", Path: []Hop{{Node: "c"}}, Early: []byte{0x16, 3, 3, 0, 1, 0}}},
		{"answer_ok", answer, Answer{Node: "c", Path: []Hop{{Node: "b", Micros: 812}, {Node: "c"}}}},
		{"answer_no_route", answer, Answer{
			Code: CodeNoRoute, Node: "b", Reason: "no route to node x", Path: []Hop{{Node: "b"}},
			Known: []routing.NodeID{"a", "c"}, Attempts: 7,
		}},
		{"fin", fin, Fin{Offset: 1 << 33}},
		{"fin_closed", fin, Fin{Offset: 0, Closed: true}},
		{"reset", reset, Reset{Code: CodeBrokenStream, Node: "b", Reason: "the link to c broke"}},
		{"reset_bare", reset, Reset{Code: CodeOK}},
		{"progress", progress, Progress{Received: 1 << 20, Limit: 1<<20 + 65536}},
		{"progress_ask", progress, Progress{Limit: 65536, Ask: true}},
		{"progress_over", progress, Progress{Received: 9, Limit: 65545, Fin: true, Closed: true, Over: true}},
		{"resume", resume, Resume{Token: bytes.Repeat([]byte{0xab}, TokenLen), Number: 2}},
	}
}

func fullAdvert() *routing.Advert {
	return &routing.Advert{
		Key:      routing.Key{Origin: "a"},
		Version:  routing.Version{Epoch: 3, Seq: 7},
		Draining: true, Insecure: true,
		Links:  []routing.Adjacency{{To: "b", Cost: 1000}, {To: "c", Cost: 2500}},
		Leaves: []routing.Attachment{{Leaf: "edge-1", Cost: 1000, Sig: []byte{1, 2}}, {Leaf: "edge-2", Cost: 1}},
		Services: []routing.Service{
			{Name: "control", ConnType: 2, Tags: map[string]string{"type": "Control Service", "a": ""}},
			{Name: "echo", ConnType: 1},
		},
		WorkTypes: []routing.WorkType{{Name: "ansible-runner", Secure: true}, {Name: "echo"}},
	}
}

func sealed(a *routing.Advert) *routing.Advert {
	if err := SealUnsigned(a); err != nil {
		panic(err)
	}
	return a
}

func signed(a *routing.Advert) *routing.Advert {
	body, err := EncodeAdvert(a)
	if err != nil {
		panic(err)
	}
	a.Raw, err = Envelope{Body: body, Sig: []byte{1, 2, 3}, KeyID: []byte{4, 5}}.Encode()
	if err != nil {
		panic(err)
	}
	return a
}

// longID returns a valid id of n bytes.
func longID(n int) routing.NodeID { return routing.NodeID(strings.Repeat("n", n)) }

func manyIDs(n int) []routing.NodeID {
	ids := make([]routing.NodeID, n)
	for i := range ids {
		ids[i] = routing.NodeID(fmt.Sprintf("%s%d", strings.Repeat("n", routing.MaxNodeIDLen-4), 1000+i))
	}
	return ids
}

func fill[T any](n int, v T) []T {
	out := make([]T, n)
	for i := range out {
		out[i] = v
	}
	return out
}
