package mesh

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/mesh/session"
	"github.com/ranvier-mesh/ranvier/routing"
)

// Who has too many streams to a node is refused more, with the reason and its code;
// others are not, and neither is he when some have ended.
func TestStreamsOfAnIdentityAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		log := &told{}
		b := n.startWith(Config{ID: "b", Listeners: []ListenerConfig{{Address: "mem://b"}}, Log: slog.New(slog.NewTextHandler(log, nil))})
		b.limits.own = 3
		a, other := n.start("a", "b"), n.start("other", "b")
		n.reach("a", "b")
		n.reach("other", "b")
		l, err := b.Listen("test")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		dial := func(from *running) (near, far *Conn) {
			t.Helper()
			near, err := from.Dial(t.Context(), "b", "test")
			if err != nil {
				t.Fatal(err)
			}
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			return near, c.(*Conn)
		}
		var near, far [3]*Conn
		for i := range near {
			near[i], far[i] = dial(a)
		}
		for range 5 {
			c, err := a.Dial(t.Context(), "b", "test")
			if err == nil { // the refusal comes after the handshake
				_, err = c.Read(make([]byte, 1))
				c.Close()
			}
			var reset *session.ResetError
			if !errors.As(err, &reset) || reset.Code != wire.CodeBusy || !strings.Contains(err.Error(), "a has 3 streams to this node already") {
				t.Fatalf("a stream too many: %v", err)
			}
		}
		if got := b.Status().Limited; got != (Limited{Streams: 5}) {
			t.Errorf("counted %+v", got)
		}
		if got := log.count("beyond a limit"); got != 1 {
			t.Errorf("%d lines in the log", got)
		}
		on, of := dial(other)
		on.Close()
		of.Close()
		near[0].Close()
		far[0].Close()
		synctest.Wait()
		near[0], far[0] = dial(a)
		for i := range near {
			near[i].Close()
			far[i].Close()
		}
		time.Sleep(time.Second) // in the bubble: all have left
		b.limits.mu.Lock()
		defer b.limits.mu.Unlock()
		if left := b.limits.by["a"].open; left != 0 {
			t.Errorf("%d streams are counted that have ended", left)
		}
	})
}

// How many streams somebody may open is a matter of time, and of whom it is known is
// bounded.
func TestLimitsOfStreams(t *testing.T) {
	t.Parallel()
	l, now := newLimits(slog.New(slog.DiscardHandler), 1000), time.Unix(1_000_000, 0)
	all := session.NewBudget(1000)
	open := func(id routing.NodeID) error {
		_, err := l.enter(now, id, all)
		if err == nil {
			l.leave(id)
		}
		return err
	}
	for i := range ownBurst {
		if err := open("a"); err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
	}
	if err := open("a"); err == nil || !strings.Contains(err.Error(), "more than 1000 streams a second") {
		t.Errorf("%v", err)
	}
	if err := open("b"); err != nil {
		t.Error(err)
	}
	now = now.Add(time.Second)
	for i := range ownRate {
		if err := open("a"); err != nil {
			t.Fatalf("stream %d a second later: %v", i, err)
		}
	}
	if open("a") == nil {
		t.Error("one too many")
	}
	for i := range 3 * maxTallies {
		now = now.Add(time.Second)
		if err := open(routing.NodeID(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		if l.tell(now, "streams", routing.NodeID(fmt.Sprint(i)), "why"); len(l.by) > maxTallies || len(l.told) > maxTallies {
			t.Fatalf("%d and %d are remembered", len(l.by), len(l.told))
		}
	}
	if l.count.Streams != 2 {
		t.Errorf("counted %+v", l.count)
	}
}

// All streams of one identity share half of the memory, and others have their own half.
func TestMemoryOfAnIdentity(t *testing.T) {
	t.Parallel()
	l, now := newLimits(slog.New(slog.DiscardHandler), 1000), time.Unix(1_000_000, 0)
	all := session.NewBudget(1000)
	one, _ := l.enter(now, "a", all)
	two, _ := l.enter(now, "a", all)
	other, _ := l.enter(now, "b", all)
	if one != two || one == other || one == all {
		t.Errorf("shares %p %p %p of %p", one, two, other, all)
	}
}

// An origin's adverts beyond the limit are dropped on the link that brings too many,
// and nobody else's.
func TestAdvertsOfAnOriginAreBounded(t *testing.T) {
	t.Parallel()
	a, now := &adverts{}, time.Unix(1_000_000, 0)
	for i := range advertBurst {
		if !a.take(now, "eve", advertBurst) {
			t.Fatalf("advert %d is dropped", i)
		}
	}
	if a.take(now, "eve", advertBurst) || !a.take(now, "b", advertBurst) {
		t.Error("not the one who floods")
	}
	now = now.Add(time.Second)
	for range advertRate {
		if !a.take(now, "eve", advertBurst) {
			t.Fatal("nothing comes back")
		}
	}
	if a.take(now, "eve", advertBurst) {
		t.Error("too much comes back")
	}
	now = now.Add(time.Hour)
	for i := range 3 * maxTallies {
		if now = now.Add(time.Second); !a.take(now, routing.NodeID(fmt.Sprint(i)), advertBurst) || len(a.by) > maxTallies {
			t.Fatalf("%d origins are remembered", len(a.by))
		}
	}
}

// A member that floods its own adverts is told why its link ends; nobody else
// notices.
func TestFloodOfAdverts(t *testing.T) {
	t.Parallel()
	s := newSociety(t)
	self := s.self("a", identity.Router)
	a, err := New(t.Context(), Config{ID: "a", Epoch: 1, Self: self, Transports: over(self), Listeners: []ListenerConfig{{Address: "tcp://127.0.0.1:0"}}})
	if err != nil {
		t.Fatal(err)
	}
	const burst = 30
	a.limits.burst = burst
	s.launch(a)
	victim := s.router("victim", a)
	eventually(t, "the victim is known", reaches(a, "victim"))
	eve := s.self("eve", identity.Router)
	var flood []byte
	for seq := range burst + maxFaults + 700 { // more than comes back in half a minute
		flood = append(flood, sealed(t, eve, map[int]any{1: "eve", 2: 0, 3: 2, 4: seq + 1})...)
	}
	ended, why := sendAll(t, eve, "eve", a, flood, time.Minute)
	if !ended || why.Code != wire.CodeBusy || !strings.Contains(why.Reason, "beyond a limit") {
		t.Errorf("the link ended: %v, and says %+v", ended, why)
	}
	if got := a.Status().Limited.Adverts; got < maxFaults {
		t.Errorf("%d adverts are counted", got)
	}
	if !reaches(a, "victim")() || !reaches(victim, "a")() {
		t.Error("the victim is cut off")
	}
}

// count is how many lines have a text in them.
func (l *told) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}
