package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// UDPOutbound leads the datagrams of a service's streams to an address, each
// stream from a socket of its own. Make it with NewUDPOutbound; its methods may be
// called from several goroutines.
type UDPOutbound struct {
	address string
	log     *slog.Logger
	room    slots
	rarely  *rate.Sometimes
}

// NewUDPOutbound makes a UDPOutbound to a host:port, which is looked up with
// each stream.
func NewUDPOutbound(address string, log *slog.Logger) *UDPOutbound {
	return &UDPOutbound{address: address, log: log, room: make(slots, maxSources), rarely: sparingly()}
}

// Handle serves a stream and returns when it is over: at its end, when ctx ends,
// or after twice the time that the other end remembers its senders without a
// datagram.
func (u *UDPOutbound) Handle(ctx context.Context, stream Stream) {
	refuse := func(err error) {
		u.rarely.Do(func() { u.log.Warn("datagrams cannot be led on", "from", stream.RemoteAddr(), "err", err) })
		stream.Reset(resetCode, err.Error())
	}
	if !u.room.take() {
		refuse(fmt.Errorf("there are %d senders already", maxSources))
		return
	}
	defer u.room.give()
	d := net.Dialer{Timeout: dialTime}
	conn, err := d.DialContext(ctx, "udp", u.address)
	if err != nil {
		refuse(err)
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(ctx, func() {
		conn.Close()
		stream.Close()
	})
	var active atomic.Int64
	begun := time.Now()
	touch := func() { active.Store(int64(time.Since(begun))) }
	back := make(chan struct{})
	go func() {
		defer close(back)
		defer cancel()
		u.back(stream, conn, touch)
	}()
	go func() {
		defer cancel()
		u.watch(ctx, func() time.Duration { return time.Since(begun) - time.Duration(active.Load()) })
	}()
	u.forward(conn, stream, touch)
	cancel()
	<-back
}

// watch returns when nothing has gone either way for too long.
func (u *UDPOutbound) watch(ctx context.Context, idle func() time.Duration) {
	for {
		left := 2*sourceIdle - idle()
		if left <= 0 || !sleep(ctx, left) {
			return
		}
	}
}

// forward sends what comes from the stream until that ends.
func (u *UDPOutbound) forward(conn net.Conn, stream Stream, touch func()) {
	r := bufio.NewReaderSize(stream, 4<<10)
	var buf []byte
	for {
		p, err := readDatagram(r, buf)
		if err != nil {
			return
		}
		buf = p
		touch()
		if _, err := conn.Write(p); errors.Is(err, net.ErrClosed) {
			return
		} // any other is the loss of a datagram: nobody listens, or it is too large
	}
}

// maxFailures is how many errors in a row a socket may have before it is taken
// for broken.
const maxFailures = 1000

// back writes what the socket receives to the stream.
func (u *UDPOutbound) back(stream Stream, conn net.Conn, touch func()) {
	failed := 0
	buf, frame := make([]byte, maxDatagram), make([]byte, 0, maxDatagram+2)
	for {
		n, err := conn.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if failed++; failed > maxFailures {
				return
			}
			continue // nobody listens there now
		}
		failed = 0
		touch()
		if _, err := stream.Write(appendDatagram(frame[:0], buf[:n])); err != nil {
			return
		}
	}
}
