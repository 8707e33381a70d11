package wire

import (
	"bytes"
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/ranvier-mesh/ranvier/routing"
)

// Generators of messages that keep the rules.

const idChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-@:/"

var (
	anyID = rapid.Custom(func(t *rapid.T) routing.NodeID {
		max := rapid.SampledFrom([]int{8, 8, 8, routing.MaxNodeIDLen}).Draw(t, "max")
		return routing.NodeID(rapid.StringOfN(rapid.RuneFrom([]rune(idChars)), 1, max, max).Draw(t, "id"))
	})
	anyCost = rapid.Custom(func(t *rapid.T) routing.Cost {
		return routing.Cost(rapid.Uint32Range(1, uint32(routing.MaxCost)).Draw(t, "cost"))
	})
	anyCode  = rapid.Custom(func(t *rapid.T) Code { return Code(rapid.Uint16().Draw(t, "code")) })
	anyIDs   = rapid.SliceOfN(anyID, 0, 64)
	anyStamp = rapid.Custom(func(t *rapid.T) routing.Stamp {
		return routing.Stamp{
			Key:     routing.Key{Origin: anyID.Draw(t, "origin"), Fragment: rapid.Uint16().Draw(t, "fragment")},
			Version: routing.Version{Epoch: rapid.Uint64().Draw(t, "epoch"), Seq: rapid.Uint64().Draw(t, "seq")},
		}
	})
)

// text has letters of several lengths in UTF-8 and no control characters.
func text(min, max int) *rapid.Generator[string] {
	return rapid.StringOfN(rapid.RuneFrom([]rune("abc xyz-é€😀")), min, -1, max)
}

func blob(min, max int) *rapid.Generator[[]byte] { return rapid.SliceOfN(rapid.Byte(), min, max) }

