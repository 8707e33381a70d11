package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"runtime"
	"testing"

	"github.com/ranvier-mesh/ranvier/routing"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestHostileCBOR sees that what the protocol forbids is refused in every
// message, known key or not, and costs no memory.
func TestHostileCBOR(t *testing.T) {
	nested := bytes.Repeat([]byte{0x81}, 1000)
	hostile := map[string][]byte{
		"nothing":                     nil,
		"null":                        unhex(t, "f6"),
		"a number":                    unhex(t, "01"),
		"an array":                    unhex(t, "80"),
		"a duplicate key":             unhex(t, "a201010101"),
		"a duplicate unknown key":     unhex(t, "a2186301186301"),
		"an indefinite map":           unhex(t, "bfff"),
		"an indefinite array":         unhex(t, "a118639fff"),
		"an indefinite text":          unhex(t, "a118637f6161ff"),
		"an indefinite byte string":   unhex(t, "a118635f4161ff"),
		"a tag":                       unhex(t, "a11863c100"),
		"a tagged map":                unhex(t, "d9d9f7a0"),
		"a big number":                unhex(t, "a11863c249010000000000000000"),
		"deep nesting":                append(unhex(t, "a11863"), append(nested, 0)...),
		"a map of 2^32 pairs":         unhex(t, "ba00000000ffffffff"),
		"a map of 2^64-1 pairs":       unhex(t, "bbffffffffffffffff"),
		"65 pairs":                    manyPairs(65),
		"an array of 2^32-1":          unhex(t, "a118639affffffff"),
		"an array of 2^63":            unhex(t, "a118639b8000000000000000"),
		"an array of 4097":            append(unhex(t, "a11863991001"), make([]byte, 4097)...),
		"a text of 4 GiB":             unhex(t, "a118637affffffff"),
		"a byte string of 2^64-1":     unhex(t, "a118635bffffffffffffffff"),
		"an array as a key":           unhex(t, "a1800101"),
		"a reserved length":           unhex(t, "a118631c"),
		"a break without a beginning": unhex(t, "ff"),
	}
	for name, body := range hostile {
		for _, k := range allKinds() {
			var err error
			size := allocated(func() { _, err = k.parse(body) })
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%s: %s: %v, want ErrMalformed", k.typ, name, err)
			}
			if size > 64<<10 {
				t.Errorf("%s: %s: %d bytes were allocated", k.typ, name, size)
			}
			if k.typ != TypeAdvert {
				continue
			}
			raw, err := encMode.Marshal(Envelope{Body: body})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := k.parse(raw); !errors.Is(err, ErrMalformed) {
				t.Errorf("advert's body: %s: %v, want ErrMalformed", name, err)
			}
		}
	}
}

func manyPairs(n byte) []byte {
	b := []byte{0xb8, n}
	for i := range n {
		b = append(b, 0x19, 0x40, i, 0)
	}
	return b
}

func allKinds() []kind {
	return []kind{hello, cert, advert, attach, digest, ack, heartbeat, goaway, revoked, open, answer, fin, reset, progress, resume}
}

// allocated is how many bytes f allocates. Not for parallel tests.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestAmplification sends the cheapest elements that each list takes: what a
// frame makes us allocate stays a small multiple of what it cost to send.
func TestAmplification(t *testing.T) {
	list := func(key byte, element string) []byte {
		b := []byte{0xa1, key, 0x99, 0x10, 0x00} // 4096 elements
		return append(b, bytes.Repeat(unhex(t, element), 4096)...)
	}
	for _, c := range []struct {
		name string
		kind kind
		body []byte
	}{
		{"features", hello, list(7, "60")},
		{"addrs", hello, list(8, "60")},
		{"chain", cert, list(3, "40")},
		{"digest entries", digest, list(1, "8460000000")},
		{"digest nulls", digest, list(1, "f6")},
		{"ack entries", ack, list(1, "f6")},
		{"open path", open, list(4, "60")},
		{"open avoid", open, list(5, "60")},
		{"answer path", answer, list(4, "826000")},
		{"answer known", answer, list(5, "60")},
		{"links", advert, envelope(t, list(7, "f6"))},
		{"leaves", advert, envelope(t, list(8, "83600040"))},
		{"services", advert, envelope(t, list(9, "836000a0"))},
		{"work types", advert, envelope(t, list(10, "f6"))},
	} {
		var err error
		size := allocated(func() { _, err = c.kind.parse(c.body) })
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", c.name, err)
		}
		if size > 1<<20 {
			t.Errorf("%s: %d bytes made us allocate %d", c.name, len(c.body), size)
		}
	}
}

