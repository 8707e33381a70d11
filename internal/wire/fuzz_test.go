package wire

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/ranvier-mesh/ranvier/routing"
)

// fuzzKind throws bytes at one decoder. It never panics, each fault is
// ErrMalformed, and what it takes can be said again and means the same.
func fuzzKind(f *testing.F, k kind) {
	files, err := filepath.Glob("testdata/*.hex")
	if err != nil || len(files) == 0 {
		f.Fatalf("no golden vectors: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(fromHex(f, string(text))[HeaderLen:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > MaxFrame {
			return // no frame brings it
		}
		m, err := k.parse(body)
		if err != nil {
			if !errors.Is(err, ErrMalformed) || m != nil {
				t.Fatalf("%v, %v; want ErrMalformed", m, err)
			}
			return
		}
		frame, err := k.append(nil, m)
		if err != nil {
			t.Fatalf("%+v was taken but cannot be said: %v", m, err)
		}
		if a, ok := m.(*routing.Advert); ok {
			if !bytes.Equal(a.Raw, body) {
				t.Fatal("Raw is not what came")
			}
			if _, err := EncodeAdvert(a); err != nil && len(body) < MaxAdvert {
				t.Fatalf("the advert was taken but cannot be said: %v", err)
			}
		}
		_, bodies := readAll(t, frame)
		again, err := k.parse(bodies[0])
		if err != nil || len(bodies) != 1 && len(body) < maxPart {
			t.Fatalf("said again in %d frames: %v", len(bodies), err)
		}
		if diff := same(m, again); diff != "" && len(bodies) == 1 {
			t.Fatalf("said again it means something else:\n%s", diff)
		}
	})
}

func FuzzHello(f *testing.F)     { fuzzKind(f, hello) }
func FuzzCert(f *testing.F)      { fuzzKind(f, cert) }
func FuzzAdvert(f *testing.F)    { fuzzKind(f, advert) }
func FuzzAttach(f *testing.F)    { fuzzKind(f, attach) }
func FuzzDigest(f *testing.F)    { fuzzKind(f, digest) }
func FuzzAck(f *testing.F)       { fuzzKind(f, ack) }
func FuzzHeartbeat(f *testing.F) { fuzzKind(f, heartbeat) }
func FuzzGoAway(f *testing.F)    { fuzzKind(f, goaway) }
func FuzzRevoked(f *testing.F)   { fuzzKind(f, revoked) }
func FuzzDraining(f *testing.F)  { fuzzKind(f, draining) }
func FuzzOpen(f *testing.F)      { fuzzKind(f, open) }
func FuzzAnswer(f *testing.F)    { fuzzKind(f, answer) }
func FuzzFin(f *testing.F)       { fuzzKind(f, fin) }
func FuzzReset(f *testing.F)     { fuzzKind(f, reset) }
func FuzzProgress(f *testing.F)  { fuzzKind(f, progress) }
func FuzzResume(f *testing.F)    { fuzzKind(f, resume) }

// FuzzFrame reads a control stream of any bytes to its end.
func FuzzFrame(f *testing.F) {
	var stream []byte
	for _, v := range vectors() {
		frame, err := v.kind.append(nil, v.msg)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame)
		stream = append(stream, frame...)
	}
	f.Add(stream)
	f.Add([]byte{0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := bytes.NewReader(stream)
		var buf []byte
		for {
			left := r.Len()
			typ, body, err := ReadFrame(r, buf, MaxHelloFrame)
			switch {
			case err == io.EOF && left == 0:
				return
			case err == io.ErrUnexpectedEOF, errors.Is(err, ErrMalformed):
				return
			case err != nil:
				t.Fatal(err)
			}
			if left-r.Len() != HeaderLen+len(body) || len(body) > MaxHelloFrame {
				t.Fatalf("%d bytes of body out of %d", len(body), left-r.Len())
			}
			if m, err := ParseControl(typ, body); err != nil && (m != nil || !errors.Is(err, ErrMalformed)) {
				t.Fatalf("%v, %v", m, err)
			}
			buf = body
		}
	})
}
