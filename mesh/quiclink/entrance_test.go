package quiclink

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
)

// Who begins handshakes and does not end them has a part of the places, and keeps
// nobody else out.
func TestHalfDoneHandshakes(t *testing.T) {
	l, accepted := listen(t, transport(t, Config{}))
	pc, err := net.ListenPacket("udp", "127.0.0.2:0")
	if err != nil {
		t.Skipf("this host has no 127.0.0.2: %v", err)
	}
	flood := &quic.Transport{Conn: pc}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	var stalled, refused atomic.Int64
	var known, over sync.WaitGroup
	defer func() {
		stop()
		over.Wait()
		flood.Close()
		pc.Close()
	}()
	for range maxHandshakes + 50 {
		var once sync.Once
		known.Add(1)
		settled := func(as *atomic.Int64) {
			once.Do(func() {
				as.Add(1)
				known.Done()
			})
		}
		over.Go(func() {
			_, err := flood.Dial(ctx, l.Addr(), &tls.Config{
				InsecureSkipVerify: true, NextProtos: []string{alpn}, MinVersion: tls.VersionTLS13,
				VerifyConnection: func(tls.ConnectionState) error {
					settled(&stalled)
					<-ctx.Done() // the server waits for the end of the handshake
					return ctx.Err()
				},
			}, nil)
			if refusal := (*quic.TransportError)(nil); errors.As(err, &refusal) && refusal.ErrorCode == quic.ConnectionRefused {
				settled(&refused)
			}
			settled(new(atomic.Int64)) // it took too long
		})
	}
	known.Wait()
	t.Logf("%d wait in their handshakes, %d were refused", stalled.Load(), refused.Load())
	if n := stalled.Load(); n >= maxHandshakes || refused.Load() == 0 {
		t.Errorf("one host holds %d handshakes half done, it may have %d", n, proofFrom)
	}
	near, err := transport(t, Config{}).Dial(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatalf("another host: %v", err)
	}
	defer near.Close() // not before it is accepted, or there may be nothing to accept
	select {
	case far := <-accepted:
		far.Close()
	case <-time.After(time.Minute):
		t.Error("the link is not accepted")
	}
}

// Places are given back by who is accepted and by who gives up, and beyond a
// quarter of them an address has to be proved.
func TestEntrance(t *testing.T) {
	t.Parallel()
	synctest.Test(t, testEntrance)
}

func testEntrance(t *testing.T) {
	e := newEntrance(slog.New(slog.DiscardHandler))
	peer := &quic.ClientInfo{RemoteAddr: &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1}}
	if e.prove(peer.RemoteAddr) {
		t.Error("the first has to prove its address")
	}
	ctx, end := context.WithCancel(t.Context())
	var err error
	n := 0
	var last context.Context
	for ; err == nil; n++ {
		var c context.Context
		if c, err = e.enter(ctx, peer); err == nil {
			last = c
		}
	}
	if n--; n != proofFrom || !errors.Is(err, errCrowded) || e.places.Taken() != n {
		t.Errorf("one host has %d places, %d are taken: %v", n, e.places.Taken(), err)
	}
	if !e.prove(peer.RemoteAddr) {
		t.Error("addresses need no proof with a quarter of the places taken")
	}
	last.Value(placeKey{}).(func())()
	if e.places.Taken() != n-1 {
		t.Error("who is accepted keeps a place")
	}
	end()
	synctest.Wait()
	if left := e.places.Taken(); left != 0 {
		t.Errorf("%d places are held by nobody", left)
	}
}