// TestWrongTypes puts a value of another type under each key of each message.
func TestWrongTypes(t *testing.T) {
	t.Parallel()
	for _, k := range allKinds() {
		for key := byte(1); key <= knownKeys(k.typ); key++ {
			for _, v := range []string{"a10101", "f97e00", "fb3ff0000000000000", "20"} { // a map, NaN, 1.0, -1
				body := append([]byte{0xa1, key}, unhex(t, v)...)
				if _, err := k.parse(body); !errors.Is(err, ErrMalformed) {
					t.Errorf("%s: key %d as %s: %v", k.typ, key, v, err)
				}
			}
		}
	}
	for name, body := range map[string]string{
		"protocol above 8 bits": "a1011901ff",
		"cost above 32 bits":    "a1061b0000000100000000",
		"text is not UTF-8":     "a10961ff",
	} {
		if _, err := ParseHello(unhex(t, body)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func knownKeys(t Type) byte {
	return map[Type]byte{
		TypeHello: 10, TypeCert: 4, TypeAdvert: 3, TypeAttach: 4, TypeDigest: 2, TypeAck: 1,
		TypeHeartbeat: 5, TypeGoAway: 3, TypeRevoked: 1, TypeDraining: 1, TypeOpen: 10, TypeAnswer: 7, TypeFin: 2, TypeReset: 3,
		TypeProgress: 6, TypeResume: 2,
	}[t]
}

// TestUnknownKeys sees that keys of later versions, whole numbers or text,
// change nothing; a text "1" is not the key 1.
func TestUnknownKeys(t *testing.T) {
	t.Parallel()
	extra := unhex(t, "1863"+"82a10180616b"+"3904d2"+"f5"+"6131"+"1a00010000"+"626964"+"f6") // 99, -1235, "1", "id"
	const pairs = 4
	for _, v := range vectors() {
		frame, err := v.kind.append(nil, v.msg)
		if err != nil {
			t.Fatal(err)
		}
		body := bytes.Clone(frame[HeaderLen:])
		body[0] += pairs // the head of a map with less than 24 pairs
		body = append(body, extra...)
		got, err := v.kind.parse(body)
		if err != nil {
			t.Errorf("%s: %v", v.name, err)
			continue
		}
		if a, ok := got.(*routing.Advert); ok {
			if !bytes.Equal(a.Raw, body) {
				t.Errorf("%s: Raw is not what came", v.name)
			}
			a.Raw = v.msg.(*routing.Advert).Raw
		}
		if diff := same(v.msg, got); diff != "" {
			t.Errorf("%s: unknown keys changed the message (-want +got):\n%s", v.name, diff)
		}
	}
}

func TestParseControl(t *testing.T) {
	t.Parallel()
	for _, v := range vectors() {
		frame, err := v.kind.append(nil, v.msg)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseControl(v.kind.typ, frame[HeaderLen:])
		if v.kind.typ >= TypeOpen {
			if !errors.Is(err, ErrMalformed) || got != nil {
				t.Errorf("%s on the control stream: %v, %v", v.name, got, err)
			}
			continue
		}
		if s, ok := got.(Sealed); ok {
			if len(s.Envelope.Body) == 0 {
				t.Errorf("%s: no envelope", v.name)
			}
			got = s.Advert
		}
		if err != nil || same(v.msg, got) != "" {
			t.Errorf("%s: %v\n%s", v.name, err, same(v.msg, got))
		}
		if got, err := ParseControl(v.kind.typ, []byte{0xff}); !errors.Is(err, ErrMalformed) || got != nil {
			t.Errorf("%s: nonsense gave %v, %v", v.name, got, err)
		}
	}
	for _, typ := range []Type{0, 0x0b, 0x0f, 0x12, 0x2f, 0x7f, 0xff} {
		if got, err := ParseControl(typ, []byte{0xff}); got != nil || err != nil {
			t.Errorf("a type of a later version: %v, %v; want it skipped", got, err)
		}
	}
}

func TestUnmarshal(t *testing.T) {
	t.Parallel()
	frame, err := AppendMessage(nil, 0x30, Hop{Node: "a", Micros: 3})
	if err != nil {
		t.Fatal(err)
	}
	var h Hop
	if err := Unmarshal(frame[HeaderLen:], &h); err != nil || h.Node != "a" || h.Micros != 3 {
		t.Errorf("%+v, %v", h, err)
	}
	if err := Unmarshal([]byte{0x9f, 0xff}, &h); !errors.Is(err, ErrMalformed) {
		t.Errorf("%v", err)
	}
	if out, err := AppendMessage([]byte("x"), 0x30, make([]byte, MaxFrame)); err == nil || string(out) != "x" {
		t.Errorf("a message above a frame: %d bytes, %v", len(out), err)
	}
	if out, err := AppendMessage([]byte("x"), 0x30, make(chan int)); err == nil || string(out) != "x" {
		t.Errorf("what is no message: %v", err)
	}
}
