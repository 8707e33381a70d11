package muxlink

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/ranvier-mesh/ranvier/internal/pipe"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/link/records"
)

// recorder keeps what is written to a connection, write by write.
type recorder struct {
	net.Conn
	mu     sync.Mutex
	writes [][]byte
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	r.writes = append(r.writes, bytes.Clone(p))
	r.mu.Unlock()
	return r.Conn.Write(p)
}

func ends(t *testing.T) (near, far net.Conn) {
	t.Helper()
	near, far = pipe.New(&net.TCPAddr{}, &net.TCPAddr{})
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

func frameHeader(kind byte, flags uint16, id, length uint32) []byte {
	h := []byte{0, kind}
	h = binary.BigEndian.AppendUint16(h, flags)
	h = binary.BigEndian.AppendUint32(h, id)
	return binary.BigEndian.AppendUint32(h, length)
}

// A question and its answer are one frame each, each in one write, and then each
// end closes.
func TestAQuestionIsOneWrite(t *testing.T) {
	t.Parallel()
	a, b := ends(t)
	asked, answered := &recorder{Conn: a}, &recorder{Conn: b}
	near, _ := Client(asked, nil)
	far, _ := Server(answered, nil)
	defer near.Close()
	defer far.Close()
	s, err := near.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	in, err := far.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, ends := range [][2]net.Conn{{in, s}, {s, in}} {
		if _, err := io.ReadFull(ends[0], make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
		if ends[0] == in {
			in.Write([]byte("response"))
		}
	}
	in.Close()
	if _, err := s.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the other end's Close: %v", err)
	}
	s.Close()
	const id = 1
	for _, r := range []struct {
		*recorder
		want [][]byte
	}{
		{asked, [][]byte{append(frameHeader(typeData, flagSYN, id, 8), "question"...), frameHeader(typeWindowUpdate, flagFIN, id, 0)}},
		{answered, [][]byte{append(frameHeader(typeData, flagACK, id, 8), "response"...), frameHeader(typeWindowUpdate, flagFIN, id, 0)}},
	} {
		r.mu.Lock()
		if got, want := bytes.Join(r.writes, []byte("|")), bytes.Join(r.want, []byte("|")); !bytes.Equal(got, want) {
			t.Errorf("written\n%q, want\n%q", got, want)
		}
		r.mu.Unlock()
	}
}

// other makes the streams of hashicorp's yamux look like ours.
type other struct{ *yamux.Session }

func (o other) Open(context.Context) (net.Conn, error) { return o.Session.Open() }

type mux interface {
	Open(context.Context) (net.Conn, error)
	Accept() (net.Conn, error)
}

// The other end may be hashicorp's yamux, as in releases before this.
func TestAgainstTheOtherYamux(t *testing.T) {
	t.Parallel()
	cfg := yamux.DefaultConfig()
	cfg.EnableKeepAlive, cfg.LogOutput, cfg.MaxStreamWindowSize = false, io.Discard, nearWindow
	for _, dials := range []bool{true, false} {
		a, b := ends(t)
		var ours link.Link
		var theirs *yamux.Session
		var err error
		if dials {
			ours, _ = Client(a, nil)
			theirs, err = yamux.Server(b, cfg)
		} else {
			ours, _ = Server(a, nil)
			theirs, err = yamux.Client(b, cfg)
		}
		if err != nil {
			t.Fatal(err)
		}
		link.Known(ours)
		for _, ends := range [][2]mux{{ours, other{theirs}}, {other{theirs}, ours}} {
			var all sync.WaitGroup
			for range 300 { // more than may wait to be accepted
				all.Go(func() { echo(t, ends[0], 10_000) })
				all.Go(func() { echoed(t, ends[1]) })
			}
			all.Wait()
			all.Go(func() { echo(t, ends[0], 8<<20) })
			echoed(t, ends[1])
			all.Wait()
		}
		ours.Close()
		if _, err := theirs.Accept(); err == nil {
			t.Error("the other end goes on")
		}
		theirs.Close()
	}
}

func echo(t *testing.T, from mux, n int) {
	s, err := from.Open(t.Context())
	if err != nil {
		t.Error(err)
		return
	}
	defer s.Close()
	sent := bytes.Repeat([]byte("ranvier "), n/8)
	go s.Write(sent)
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes or others came back, %v", len(got), err)
	}
}

func echoed(t *testing.T, at mux) {
	s, err := at.Accept()
	if err != nil {
		t.Error(err)
		return
	}
	defer s.Close()
	io.Copy(struct{ io.Writer }{s}, struct{ io.Reader }{s})
}

