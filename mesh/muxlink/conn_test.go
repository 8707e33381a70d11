package muxlink

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/ranvier-mesh/ranvier/mesh/link/records"
)

// recorder keeps what is written to a connection, write by write.
type recorder struct {
	net.Conn
	writes [][]byte
}

func (r *recorder) Write(p []byte) (int, error) {
	r.writes = append(r.writes, bytes.Clone(p))
	return len(p), nil
}

func frameHeader(kind byte, length int) []byte {
	return []byte{0, kind, 0, 0, 0, 0, 0, 1, byte(length >> 24), byte(length >> 16), byte(length >> 8), byte(length)}
}

func TestAFrameIsOneWrite(t *testing.T) {
	t.Parallel()
	const data, windowUpdate = 0, 1
	body := bytes.Repeat([]byte("x"), maxWrite+1)
	for _, c := range []struct {
		name   string
		writes [][]byte
		want   []int
	}{
		{"a frame", [][]byte{frameHeader(data, 5), body[:5]}, []int{17}},
		{"the longest", [][]byte{frameHeader(data, maxWrite), body[:maxWrite]}, []int{header + maxWrite}},
		{"one that is longer", [][]byte{frameHeader(data, maxWrite+1), body}, []int{header, maxWrite + 1}},
		{"one without data", [][]byte{frameHeader(data, 0), frameHeader(data, 1), body[:1]}, []int{header, header + 1}},
		{"a window", [][]byte{frameHeader(windowUpdate, 7), frameHeader(data, 12), body[:12]}, []int{header, 2 * header}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &recorder{}
			under := &conn{Conn: r}
			var all []byte
			for _, p := range c.writes {
				if n, err := under.Write(p); n != len(p) || err != nil {
					t.Fatalf("Write of %d bytes = %d, %v", len(p), n, err)
				}
				all = append(all, p...)
			}
			var got []int
			for _, w := range r.writes {
				got = append(got, len(w))
			}
			if !bytes.Equal(bytes.Join(r.writes, nil), all) {
				t.Error("other bytes were written")
			}
			if len(got) != len(c.want) {
				t.Fatalf("writes of %v bytes, want %v", got, c.want)
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Errorf("writes of %v bytes, want %v", got, c.want)
				}
			}
			if sent := under.sent.Load(); sent != uint64(len(all)) {
				t.Errorf("%d bytes counted of %d", sent, len(all))
			}
		})
	}
}

// What joins the writes relies on how yamux encodes its frames.
func TestYamuxAnnouncesItsData(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	defer far.Close()
	l, err := Client(near, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer, err := yamux.Server(far, config())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	s, err := l.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sent := bytes.Repeat([]byte("ranvier "), 30_000)
	go func() {
		s.Write(sent)
		s.Close()
	}()
	in, err := peer.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := got.ReadFrom(in); err != nil || !bytes.Equal(got.Bytes(), sent) {
		t.Errorf("%d bytes came of %d, %v", got.Len(), len(sent), err)
	}
	in.Close()
}

func TestManyWritersWriteLessAtOnce(t *testing.T) {
	t.Parallel()
	l := &muxLink{}
	for writers, want := range map[int]int{1: 4, 8: 4, 10: 3, 16: 2, 500: 2} {
		l.writers.Store(int32(writers - 1))
		if n := l.begin(); n != want*records.Framed {
			t.Errorf("%d writers write %d bytes at once, want %d frames", writers, n, want)
		}
	}
}

// far is a connection whose TLS has seen a long way.
type far struct {
	net.Conn
	rtt time.Duration
}

func (f far) RTT() time.Duration { return f.rtt }

// TestWindows: the farther the peer, the more may a stream send ahead.
func TestWindows(t *testing.T) {
	t.Parallel()
	for rtt, want := range map[time.Duration]int{0: nearWindow, time.Millisecond: nearWindow, 20 * time.Millisecond: 8_000_000, time.Second: farWindow} {
		a, b := net.Pipe()
		client, err := Client(far{a, rtt}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		server, err := Server(far{b, rtt}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		server.(*muxLink).Known()
		out, err := client.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := server.Accept(); err != nil {
			t.Fatal(err)
		}
		// Nobody reads: what returns has gone ahead.
		if n, err := out.Write(make([]byte, want)); err != nil {
			t.Fatalf("at %v: %d bytes, then %v", rtt, n, err)
		}
		out.SetWriteDeadline(time.Unix(1, 0))
		if n, err := out.Write([]byte{0}); err == nil {
			t.Errorf("at %v: %d bytes more than %d went ahead", rtt, n, want)
		}
	}
}