func anyMessage(t *rapid.T, typ Type) any {
	switch typ {
	case TypeHello:
		return Hello{
			Protocol: rapid.Uint8Range(1, 255).Draw(t, "protocol"), ID: anyID.Draw(t, "id"),
			Epoch: rapid.Uint64().Draw(t, "epoch"), Nonce: blob(NonceLen, NonceLen).Draw(t, "nonce"),
			Role: Role(rapid.Uint8Range(1, 3).Draw(t, "role")), Cost: rapid.OneOf(rapid.Just(routing.Cost(0)), anyCost).Draw(t, "cost"),
			Features: rapid.SliceOfN(text(1, MaxFeatureLen), 0, 8).Draw(t, "features"),
			Addrs:    rapid.SliceOfN(text(1, MaxAddrLen), 0, MaxAddrs).Draw(t, "addrs"),
			Software: text(0, MaxSoftwareLen).Draw(t, "software"), Insecure: rapid.Bool().Draw(t, "insecure"),
		}
	case TypeCert:
		return Cert{
			Origin: anyID.Draw(t, "origin"), KeyID: blob(1, MaxKeyIDLen).Draw(t, "key"),
			Chain: rapid.SliceOfN(blob(1, 100), 1, MaxChain).Draw(t, "chain"), Endorsement: blob(0, 100).Draw(t, "endorsement"),
		}
	case TypeAdvert:
		return sealed(anyAdvert(t))
	case TypeAttach:
		return Attach{
			Leaf: anyID.Draw(t, "leaf"), Home: anyID.Draw(t, "home"),
			HomeEpoch: rapid.Uint64().Draw(t, "epoch"), Sig: blob(0, 64).Draw(t, "sig"),
		}
	case TypeDigest:
		return &routing.Digest{Entries: rapid.SliceOfN(anyStamp, 0, 20).Draw(t, "entries"), More: rapid.Bool().Draw(t, "more")}
	case TypeAck:
		return &routing.Ack{Entries: rapid.SliceOfN(anyStamp, 0, 20).Draw(t, "entries")}
	case TypeHeartbeat:
		return Heartbeat{Hash: routing.Hash(rapid.Uint64().Draw(t, "hash")), HasHash: rapid.Bool().Draw(t, "has"), Ask: rapid.Bool().Draw(t, "ask"),
			Cost: routing.Cost(rapid.Uint32Range(0, uint32(routing.MaxCost)).Draw(t, "cost")), HasCost: rapid.Bool().Draw(t, "has cost")}
	case TypeGoAway:
		return GoAway{Code: anyCode.Draw(t, "code"), Node: anyID.Draw(t, "node"), Reason: text(0, MaxReasonLen).Draw(t, "reason")}
	case TypeRevoked:
		return Revoked{List: blob(1, 300).Draw(t, "list")}
	case TypeDraining:
		return Draining{Nodes: rapid.SliceOfN(anyID, 1, MaxDraining).Draw(t, "nodes")}
	case TypeOpen:
		return Open{
			To: anyID.Draw(t, "to"), From: anyID.Draw(t, "from"), Service: text(0, MaxServiceLen).Draw(t, "service"),
			Path: anyIDs.Draw(t, "path"), Avoid: anyIDs.Draw(t, "avoid"), Timeout: rapid.Uint32().Draw(t, "timeout"),
			Attempts: rapid.Uint8Range(0, MaxAttempts).Draw(t, "attempts"), Job: text(0, MaxJobLen).Draw(t, "job"),
			Early: blob(0, 64).Draw(t, "early"), Resume: rapid.Bool().Draw(t, "resume"),
		}
	case TypeAnswer:
		hop := rapid.Custom(func(t *rapid.T) Hop {
			return Hop{Node: anyID.Draw(t, "node"), Micros: rapid.Uint64().Draw(t, "micros")}
		})
		return Answer{
			Code: anyCode.Draw(t, "code"), Node: anyID.Draw(t, "node"), Reason: text(0, MaxReasonLen).Draw(t, "reason"),
			Path: rapid.SliceOfN(hop, 0, 20).Draw(t, "path"), Known: anyIDs.Draw(t, "known"),
			Attempts: rapid.Uint8Range(0, MaxAttempts).Draw(t, "attempts"), Early: blob(0, 64).Draw(t, "early"),
		}
	case TypeFin:
		return Fin{Offset: rapid.Uint64().Draw(t, "offset"), Closed: rapid.Bool().Draw(t, "closed")}
	case TypeReset:
		return Reset{
			Code: anyCode.Draw(t, "code"), Node: rapid.OneOf(rapid.Just(routing.NodeID("")), anyID).Draw(t, "node"),
			Reason: text(0, MaxReasonLen).Draw(t, "reason"),
		}
	case TypeProgress:
		p := Progress{
			Received: rapid.Uint64().Draw(t, "received"), Fin: rapid.Bool().Draw(t, "fin"),
			Over: rapid.Bool().Draw(t, "over"), Ask: rapid.Bool().Draw(t, "ask"),
		}
		p.Limit = rapid.Uint64Range(p.Received, math.MaxUint64).Draw(t, "limit")
		p.Closed = p.Fin && rapid.Bool().Draw(t, "closed")
		return p
	case TypeResume:
		return Resume{Token: blob(TokenLen, TokenLen).Draw(t, "token"), Number: rapid.Uint32Range(1, math.MaxUint32).Draw(t, "number")}
	}
	panic(typ)
}

func anyAdvert(t *rapid.T) *routing.Advert {
	const n = routing.MaxEntries / 4
	a := &routing.Advert{
		Key: routing.Key{Origin: anyID.Draw(t, "origin"), Fragment: rapid.Uint16Range(0, routing.MaxFragments-1).Draw(t, "fragment")},
		Version: routing.Version{
			Epoch: rapid.Uint64Range(1, math.MaxUint64).Draw(t, "epoch"), Seq: rapid.Uint64Range(1, math.MaxUint64).Draw(t, "seq"),
		},
		Draining: rapid.Bool().Draw(t, "draining"), Insecure: rapid.Bool().Draw(t, "insecure"),
	}
	other := anyID.Filter(func(id routing.NodeID) bool { return id != a.Origin })
	name := text(1, 40)
	for range rapid.IntRange(0, n).Draw(t, "links") {
		a.Links = append(a.Links, routing.Adjacency{To: other.Draw(t, "to"), Cost: anyCost.Draw(t, "cost")})
	}
	for range rapid.IntRange(0, n).Draw(t, "leaves") {
		a.Leaves = append(a.Leaves, routing.Attachment{Leaf: other.Draw(t, "leaf"), Cost: anyCost.Draw(t, "cost"), Sig: blob(0, 64).Draw(t, "sig")})
	}
	for range rapid.IntRange(0, n).Draw(t, "services") {
		a.Services = append(a.Services, routing.Service{
			Name: name.Draw(t, "name"), ConnType: rapid.Uint8().Draw(t, "type"),
			Tags: rapid.MapOfN(text(0, 20), text(0, 20), 0, 4).Draw(t, "tags"),
		})
	}
	for range rapid.IntRange(0, n).Draw(t, "work types") {
		a.WorkTypes = append(a.WorkTypes, routing.WorkType{Name: name.Draw(t, "name"), Secure: rapid.Bool().Draw(t, "secure")})
	}
	return a
}

