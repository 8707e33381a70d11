package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxSources is how many senders one udp-server serves at a time, and how
	// many a udp-client.
	maxSources = 1024
	// sourceIdle is how long a sender is remembered after the last datagram of
	// either direction.
	sourceIdle = time.Minute
	// maxQueue bounds what waits of one sender, maxQueued what waits of all, in
	// bytes. What comes beyond is lost, as in any queue for datagrams.
	maxQueue  = 256 << 10
	maxQueued = 16 << 20
)

// packetConn is what UDPInbound needs of a *net.UDPConn.
type packetConn interface {
	ReadFromUDPAddrPort(b []byte) (n int, addr netip.AddrPort, err error)
	WriteToUDPAddrPort(b []byte, addr netip.AddrPort) (int, error)
	Close() error
}

// UDPInbound leads datagrams to a service of the mesh: a stream for each
// sender, which is gone after a minute without datagrams.
type UDPInbound struct {
	Dial Dial
	Log  *slog.Logger // with the node and service, and the address
}

// udpServer is a UDPInbound that serves. The goroutine of serve reads the
// socket; each source has two of its own.
type udpServer struct {
	*UDPInbound
	conn   packetConn
	queued atomic.Int64 // bytes in all sources' queues
	rarely *rate.Sometimes
	all    sync.WaitGroup

	mu      sync.Mutex
	sources map[netip.AddrPort]*source
}

// source is a sender of datagrams and its stream.
type source struct {
	addr   netip.AddrPort
	queue  chan []byte
	bytes  atomic.Int64 // in queue
	active atomic.Int64 // when a datagram last went either way, since the beginning
	begun  time.Time
}

func (s *source) touch() { s.active.Store(int64(time.Since(s.begun))) }

// idle is how long nothing has gone either way.
func (s *source) idle() time.Duration { return time.Since(s.begun) - time.Duration(s.active.Load()) }

// Serve takes datagrams until ctx ends, then closes the socket and returns when
// all is over. It returns nil, or why the socket is of no use any more.
func (u *UDPInbound) Serve(ctx context.Context, conn *net.UDPConn) error {
	return u.serve(ctx, conn)
}

func (u *UDPInbound) serve(ctx context.Context, conn packetConn) error {
	s := &udpServer{UDPInbound: u, conn: conn, rarely: sparingly(), sources: map[netip.AddrPort]*source{}}
	ctx, cancel := context.WithCancel(ctx)
	defer s.all.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	buf := make([]byte, maxDatagram)
	for {
		n, addr, err := conn.ReadFromUDPAddrPort(buf)
		switch {
		case err == nil:
			s.take(ctx, addr, buf[:n])
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			s.rarely.Do(func() { u.Log.Warn("a datagram was not received", "err", err) })
			sleep(ctx, 10*time.Millisecond)
		}
	}
}

// take queues a datagram for its sender's stream; what there is no room for is
// lost.
func (s *udpServer) take(ctx context.Context, addr netip.AddrPort, p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	src := s.sources[addr]
	if src == nil {
		if len(s.sources) >= maxSources {
			s.rarely.Do(func() { s.Log.Warn("datagrams of a new sender are dropped", "from", addr, "senders", maxSources) })
			return
		}
		src = &source{addr: addr, queue: make(chan []byte, 256), begun: time.Now()}
		s.sources[addr] = src
		s.all.Go(func() { s.serve(ctx, src) })
	}
	size := int64(len(p))
	if src.bytes.Load()+size > maxQueue || s.queued.Load()+size > maxQueued {
		return
	}
	select {
	case src.queue <- appendDatagram(make([]byte, 0, len(p)+2), p):
		src.bytes.Add(size)
		s.queued.Add(size)
		src.touch()
	default:
	}
}

// forget takes a source out; what it has queued is lost.
func (s *udpServer) forget(src *source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sources, src.addr)
	s.queued.Add(-src.bytes.Load())
}

// serve keeps a source's stream. One that cannot be opened is tried again with
// the next datagram.
func (s *udpServer) serve(ctx context.Context, src *source) {
	defer s.forget(src)
	stream, err := s.Dial(ctx)
	if err != nil {
		s.rarely.Do(func() { s.Log.Warn("datagrams cannot be led on", "from", src.addr, "err", err) })
		return
	}
	stop := context.AfterFunc(ctx, func() { stream.Reset(resetCode, errStopped.Error()) })
	defer stop()
	over := make(chan struct{})
	go func() {
		defer close(over)
		if err := s.back(stream, src); err != nil && ctx.Err() == nil {
			s.Log.Debug("a sender's stream ended", "from", src.addr, "err", err)
		}
	}()
	s.forward(ctx, stream, src, over)
	stream.Close()
	<-over
}

// forward writes what is queued until the source is idle or the stream over.
func (s *udpServer) forward(ctx context.Context, stream Stream, src *source, over <-chan struct{}) {
	timer := time.NewTimer(sourceIdle)
	defer timer.Stop()
	for {
		select {
		case p := <-src.queue:
			size := int64(len(p) - 2)
			_, err := stream.Write(p)
			src.bytes.Add(-size)
			s.queued.Add(-size)
			if err != nil {
				return
			}
		case <-timer.C:
			left := sourceIdle - src.idle()
			if left <= 0 {
				return
			}
			timer.Reset(left)
		case <-over:
			return
		case <-ctx.Done():
			return
		}
	}
}

// back sends what comes from the stream to the source.
func (s *udpServer) back(stream Stream, src *source) error {
	r := bufio.NewReaderSize(stream, 4<<10)
	var buf []byte
	for {
		p, err := readDatagram(r, buf)
		if err != nil {
			return fmt.Errorf("from the mesh: %w", err)
		}
		buf = p
		src.touch()
		if _, err := s.conn.WriteToUDPAddrPort(p, src.addr); errors.Is(err, net.ErrClosed) {
			return err
		} // any other is the loss of a datagram
	}
}