// What breaks the rules ends the session; what is only of no use does not.
func TestHostileFrames(t *testing.T) {
	t.Parallel()
	const id, ours = 1, 2
	open := frameHeader(typeWindowUpdate, flagSYN, id, 0)
	for name, tc := range map[string]struct {
		frames [][]byte
		why    string // empty: it goes on
	}{
		"another version":             {[][]byte{{1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0}}, "version 1"},
		"an unknown type":             {[][]byte{frameHeader(9, 0, 0, 0)}, "type 9"},
		"more data than allowed":      {[][]byte{open, frameHeader(typeData, 0, id, firstWindow+1)}, "are allowed"},
		"an endless window":           {[][]byte{open, frameHeader(typeWindowUpdate, 0, id, 1<<32-1)}, "4 GiB"},
		"a stream twice":              {[][]byte{open, open}, "again"},
		"stream 0":                    {[][]byte{frameHeader(typeData, flagSYN, 0, 0)}, "not its to open"},
		"a stream of ours":            {[][]byte{frameHeader(typeData, flagSYN, ours, 0)}, "not its to open"},
		"good-bye":                    {[][]byte{frameHeader(typeGoAway, 0, 0, 2)}, "code 2"},
		"data of no stream":           {[][]byte{frameHeader(typeData, 0, 77, 3), []byte("abc")}, ""},
		"a window of no stream":       {[][]byte{frameHeader(typeWindowUpdate, flagACK, 77, 3)}, ""},
		"the end of no stream":        {[][]byte{frameHeader(typeWindowUpdate, flagFIN|flagRST, 77, 0)}, ""},
		"accepts what was not opened": {[][]byte{open, frameHeader(typeWindowUpdate, flagACK, id, 0)}, ""},
		"a ping":                      {[][]byte{frameHeader(typePing, flagSYN, 0, 1)}, "it pings"},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := ends(t)
			l, _ := Server(a, nil)
			defer l.Close()
			link.Known(l)
			for _, f := range tc.frames {
				b.Write(f)
			}
			if tc.why != "" {
				<-l.Done()
				if _, err := l.Open(t.Context()); err == nil || !errors.Is(err, link.ErrClosed) || !strings.Contains(err.Error(), tc.why) {
					t.Errorf("the session ended with %v", err)
				}
				return
			}
			b.Write(append(frameHeader(typeData, flagSYN, id+2, 1), 'x'))
			for {
				in, err := l.Accept()
				if err != nil {
					t.Fatalf("it does not go on: %v", err)
				}
				if in.(*stream).id == id+2 {
					return
				}
			}
		})
	}
}

func TestTooManyStreamsThatNobodyAccepts(t *testing.T) {
	t.Parallel()
	a, b := ends(t)
	l, _ := Server(a, nil)
	defer l.Close()
	link.Known(l)
	for i := range uint32(backlog + 1) {
		b.Write(frameHeader(typeWindowUpdate, flagSYN, 2*i+1, 0))
	}
	<-l.Done()
}

// A stream that was closed before the peer heard of it, or reset by the peer,
// leaves nothing; nor does one whose two ends are closed.
func TestStreamsAreForgotten(t *testing.T) {
	t.Parallel()
	a, b := ends(t)
	near, _ := Client(a, nil)
	far, _ := Server(b, nil)
	defer near.Close()
	defer far.Close()
	link.Known(far)
	for range 2 * backlog { // more than may be open and not accepted
		s, err := near.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		if _, err := s.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write after Close: %v", err)
		}
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read after Close: %v", err)
		}
	}
	for range 2 * backlog {
		s, _ := near.Open(t.Context())
		s.Write([]byte("x"))
		in, err := far.Accept()
		if err != nil {
			t.Fatal(err)
		}
		in.Close()
		if _, err := s.Read(make([]byte, 1)); err != io.EOF {
			t.Fatal(err)
		}
		s.Close()
	}
	marker, _ := near.Open(t.Context())
	marker.Write([]byte("x"))
	in, err := far.Accept() // what was written before has been dealt with
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []link.Link{near, far} {
		s := l.(*muxLink).session
		s.mu.Lock()
		if len(s.streams) != 1 {
			t.Errorf("%d streams are known, want the last", len(s.streams))
		}
		s.mu.Unlock()
	}
	in.Close()
}

func TestAResetStream(t *testing.T) {
	t.Parallel()
	a, b := ends(t)
	l, _ := Client(a, nil)
	defer l.Close()
	s, _ := l.Open(t.Context())
	s.Write([]byte("x"))
	b.Write(frameHeader(typeWindowUpdate, flagRST, 1, 0))
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, errReset) {
		t.Errorf("read: %v", err)
	}
	if _, err := s.Write(make([]byte, 1)); !errors.Is(err, errReset) {
		t.Errorf("write: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestDeadlinesOfAStream(t *testing.T) {
	t.Parallel()
	a, b := ends(t)
	go io.Copy(io.Discard, b)
	l, _ := Client(a, nil)
	defer l.Close()
	s, _ := l.Open(t.Context())
	s.SetDeadline(time.Now().Add(10 * time.Millisecond))
	var timeout net.Error
	if _, err := s.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("read: %v", err)
	}
	if n, err := s.Write(make([]byte, firstWindow+1)); n > firstWindow || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("write: %d, %v", n, err)
	}
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

// distant is a connection whose TLS has seen a long way.
type distant struct {
	net.Conn
	rtt time.Duration
}

func (f distant) RTT() time.Duration { return f.rtt }

// TestWindows: the farther the peer, the more may a stream send ahead.
func TestWindows(t *testing.T) {
	t.Parallel()
	for rtt, want := range map[time.Duration]int{0: nearWindow, time.Millisecond: nearWindow, 20 * time.Millisecond: 8_000_000, time.Second: farWindow} {
		a, b := net.Pipe()
		client, err := Client(distant{a, rtt}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		server, err := Server(distant{b, rtt}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		link.Known(server)
		out, err := client.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// The window is told with the first half of the first one.
		const first = firstWindow / 2
		go out.Write(make([]byte, first))
		in, err := server.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(in, make([]byte, first)); err != nil {
			t.Fatal(err)
		}
		// Nobody reads any more: what returns has gone ahead.
		if n, err := out.Write(make([]byte, want)); err != nil {
			t.Fatalf("at %v: %d bytes, then %v", rtt, n, err)
		}
		out.SetWriteDeadline(time.Unix(1, 0))
		if n, err := out.Write([]byte{0}); err == nil {
			t.Errorf("at %v: %d bytes more than %d went ahead", rtt, n, want)
		}
	}
}
