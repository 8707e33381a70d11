package wire

import (
	"bytes"
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ranvier-mesh/ranvier/routing"
)

// rule is one change that makes a good message bad, and what the error says.
type rule struct {
	field string
	kind  kind
	msg   any
}

func helloWith(f func(*Hello)) Hello {
	h := Hello{Protocol: 1, ID: "a", Nonce: make([]byte, NonceLen), Role: RoleLeaf}
	f(&h)
	return h
}

func openWith(f func(*Open)) Open {
	o := Open{To: "c", From: "a"}
	f(&o)
	return o
}

func rules() []rule {
	id, long := routing.NodeID("a b"), longID(256)
	text := strings.Repeat("x", 2000)
	hops := fill(MaxPath+1, Hop{Node: "n"})
	return []rule{
		{"protocol", hello, helloWith(func(h *Hello) { h.Protocol = 0 })},
		{"id", hello, helloWith(func(h *Hello) { h.ID = "" })},
		{"id", hello, helloWith(func(h *Hello) { h.ID = long })},
		{"nonce", hello, helloWith(func(h *Hello) { h.Nonce = nil })},
		{"nonce", hello, helloWith(func(h *Hello) { h.Nonce = make([]byte, 15) })},
		{"nonce", hello, helloWith(func(h *Hello) { h.Nonce = make([]byte, 17) })},
		{"role", hello, helloWith(func(h *Hello) { h.Role = 0 })},
		{"role", hello, helloWith(func(h *Hello) { h.Role = 4 })},
		{"cost", hello, helloWith(func(h *Hello) { h.Cost = routing.MaxCost + 1 })},
		{"features", hello, helloWith(func(h *Hello) { h.Features = fill(MaxFeatures+1, "f") })},
		{"features[1]", hello, helloWith(func(h *Hello) { h.Features = []string{"f", text[:MaxFeatureLen+1]} })},
		{"features[0]", hello, helloWith(func(h *Hello) { h.Features = []string{""} })},
		{"addrs", hello, helloWith(func(h *Hello) { h.Addrs = fill(MaxAddrs+1, "a") })},
		{"addrs[0]", hello, helloWith(func(h *Hello) { h.Addrs = []string{text[:MaxAddrLen+1]} })},
		{"addrs[0]", hello, helloWith(func(h *Hello) { h.Addrs = []string{"a\x1b[2J"} })},
		{"origin", cert, Cert{KeyID: []byte{1}, Chain: [][]byte{{1}}}},
		{"key id", cert, Cert{Origin: "a", Chain: [][]byte{{1}}}},
		{"key id", cert, Cert{Origin: "a", KeyID: make([]byte, MaxKeyIDLen+1), Chain: [][]byte{{1}}}},
		{"chain", cert, Cert{Origin: "a", KeyID: []byte{1}}},
		{"endorsement", cert, Cert{Origin: "a", KeyID: []byte{1}, Chain: [][]byte{{1}}, Endorsement: make([]byte, MaxEndorsementLen+1)}},
		{"list", revoked, Revoked{}},
		{"list", revoked, Revoked{List: make([]byte, MaxListLen+1)}},
		{"chain", cert, Cert{Origin: "a", KeyID: []byte{1}, Chain: fill(MaxChain+1, []byte{1})}},
		{"chain[1]", cert, Cert{Origin: "a", KeyID: []byte{1}, Chain: [][]byte{{1}, make([]byte, MaxCertLen+1)}}},
		{"chain[0]", cert, Cert{Origin: "a", KeyID: []byte{1}, Chain: [][]byte{{}}}},
		{"leaf", attach, Attach{Leaf: id, Home: "a"}},
		{"home", attach, Attach{Leaf: "a"}},
		{"signature", attach, Attach{Leaf: "a", Home: "b", Sig: make([]byte, MaxSigLen+1)}},
		{"entries[1]: origin", digest, &routing.Digest{Entries: []routing.Stamp{{Key: routing.Key{Origin: "a"}}, {}}}},
		{"entries[0]: origin", ack, &routing.Ack{Entries: []routing.Stamp{{Key: routing.Key{Origin: long}}}}},
		{"node", goaway, GoAway{Code: CodeBusy}},
		{"cost", heartbeat, Heartbeat{Cost: routing.MaxCost + 1, HasCost: true}},
		{"nodes", draining, Draining{}},
		{"nodes", draining, Draining{Nodes: fill(MaxDraining+1, routing.NodeID("n"))}},
		{"nodes[1]", draining, Draining{Nodes: []routing.NodeID{"a", id}}},
		{"to", open, openWith(func(o *Open) { o.To = id })},
		{"from", open, openWith(func(o *Open) { o.From = "" })},
		{"service", open, openWith(func(o *Open) { o.Service = text[:MaxServiceLen+1] })},
		{"service", open, openWith(func(o *Open) { o.Service = "a\nb" })},
		{"path", open, openWith(func(o *Open) { o.Path = fill(MaxPath+1, routing.NodeID("n")) })},
		{"path[2]", open, openWith(func(o *Open) { o.Path = []routing.NodeID{"a", "b", id} })},
		{"avoid", open, openWith(func(o *Open) { o.Avoid = fill(MaxAvoid+1, routing.NodeID("n")) })},
		{"avoid[0]", open, openWith(func(o *Open) { o.Avoid = []routing.NodeID{""} })},
		{"attempts", open, openWith(func(o *Open) { o.Attempts = MaxAttempts + 1 })},
		{"job", open, openWith(func(o *Open) { o.Job = text[:MaxJobLen+1] })},
		{"early", open, openWith(func(o *Open) { o.Early = make([]byte, MaxEarly+1) })},
		{"early", answer, Answer{Node: "a", Early: make([]byte, MaxEarly+1)}},
		{"limit", progress, Progress{Received: 2, Limit: 1}},
		{"closed", progress, Progress{Closed: true}},
		{"token", resume, Resume{Number: 1}},
		{"token", resume, Resume{Token: make([]byte, TokenLen+1), Number: 1}},
		{"number", resume, Resume{Token: make([]byte, TokenLen)}},
		{"node", answer, Answer{Node: id}},
		{"path", answer, Answer{Node: "a", Path: hops}},
		{"path[0]", answer, Answer{Node: "a", Path: []Hop{{}}}},
		{"known[0]", answer, Answer{Node: "a", Known: []routing.NodeID{""}}},
		{"attempts", answer, Answer{Node: "a", Attempts: MaxAttempts + 1}},
		{"node", reset, Reset{Node: id}},
	}
}

