package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/ranvier-mesh/ranvier/internal/pipe"
	"github.com/ranvier-mesh/ranvier/internal/wire"
)

// echoUDP answers each datagram with itself and the address it came from.
func echoUDP(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		buf := make([]byte, maxDatagram)
		for {
			n, addr, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			conn.WriteToUDPAddrPort(fmt.Appendf(nil, "%s from %d", buf[:n], addr.Port()), addr)
		}
	})
	t.Cleanup(func() {
		conn.Close()
		serving.Wait()
	})
	return conn.LocalAddr().String()
}

func TestDatagramsGoBackToWhoSentThem(t *testing.T) {
	p := newPair(t)
	p.serve("dns", NewUDPOutbound(echoUDP(t), p.log()).Handle)
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- (&UDPInbound{Dial: p.dial("dns"), Log: p.log()}).Serve(ctx, conn) }()
	defer func() {
		stop()
		if err := <-over; err != nil {
			t.Error(err)
		}
	}()
	ports := map[string]bool{}
	for i := range 3 {
		c, err := net.Dial("udp", conn.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		for _, size := range []int{1, 0, 1400, 9000} {
			question := bytes.Repeat([]byte{byte('a' + i)}, size)
			c.Write(question)
			buf := make([]byte, maxDatagram)
			n, err := c.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			answer, port, ok := bytes.Cut(buf[:n], []byte(" from "))
			if !ok || !bytes.Equal(answer, question) {
				t.Errorf("%d bytes came back of %d", len(answer), size)
			}
			ports[string(port)] = true
		}
	}
	if len(ports) != 3 {
		t.Errorf("three senders come from %d sockets", len(ports))
	}
}

// fakeSocket is a UDP socket in memory.
type fakeSocket struct {
	in   chan datagram
	sent chan datagram
	once sync.Once
	over chan struct{}
}

type datagram struct {
	addr netip.AddrPort
	p    []byte
}

func newFakeSocket() *fakeSocket {
	return &fakeSocket{in: make(chan datagram), sent: make(chan datagram, 1000), over: make(chan struct{})}
}

func (f *fakeSocket) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	select {
	case d := <-f.in:
		return copy(b, d.p), d.addr, nil
	case <-f.over:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

func (f *fakeSocket) WriteToUDPAddrPort(b []byte, addr netip.AddrPort) (int, error) {
	f.sent <- datagram{addr, bytes.Clone(b)}
	return len(b), nil
}

func (f *fakeSocket) Close() error {
	f.once.Do(func() { close(f.over) })
	return nil
}

// fakeStream is a stream in memory.
type fakeStream struct{ *pipe.Conn }

func (f fakeStream) CloseWrite() error       { return f.Close() }
func (f fakeStream) Reset(wire.Code, string) { f.Close() }
func (f fakeStream) Gone() <-chan struct{}   { return nil }

func sender(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1000)
}

// TestSendersAreForgotten: a sender that says nothing for a minute has no
// stream any more, one that is answered all the time keeps it.
func TestSendersAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		socket := newFakeSocket()
		var mu sync.Mutex
		var far []net.Conn
		in := &UDPInbound{Log: (&pair{logs: &logs{}}).log(), Dial: func(context.Context) (Stream, error) {
			mu.Lock()
			defer mu.Unlock()
			near, other := pipe.New(nil, nil)
			far = append(far, other)
			return fakeStream{near}, nil
		}}
		ctx, stop := context.WithCancel(t.Context())
		over := make(chan error)
		go func() { over <- in.serve(ctx, socket) }()
		socket.in <- datagram{sender(1), []byte("one")}
		socket.in <- datagram{sender(2), []byte("two")}
		synctest.Wait()
		if len(far) != 2 {
			t.Fatalf("%d streams", len(far))
		}
		ended := make([]chan time.Duration, 2)
		begun := time.Now()
		for i, c := range far {
			ended[i] = make(chan time.Duration, 1)
			go func() {
				io.Copy(io.Discard, c)
				ended[i] <- time.Since(begun)
			}()
		}
		for range 5 { // within the bubble
			time.Sleep(30 * time.Second)
			far[1].Write(appendDatagram(nil, []byte("answer")))
		}
		if d := <-ended[0]; d != sourceIdle {
			t.Errorf("the quiet sender's stream ended after %v", d)
		}
		if d := <-ended[1]; d != 150*time.Second+sourceIdle {
			t.Errorf("the answered sender's stream ended after %v", d)
		}
		if len(socket.sent) != 5 {
			t.Errorf("%d answers were sent", len(socket.sent))
		}
		stop()
		if err := <-over; err != nil {
			t.Error(err)
		}
		for _, c := range far {
			c.Close()
		}
	})
}

// TestSendersAreBounded: neither many senders nor one that floods a stream that
// stands still hold more than their share.
func TestSendersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		socket := newFakeSocket()
		in := &UDPInbound{Log: (&pair{logs: &logs{}}).log(), Dial: func(ctx context.Context) (Stream, error) {
			<-ctx.Done() // nobody answers
			return nil, ctx.Err()
		}}
		s := &udpServer{UDPInbound: in, conn: socket, rarely: sparingly(), sources: map[netip.AddrPort]*source{}}
		ctx, stop := context.WithCancel(t.Context())
		for i := range 2 * maxSources {
			for range 3 {
				s.take(ctx, sender(i), make([]byte, 60000))
			}
		}
		for range 1000 {
			s.take(ctx, sender(0), make([]byte, 1000))
		}
		if n, queued := len(s.sources), s.queued.Load(); n != maxSources || queued > maxQueued {
			t.Errorf("%d senders with %d bytes", n, queued)
		}
		if n := s.sources[sender(0)].bytes.Load(); n > maxQueue {
			t.Errorf("one sender has %d bytes", n)
		}
		stop()
		s.all.Wait()
		if n := s.queued.Load(); len(s.sources) != 0 || n != 0 {
			t.Errorf("%d senders and %d bytes are left", len(s.sources), n)
		}
	})
}

func TestDatagramsAreReadAsTheyWereWritten(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		all := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 300), 0, 10).Draw(r, "datagrams")
		var stream []byte
		for _, p := range all {
			stream = appendDatagram(stream, p)
		}
		cut := rapid.IntRange(0, len(stream)).Draw(r, "cut")
		in := bytes.NewReader(stream[:cut])
		var buf []byte
		for i := 0; ; i++ {
			p, err := readDatagram(in, buf)
			if err != nil {
				if whole := len(stream[:cut]) - in.Len(); err == io.EOF && cut == len(stream) && i != len(all) || whole > cut {
					r.Fatalf("%d of %d: %v", i, len(all), err)
				}
				return
			}
			if !bytes.Equal(p, all[i]) {
				r.Fatalf("datagram %d differs", i)
			}
			buf = p
		}
	})
}

func FuzzDatagrams(f *testing.F) {
	f.Add([]byte{0, 1, 'x', 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.NewReader(b)
		var again []byte
		for {
			p, err := readDatagram(in, nil)
			if err != nil {
				break
			}
			again = appendDatagram(again, p)
		}
		if !bytes.HasPrefix(b, again) {
			t.Error("what is read is not what is there")
		}
	})
}
