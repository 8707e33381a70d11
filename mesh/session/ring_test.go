package session

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ranvier-mesh/ranvier/internal/wire"
)

// payload parses frames that went out.
func payload(t *rapid.T, frames []byte) (data []byte, bounds []int) {
	for len(frames) > 0 {
		h, err := wire.ReadHeader(bytes.NewReader(frames), wire.MaxData)
		if err != nil || h.Type != wire.TypeData || len(frames) < wire.HeaderLen+h.Len {
			t.Fatalf("not frames: %x, %v", frames[:min(len(frames), 8)], err)
		}
		data = append(data, frames[wire.HeaderLen:wire.HeaderLen+h.Len]...)
		bounds = append(bounds, len(data))
		frames = frames[wire.HeaderLen+h.Len:]
	}
	return data, bounds
}

// TestRing writes, sends, confirms and goes back in any order: what goes out is
// what was written, from where the other end is.
func TestRing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		budget := NewBudget(int64(rapid.SampledFrom([]int{0, 100_000, 1 << 20}).Draw(t, "budget")))
		r := ring{budget: budget, limit: firstWindow}
		all := pattern(7, 4<<20)
		at := 0                         // where the other end is
		bounds := map[int]bool{0: true} // offsets between frames
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				p := all[r.written:min(len(all), int(r.written)+rapid.IntRange(0, 100_000).Draw(t, "n"))]
				if n := r.put(p); n > len(p) || r.written > r.limit {
					t.Fatalf("%d of %d taken, %d written, limit %d", n, len(p), r.written, r.limit)
				}
			},
			"credit": func(t *rapid.T) { r.limit += uint64(rapid.IntRange(0, 200_000).Draw(t, "n")) },
			"send": func(t *rapid.T) {
				from := int(r.sent)
				b, frames := r.next()
				if b == nil {
					if r.sent != r.written {
						t.Fatalf("nothing to send at %d of %d", r.sent, r.written)
					}
					return
				}
				data, ends := payload(t, frames)
				if !bytes.Equal(data, all[from:from+len(data)]) || int(r.sent) != from+len(data) {
					t.Fatalf("other bytes at %d", from)
				}
				for _, e := range ends {
					bounds[from+e] = true
				}
			},
			"confirm": func(t *rapid.T) {
				at = rapid.IntRange(at, int(r.sent)).Draw(t, "at")
				if err := r.ack(uint64(at)); err != nil {
					t.Fatal(err)
				}
			},
			"go back": func(t *rapid.T) {
				for at < int(r.top) && !bounds[at] {
					at++ // only whole frames count
				}
				if err := r.rewind(uint64(at)); err != nil || int(r.sent) != at {
					t.Fatalf("back to %d: %d, %v", at, r.sent, err)
				}
			},
			"": func(t *rapid.T) {
				if r.held > freeRing+int(budget.Used()) || len(r.blocks) == 0 && budget.Used() != 0 {
					t.Fatalf("%d bytes held in %d blocks, %d lent", r.held, len(r.blocks), budget.Used())
				}
			},
		})
		r.clear()
		if budget.Used() != 0 || r.held != 0 {
			t.Fatalf("%d bytes lent, %d held", budget.Used(), r.held)
		}
	})
}

func TestRingRefusesWhatWasNotSent(t *testing.T) {
	t.Parallel()
	fresh := func() *ring {
		r := &ring{budget: NewBudget(0), limit: firstWindow}
		r.put(make([]byte, 100))
		r.next()
		r.put(make([]byte, 100))
		r.next()
		r.put(make([]byte, 100))
		return r
	}
	for name, err := range map[string]error{
		"confirmed before it was sent": fresh().ack(201),
		"back to the future":           fresh().rewind(201),
		"within a frame":               fresh().rewind(150),
	} {
		if !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := fresh()
	if err := errors.Join(r.ack(100), r.rewind(100)); err != nil {
		t.Error(err)
	}
	if err := r.ack(99); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("taken back: %v", err)
	}
	_, frames := r.next()
	if n := binary.BigEndian.Uint32(frames); n != 101 || len(frames) != 2*105 {
		t.Errorf("a frame that was sent has changed: %d bytes of %d", n, len(frames))
	}
}

func TestBudgetIsShared(t *testing.T) {
	t.Parallel()
	b := NewBudget(90)
	one, two := 0, 0
	for b.take(1, one) {
		one++
	}
	for b.take(1, two) {
		two++
	}
	if one != 45 || two != 23 {
		t.Errorf("the first got %d, the second %d", one, two)
	}
	b.give(one)
	b.give(two)
	if b.Used() != 0 {
		t.Errorf("%d are lent", b.Used())
	}
}

// FuzzSession throws bytes at one end.
func FuzzSession(f *testing.F) {
	progress, _ := wire.Progress{Received: 3, Limit: 1 << 40, Ask: true}.Append(nil)
	fin, _ := wire.Fin{Offset: 2, Closed: true}.Append(nil)
	data := append(wire.AppendHeader(nil, wire.TypeData, 2), "ab"...)
	f.Add(append(append(data, progress...), fin...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x20})
	f.Fuzz(func(t *testing.T, input []byte) {
		m := machine{
			out: ring{budget: NewBudget(1 << 16), limit: firstWindow},
			in:  inbox{budget: NewBudget(1 << 16), window: firstWindow, told: firstWindow},
		}
		now := epoch()
		m.attach(now, 0, true)
		m.out.put([]byte("abc"))
		r := bytes.NewReader(input)
		for r.Len() > 0 {
			if _, _, err := m.next(now, nil); err != nil {
				t.Fatal(err)
			}
			h, err := wire.ReadHeader(r, wire.MaxData)
			if err != nil || r.Len() < h.Len {
				return
			}
			body := make([]byte, h.Len)
			r.Read(body)
			if err := feed(&m, h.Type, body); err != nil {
				if !errors.Is(err, wire.ErrMalformed) {
					t.Fatal(err)
				}
				return
			}
			if m.in.got > m.in.told || m.out.acked > m.out.sent || m.out.sent > m.out.written {
				t.Fatalf("got %d of %d; %d confirmed, %d sent, %d written", m.in.got, m.in.told, m.out.acked, m.out.sent, m.out.written)
			}
		}
	})
}

// feed is what a Conn does with a frame.
func feed(m *machine, t wire.Type, body []byte) error {
	switch t {
	case wire.TypeData:
		if err := m.in.expect(len(body)); err != nil || len(body) == 0 || m.finGot {
			return err
		}
		spans := m.in.reserve(nil, len(body))
		for _, s := range spans {
			copy(s.b.buf[s.at:s.at+s.n], body)
			body = body[s.n:]
		}
		m.data(epoch(), spans)
	case wire.TypeFin:
		fin, err := wire.ParseFin(body)
		if err != nil {
			return err
		}
		return m.receiveFin(epoch(), fin)
	case wire.TypeProgress:
		p, err := wire.ParseProgress(body)
		if err != nil {
			return err
		}
		return m.receiveProgress(epoch(), p)
	}
	return nil
}

func epoch() time.Time { return time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC) }