// TestRules sees that each rule holds at both ends: what a peer sends against
// it is malformed, and we cannot send it.
func TestRules(t *testing.T) {
	t.Parallel()
	for _, r := range rules() {
		if out, err := r.kind.append([]byte("x"), r.msg); err == nil || string(out) != "x" {
			t.Errorf("append %+v: %v; want an error and nothing appended", r.msg, err)
		} else if !strings.HasPrefix(err.Error(), "encode "+r.kind.typ.String()+": "+r.field+": ") {
			t.Errorf("append %s: the error does not name %s: %v", r.kind.typ, r.field, err)
		} else if errors.Is(err, ErrMalformed) {
			t.Errorf("append %s: our own fault is told as the peer's: %v", r.kind.typ, err)
		}
		_, err := r.kind.parse(unchecked(t, r.msg))
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("parse %+v: %v, want ErrMalformed", r.msg, err)
		} else if !strings.HasPrefix(err.Error(), "malformed message: "+r.kind.typ.String()+": "+r.field+": ") {
			t.Errorf("parse %s: the error does not name %s: %v", r.kind.typ, r.field, err)
		}
	}
}

// unchecked encodes what Append refuses.
func unchecked(t *testing.T, m any) []byte {
	t.Helper()
	switch d := m.(type) {
	case *routing.Digest:
		m = digestBody{Entries: convert(d.Entries, toStamp)}
	case *routing.Ack:
		m = ackBody{Entries: convert(d.Entries, toStamp)}
	}
	body, err := encMode.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// TestTextForPeople sees that words are fitted rather than refused when sent,
// bounded when received, and harmless when shown.
func TestTextForPeople(t *testing.T) {
	t.Parallel()
	nasty := "\x1b[2J" + strings.Repeat("ä", MaxReasonLen) + "\xff"
	for name, send := range map[string]func(string) (kind, any){
		"goaway": func(s string) (kind, any) { return goaway, GoAway{Node: "a", Reason: s} },
		"answer": func(s string) (kind, any) { return answer, Answer{Node: "a", Reason: s} },
		"reset":  func(s string) (kind, any) { return reset, Reset{Reason: s} },
		"hello": func(s string) (kind, any) {
			return hello, helloWith(func(h *Hello) { h.Software = s })
		},
	} {
		k, m := send(nasty)
		frame, err := k.append(nil, m)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := k.parse(frame[HeaderLen:])
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if s := reasonOf(got); !strings.HasPrefix(s, " [2Jää") || !utf8.ValidString(s) || len(s) > MaxReasonLen || len(s) < 250 {
			t.Errorf("%s: %d bytes, %.20q", name, len(s), s)
		}
		k, m = send("a\r\x1b[31m\u202eb")
		if got, err = k.parse(unchecked(t, m)); err != nil || reasonOf(got) != "a  [31m b" {
			t.Errorf("%s: unprintable text of a peer came through: %q, %v", name, reasonOf(got), err)
		}
		k, m = send(strings.Repeat("x", MaxReasonLen+1))
		if _, err = k.parse(unchecked(t, m)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: text too long: %v", name, err)
		}
	}
	if s := clip("é", 1); s != "" {
		t.Errorf("clip cut within a character: %q", s)
	}
}

func reasonOf(m any) string {
	switch m := m.(type) {
	case GoAway:
		return m.Reason
	case Answer:
		return m.Reason
	case Reset:
		return m.Reason
	case Hello:
		return m.Software
	}
	return ""
}

func TestKnownIsCut(t *testing.T) {
	t.Parallel()
	frame, err := Answer{Code: CodeNoRoute, Node: "a", Known: manyIDs(500)}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := ParseAnswer(frame[HeaderLen:]); err != nil || len(a.Known) != MaxKnown {
		t.Errorf("%d known nodes, %v", len(a.Known), err)
	}
	bad, err := encMode.Marshal(Answer{Node: "a", Known: manyIDs(MaxKnown + 1)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseAnswer(bad); !errors.Is(err, ErrMalformed) {
		t.Errorf("a peer's %d known nodes: %v", MaxKnown+1, err)
	}
}

// TestLargestFits sees that limits of fields keep messages below those of frames.
func TestLargestFits(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 2000)
	for _, c := range []struct {
		kind kind
		msg  any
		max  int
	}{
		{hello, Hello{
			Protocol: 255, ID: longID(255), Epoch: 1<<64 - 1, Nonce: make([]byte, 16), Role: RoleEphemeral,
			Cost: routing.MaxCost, Features: fill(MaxFeatures, long[:MaxFeatureLen]),
			Addrs: fill(MaxAddrs, long[:MaxAddrLen]), Software: long, Insecure: true,
		}, MaxHelloFrame - 1024},
		{attach, Attach{Leaf: longID(255), Home: longID(255), HomeEpoch: 1<<64 - 1, Sig: make([]byte, MaxSigLen)}, MaxFrame - 4096},
		{open, Open{
			To: longID(255), From: longID(255), Service: long[:MaxServiceLen], Path: manyIDs(MaxPath),
			Avoid: manyIDs(MaxAvoid), Timeout: 1<<32 - 1, Attempts: 8, Job: long[:MaxJobLen],
			Early: make([]byte, MaxEarly), Resume: true,
		}, MaxFrame - 4096},
		{answer, Answer{
			Code: 65535, Node: longID(255), Reason: long, Path: fill(MaxPath, Hop{Node: longID(255), Micros: 1<<64 - 1}),
			Known: manyIDs(MaxKnown), Attempts: 8, Early: make([]byte, MaxEarly),
		}, MaxFrame - 4096},
		{reset, Reset{Code: 65535, Node: longID(255), Reason: long}, MaxData},
	} {
		frame, err := c.kind.append(nil, c.msg)
		if err != nil {
			t.Errorf("%s: %v", c.kind.typ, err)
		} else if n := len(frame) - HeaderLen; n > c.max {
			t.Errorf("%s: %d bytes, want at most %d", c.kind.typ, n, c.max)
		} else if _, err := c.kind.parse(frame[HeaderLen:]); err != nil {
			t.Errorf("%s: %v", c.kind.typ, err)
		}
	}
	chain := fill(MaxChain, make([]byte, MaxCertLen))
	if _, err := (Cert{Origin: "a", KeyID: []byte{1}, Chain: chain}).Append(nil); err == nil {
		t.Error("cert: a chain above the frame's limit was encoded")
	}
	if _, err := (Cert{Origin: "a", KeyID: []byte{1}, Chain: chain[:MaxChain-1]}).Append(nil); err != nil {
		t.Errorf("cert: %v", err)
	}
}

// TestLargestAdvertFits sees that an advert of MaxAdvert bytes fits a frame
// with the longest signature, and that a longer one is an error here already.
func TestLargestAdvertFits(t *testing.T) {
	t.Parallel()
	key, version := routing.Key{Origin: longID(255), Fragment: 1023}, routing.Version{Epoch: 1<<64 - 1, Seq: 1<<64 - 1}
	tags := map[string]string{"a": strings.Repeat("v", 256), "b": strings.Repeat("v", 256), "c": ""}
	a := &routing.Advert{
		Key: key, Version: version,
		Services: fill(routing.MaxEntries, routing.Service{Name: strings.Repeat("x", MaxServiceLen), ConnType: 255, Tags: tags}),
	}
	for n := 0; ; n++ { // the last tag grows until it does not fit any more
		tags["c"] = strings.Repeat("v", n)
		body, err := EncodeAdvert(a)
		if err != nil {
			if !strings.Contains(err.Error(), "body: ") || n < 10 || n > 256 {
				t.Errorf("with %d bytes: %v", n, err)
			}
			break
		}
		e := Envelope{Body: body, Sig: make([]byte, MaxSigLen), KeyID: make([]byte, MaxKeyIDLen)}
		if a.Raw, err = e.Encode(); err != nil {
			t.Fatalf("with %d bytes: %v", n, err)
		}
		if got, _, err := ParseAdvert(a.Raw); err != nil || !reflect.DeepEqual(a, got) {
			t.Fatalf("with %d bytes: %v", n, err)
		}
	}
	for i, a := range []*routing.Advert{
		{Key: key, Version: version, Links: fill(routing.MaxEntries, routing.Adjacency{To: longID(254), Cost: routing.MaxCost})},
		{Key: key, Version: version, Leaves: fill(routing.MaxEntries, routing.Attachment{Leaf: longID(254), Cost: routing.MaxCost, Sig: make([]byte, 512)})},
		{Key: key, Version: version, WorkTypes: fill(routing.MaxEntries, routing.WorkType{Name: strings.Repeat("x", MaxServiceLen), Secure: true})},
	} {
		if err := SealUnsigned(a); err != nil {
			t.Errorf("%d: %v", i, err)
		} else if got, _, err := ParseAdvert(a.Raw); err != nil || !reflect.DeepEqual(a, got) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func TestAdvertRules(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 600)
	for _, c := range []struct {
		says string
		edit func(*routing.Advert)
	}{
		{"origin: ", func(a *routing.Advert) { a.Origin = "" }},
		{"epoch 0", func(a *routing.Advert) { a.Epoch = 0 }},
		{"65 entries", func(a *routing.Advert) {
			*a = routing.Advert{Key: a.Key, Version: a.Version, Links: fill(65, routing.Adjacency{To: "b", Cost: 1})}
		}},
		{"link: ", func(a *routing.Advert) { a.Links[1].To = "" }},
		{"link to b: ", func(a *routing.Advert) { a.Links[0].Cost = 0 }},
		{"link to b: ", func(a *routing.Advert) { a.Links[0].Cost = routing.MaxCost + 1 }},
		{"leaf: ", func(a *routing.Advert) { a.Leaves[0].Leaf = longID(256) }},
		{"leaf edge-1: ", func(a *routing.Advert) { a.Leaves[0].Sig = make([]byte, MaxSigLen+1) }},
		{"service name", func(a *routing.Advert) { a.Services[1].Name = "" }},
		{"service name", func(a *routing.Advert) { a.Services[1].Name = long[:256] }},
		{"service \"control\": ", func(a *routing.Advert) { a.Services[0].Tags = map[string]string{"a": long} }},
		{"services[0]: tag a: ", func(a *routing.Advert) { a.Services[0].Tags = map[string]string{"a": "\a"} }},
		{"services[1]: name: ", func(a *routing.Advert) { a.Services[1].Name = "a\x1b[2J" }},
		{"work types[0]: name: ", func(a *routing.Advert) { a.WorkTypes[0].Name = "\x00" }},
	} {
		a := fullAdvert()
		c.edit(a)
		if _, err := EncodeAdvert(a); err == nil || !strings.HasPrefix(err.Error(), "encode: ") || !strings.Contains(err.Error(), c.says) {
			t.Errorf("encode: the error does not say %q: %v", c.says, err)
		}
		if err := SealUnsigned(a); err == nil || a.Raw != nil {
			t.Errorf("%s: sealed (%v)", c.says, err)
		}
		_, _, err := ParseAdvert(envelope(t, uncheckedAdvert(t, a)))
		if !errors.Is(err, ErrMalformed) || !strings.HasPrefix(err.Error(), "malformed message: advert: body: ") || !strings.Contains(err.Error(), c.says) {
			t.Errorf("parse: the error does not say %q: %v", c.says, err)
		}
	}
	for _, edit := range []func(*routing.Service){
		func(s *routing.Service) { s.Tags = map[string]string{"a": "\xff"} },
		func(s *routing.Service) { s.Tags = map[string]string{"\xff": "a"} },
	} {
		a := fullAdvert()
		edit(&a.Services[0])
		if _, err := EncodeAdvert(a); !errors.Is(err, errUTF8) {
			t.Errorf("text that no reader would take was encoded: %v", err)
		}
	}
}

// envelope wraps any bytes as an unsigned advert.
func envelope(t *testing.T, body []byte) []byte {
	t.Helper()
	raw, err := encMode.Marshal(Envelope{Body: body})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// uncheckedAdvert encodes what EncodeAdvert refuses.
func uncheckedAdvert(t *testing.T, a *routing.Advert) []byte {
	t.Helper()
	body, err := encMode.Marshal(toBody(a))
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestEnvelopeRules(t *testing.T) {
	t.Parallel()
	body, err := EncodeAdvert(fullAdvert())
	if err != nil {
		t.Fatal(err)
	}
	for field, e := range map[string]Envelope{
		"body":      {},
		"signature": {Body: body, Sig: make([]byte, MaxSigLen+1), KeyID: []byte{1}},
		"key id":    {Body: body, Sig: []byte{1}, KeyID: make([]byte, MaxKeyIDLen+1)},
		"key id: ":  {Body: body, Sig: []byte{1}},
		"key id: i": {Body: body, KeyID: []byte{1}},
	} {
		if _, err := e.Encode(); err == nil || !strings.Contains(err.Error(), "advert: "+field) {
			t.Errorf("%s: encode: %v", field, err)
		}
		raw, err := encMode.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if a, _, err := ParseAdvert(raw); !errors.Is(err, ErrMalformed) || a != nil {
			t.Errorf("%s: parse: %v", field, err)
		}
	}
}

// TestAdvertTravelsVerbatim sees that what a later version adds, in the signed
// body and beside it, is passed on by one that does not know it.
func TestAdvertTravelsVerbatim(t *testing.T) {
	t.Parallel()
	body, err := encMode.Marshal(map[int]any{1: "a", 2: 0, 3: 3, 4: 9, 7: []any{[]any{"b", 1000}}, 99: map[string]any{"new": []int{1}}})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := encMode.Marshal(map[int]any{1: body, 2: []byte{1, 2}, 3: []byte{3}, 50: "later"})
	if err != nil {
		t.Fatal(err)
	}
	given := bytes.Clone(raw)
	a, e, err := ParseAdvert(given)
	if err != nil {
		t.Fatal(err)
	}
	clear(given) // the reader's buffer is used again
	if len(a.Links) != 1 || a.Links[0] != (routing.Adjacency{To: "b", Cost: 1000}) || a.Seq != 9 {
		t.Errorf("advert %+v", a)
	}
	if !bytes.Equal(e.Body, body) || !bytes.Equal(e.Sig, []byte{1, 2}) || !bytes.Equal(e.KeyID, []byte{3}) {
		t.Errorf("envelope %x", e)
	}
	out, err := AppendRouting(nil, a)
	if err != nil || !bytes.Equal(out, append(AppendHeader(nil, TypeAdvert, len(raw)), raw...)) {
		t.Errorf("passed on as %x, %v; want %x", out, err, raw)
	}
}

func TestAdvertIsDeterministic(t *testing.T) {
	t.Parallel()
	a := fullAdvert()
	a.Services[0].Tags = map[string]string{"a": "1", "b": "2", "c": "3", "d": "4", "aa": "5"}
	first, err := EncodeAdvert(a)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		a.Services[0].Tags = maps.Clone(a.Services[0].Tags)
		if again, err := EncodeAdvert(a); err != nil || !bytes.Equal(first, again) {
			t.Fatalf("%x, then %x (%v)", first, again, err)
		}
	}
}