// TestRoundTrip sees that what one node says is what the other hears, behind
// whatever was appended before.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, k := range allKinds() {
		t.Run(k.typ.String(), func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				sent := anyMessage(t, k.typ)
				stream, err := k.append([]byte("before"), sent)
				if err != nil {
					t.Fatal(err)
				}
				frame, ok := bytes.CutPrefix(stream, []byte("before"))
				typ, body, err := ReadFrame(bytes.NewReader(frame), nil, MaxFrame)
				if !ok || err != nil || typ != k.typ || len(body) != len(frame)-HeaderLen {
					t.Fatalf("%v: %v of %d bytes, %v", ok, typ, len(frame), err)
				}
				got, err := k.parse(body)
				if err != nil {
					t.Fatal(err)
				}
				clear(body) // what was parsed must not refer to it
				if diff := same(sent, got); diff != "" {
					t.Fatalf("-sent +got:\n%s", diff)
				}
			})
		})
	}
}

// TestDigestParts sees that a digest of any length arrives whole and in order,
// in parts that the core takes, and that only its end ends it.
func TestDigestParts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ entries, idLen, frames int }{
		{0, 8, 1}, {1, 255, 1}, {117, 255, 1}, {118, 255, 2}, {1000, 4, 1}, {1001, 4, 2}, {5000, 16, 7},
	} {
		d := &routing.Digest{}
		for i := range c.entries {
			id := routing.NodeID(fmt.Sprintf("%0*d", c.idLen, i))
			d.Entries = append(d.Entries, routing.Stamp{Key: routing.Key{Origin: id}, Version: routing.Version{Epoch: math.MaxUint64, Seq: 1}})
		}
		for _, d.More = range []bool{false, true} {
			stream, err := AppendDigest(nil, d)
			if err != nil {
				t.Fatal(err)
			}
			_, bodies := readAll(t, stream)
			var got routing.Digest
			for i, body := range bodies {
				part, err := ParseDigest(body)
				if err != nil {
					t.Fatal(err)
				}
				got.Entries = append(got.Entries, part.Entries...)
				if want := i < len(bodies)-1 || d.More; part.More != want || len(body) > maxPart+16 {
					t.Errorf("%d entries, part %d: More is %v, %d bytes", c.entries, i, part.More, len(body))
				}
			}
			got.More = d.More
			if diff := same(d, &got); diff != "" || len(bodies) != c.frames {
				t.Errorf("%d entries: %d frames, want %d\n%s", c.entries, len(bodies), c.frames, diff)
			}
		}
		stream, err := AppendAck(nil, &routing.Ack{Entries: d.Entries})
		if err != nil {
			t.Fatal(err)
		}
		_, bodies := readAll(t, stream)
		n := 0
		for _, body := range bodies {
			part, err := ParseAck(body)
			if err != nil {
				t.Fatal(err)
			}
			n += len(part.Entries)
		}
		if n != c.entries || len(bodies) != c.frames {
			t.Errorf("ack of %d entries: %d in %d frames", c.entries, n, len(bodies))
		}
	}
	bad := &routing.Digest{Entries: make([]routing.Stamp, 3)}
	if out, err := AppendDigest([]byte("x"), bad); err == nil || string(out) != "x" {
		t.Errorf("a digest without origins: %v", err)
	}
}

func TestAppendRouting(t *testing.T) {
	t.Parallel()
	frame, err := AppendRouting(nil, routing.Hash(7))
	if err != nil {
		t.Fatal(err)
	}
	if h, err := ParseHeartbeat(frame[HeaderLen:]); err != nil || h != (Heartbeat{Hash: 7, HasHash: true}) {
		t.Errorf("%+v, %v", h, err)
	}
	for name, m := range map[string]routing.Message{
		"an advert that is not sealed": &routing.Advert{Key: routing.Key{Origin: "a"}},
		"a Raw above a frame":          &routing.Advert{Raw: make([]byte, MaxFrame+1)},
		"nil":                          nil,
	} {
		if out, err := AppendRouting([]byte("x"), m); err == nil || string(out) != "x" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
