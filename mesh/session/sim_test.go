package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/ranvier-mesh/ranvier/internal/pipe"
	"github.com/ranvier-mesh/ranvier/internal/wire"
)

// simnet is a network between the two ends of one session: each carrier goes
// through a relay that is slow, and that can be cut or turn into a black hole.
type simnet struct {
	budget *Budget
	a, b   *Conn // a dials

	mu      sync.Mutex
	now     *way
	ways    int
	refuse  int           // so many attempts fail from now on
	down    time.Time     // all fail until then
	delay   time.Duration // of each 8 KiB in a relay
	resumed []time.Time   // when b was given another carrier
}

// way is a carrier: a ── near │ relay │ far ── b.
type way struct {
	near, far *pipe.Conn // the relay's ends
	mu        sync.Mutex
	hole      bool
}

func (n *simnet) carrier() (toA, toB *pipe.Conn) {
	x, near := pipe.New(addr("a"), addr("relay"))
	far, y := pipe.New(addr("relay"), addr("b"))
	w := &way{near: near, far: far}
	n.mu.Lock()
	n.now = w
	n.ways++
	n.mu.Unlock()
	for _, ends := range [][2]*pipe.Conn{{near, far}, {far, near}} {
		go func() {
			n.carry(w, ends[0], ends[1])
			near.Close()
			far.Close()
		}()
	}
	return x, y
}

// carry is one direction of a relay; in the bubble.
func (n *simnet) carry(w *way, from, to net.Conn) {
	buf := make([]byte, 8<<10)
	for {
		k, err := from.Read(buf)
		if err != nil {
			return
		}
		n.mu.Lock()
		delay := n.delay
		n.mu.Unlock()
		time.Sleep(delay) // in the bubble
		w.mu.Lock()
		hole := w.hole
		w.mu.Unlock()
		if hole {
			continue
		}
		if _, err := to.Write(buf[:k]); err != nil {
			return
		}
	}
}

func (n *simnet) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.now.near.Break(nil)
	n.now.far.Break(nil)
}

func (n *simnet) blackHole() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.now.mu.Lock()
	defer n.now.mu.Unlock()
	n.now.hole = true
}

// move has a go on over another carrier while this one works.
func (n *simnet) move() {
	n.mu.Lock()
	n.refuse = 0
	n.mu.Unlock()
	if k, err := n.redial(context.Background(), 0, nil); err == nil && !n.a.Replace(k) {
		k.Conn.Close()
	}
}

// redial is a's; the other end of the carrier does what a node does with it.
func (n *simnet) redial(ctx context.Context, _ int, _ error) (Carrier, error) {
	n.mu.Lock()
	refused := n.refuse > 0 || time.Now().Before(n.down)
	n.refuse--
	n.mu.Unlock()
	if refused {
		return Carrier{}, errors.New("no way")
	}
	x, y := n.carrier()
	go func() {
		t, body, err := wire.ReadFrame(y, nil, wire.MaxHelloFrame)
		if err == nil && t != wire.TypeResume {
			err = fmt.Errorf("a carrier begins with %v", t)
		}
		var r wire.Resume
		if err == nil {
			r, err = wire.ParseResume(body)
		}
		if err != nil || !n.b.Resume(Carrier{Conn: y}, r.Number) {
			reset, _ := wire.Reset{Code: wire.CodeBrokenStream}.Append(nil)
			y.Write(reset)
			y.Close()
			return
		}
		n.mu.Lock()
		n.resumed = append(n.resumed, time.Now())
		n.mu.Unlock()
	}()
	return Carrier{Conn: x}, nil
}

func newSim(budget int64) *simnet {
	n := &simnet{budget: NewBudget(budget)}
	x, y := n.carrier()
	n.a = New(Carrier{Conn: x, Way: "via relay"}, Config{Name: "to b", Budget: n.budget, Redial: n.redial})
	n.b = New(Carrier{Conn: y, Way: "via relay"}, Config{Name: "to a", Budget: n.budget})
	return n
}

// over waits for the end of both, and sees that nothing is kept; in the bubble.
func (n *simnet) over() error {
	<-n.a.Gone()
	<-n.b.Gone()
	time.Sleep(time.Second) // in the bubble: relays end
	synctest.Wait()
	if used := n.budget.Used(); used != 0 {
		return fmt.Errorf("%d bytes of the budget are not given back", used)
	}
	return nil
}

// pattern is a reproducible run of bytes.
func pattern(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

// writeAll writes in pieces, then ends the direction.
func writeAll(c *Conn, data []byte, piece int) error {
	for len(data) > 0 {
		n, err := c.Write(data[:min(piece, len(data))])
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return c.CloseWrite()
}

// readAll reads in pieces with a pause after each; in the bubble.
func readAll(c *Conn, piece int, pause time.Duration) ([]byte, error) {
	var all []byte
	buf := make([]byte, piece)
	for {
		n, err := c.Read(buf)
		all = append(all, buf[:n]...)
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		time.Sleep(pause) // in the bubble
	}
}

// exchange sends data both ways at once and compares.
func (n *simnet) exchange(ab, ba []byte, piece int, pause time.Duration) error {
	errs := make(chan error, 4)
	go func() { errs <- writeAll(n.a, ab, piece) }()
	go func() { errs <- writeAll(n.b, ba, piece) }()
	check := func(c *Conn, want []byte, name string) {
		got, err := readAll(c, piece, pause)
		if err == nil && string(got) != string(want) {
			err = fmt.Errorf("%s got %d bytes that are not the %d that were sent", name, len(got), len(want))
		}
		errs <- err
	}
	go check(n.b, ab, "b")
	go check(n.a, ba, "a")
	var all []error
	for range 4 {
		all = append(all, <-errs)
	}
	n.a.Close()
	n.b.Close()
	return errors.Join(append(all, n.over())...)
}

// TestWhateverHappensToCarriers: no schedule of cuts, black holes and failed
// attempts loses, repeats or reorders a byte.
func TestWhateverHappensToCarriers(t *testing.T) {
	type fault struct {
		after  time.Duration
		what   string
		refuse int
	}
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		sizes := rapid.OneOf(rapid.IntRange(0, 10), rapid.IntRange(0, 400_000))
		ab, ba := pattern(seed, sizes.Draw(rt, "to b")), pattern(seed+1, sizes.Draw(rt, "to a"))
		piece := rapid.SampledFrom([]int{1000, 4096, 32719, 100_000}).Draw(rt, "piece")
		pause := time.Duration(rapid.SampledFrom([]int{0, 0, 1, 20}).Draw(rt, "pause")) * time.Millisecond
		delay := time.Duration(rapid.IntRange(0, 3000).Draw(rt, "delay")) * time.Microsecond
		budget := rapid.SampledFrom([]int64{0, 200_000, 64 << 20}).Draw(rt, "budget")
		faults := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) fault {
			return fault{
				after:  time.Duration(rapid.IntRange(0, 300_000).Draw(rt, "after")) * time.Microsecond,
				what:   rapid.SampledFrom([]string{"cut", "cut", "hole", "move", "move"}).Draw(rt, "what"),
				refuse: rapid.IntRange(0, 6).Draw(rt, "refuse"),
			}
		}), 0, 12).Draw(rt, "faults")
		var err error
		synctest.Test(t, func(t *testing.T) {
			n := newSim(budget)
			n.delay = delay
			over := make(chan error, 1)
			go func() { over <- n.exchange(ab, ba, piece, pause) }()
			for _, f := range faults {
				time.Sleep(f.after)
				n.mu.Lock()
				n.refuse = f.refuse
				n.mu.Unlock()
				switch f.what {
				case "cut":
					n.cut()
				case "move":
					n.move()
				default:
					n.blackHole()
				}
			}
			err = <-over
		})
		if err != nil {
			rt.Fatal(err)
		}
	})
}

// A session that is moved again and again loses no time and asks for no other way.
func TestMovedWithoutABreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSim(64 << 20)
		n.delay = time.Millisecond
		over := make(chan error, 1)
		data := pattern(7, 300_000)
		go func() { over <- n.exchange(data, data, 4096, 5*time.Millisecond) }()
		for range 20 {
			time.Sleep(10 * time.Millisecond) // in the bubble
			n.move()
		}
		start := time.Now()
		if err := <-over; err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("it took %v more", took)
		}
		if len(n.resumed) != 20 {
			t.Errorf("%d carriers were taken, of 20", len(n.resumed))
		}
		if k, err := n.redial(t.Context(), 0, nil); err != nil || n.a.Replace(k) {
			t.Errorf("a session that is over was moved: %v", err)
		} else {
			k.Conn.Close()
		}
	})
}

func TestABlackHoleIsLeftInTime(t *testing.T) {
	for name, idle := range map[string]time.Duration{"busy": 0, "idle for a minute": time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, up := range []bool{true, false} {
					n := newSim(64 << 20)
					from, to := n.a, n.b
					if !up {
						from, to = n.b, n.a
					}
					go from.Write([]byte("before"))
					if _, err := io.ReadFull(to, make([]byte, 6)); err != nil {
						t.Fatal(err)
					}
					time.Sleep(idle)
					n.blackHole()
					start := time.Now()
					go from.Write([]byte("after"))
					got := make([]byte, 5)
					if _, err := io.ReadFull(to, got); err != nil || string(got) != "after" {
						t.Fatalf("read %q, %v", got, err)
					}
					bound := stall + time.Second // the dialler notices by itself, or by asking
					if idle > 0 && !up {
						bound = stall + askMost
					}
					if d := time.Since(start); d > bound {
						t.Errorf("flows again after %v, want %v (dialler writes: %v)", d, bound, up)
					}
					n.a.Close()
					n.b.Close()
					if err := n.over(); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}

// A way that comes back at once each time is no way that is gone, however long
// that goes on and whether or not anything is written meanwhile.
func TestAnIdleSessionOutlivesFlaps(t *testing.T) {
	for _, every := range []time.Duration{5 * time.Second, 2 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			n := newSim(64 << 20)
			for range 2 * GiveUp / every {
				time.Sleep(every) // in the bubble
				n.cut()
			}
			if err := n.exchange(pattern(1, 1000), pattern(2, 1000), 100, 0); err != nil {
				t.Errorf("cut every %v: %v", every, err)
			}
		})
	}
}

// A way on which streams come up and no payload passes is given up all the same.
func TestAWayThatKeepsThePayloadIsGivenUp(t *testing.T) {
	now := time.Unix(0, 0)
	m := machine{dialler: true, giveUp: GiveUp}
	m.out.limit = 1 << 20
	m.attach(now, 0, true)
	m.out.written, m.out.sent = 100, 100 // and never confirmed
	m.expect(now)
	for range 100 {
		now = now.Add(stall)
		m.detach(now)
		now = now.Add(10 * time.Millisecond)
		if m.tick(now) == hopeless {
			if d := now.Sub(time.Unix(0, 0)); d > GiveUp+4*stall {
				t.Errorf("given up after %v", d)
			}
			return
		}
		m.attach(now, 0, false)
		if err := m.receiveProgress(now, wire.Progress{}); err != nil {
			t.Fatal(err)
		}
		m.out.sent = 100
		m.expect(now)
	}
	t.Error("never given up")
}

func TestTheSameWayComesBackJustInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSim(64 << 20)
		n.down = time.Now().Add(GiveUp - 2*time.Second)
		n.cut()
		if err := n.exchange(pattern(1, 300_000), pattern(2, 300_000), 5000, 0); err != nil {
			t.Error(err)
		}
	})
}

func TestGivesUpAtBothEndsAndNamesTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSim(64 << 20)
		n.down = time.Now().Add(2 * GiveUp)
		start := time.Now()
		n.cut()
		for _, c := range []*Conn{n.a, n.b} {
			var broken *BrokenError
			_, err := c.Read(make([]byte, 1))
			if !errors.As(err, &broken) || broken.After != GiveUp || broken.Name != c.cfg.Name+" (via relay)" {
				t.Errorf("read: %v", err)
			}
			if _, err := c.Write(make([]byte, 1)); !errors.As(err, &broken) {
				t.Errorf("write: %v", err)
			}
			if d := time.Since(start); d != GiveUp {
				t.Errorf("gave up after %v", d)
			}
			c.Close()
		}
		if err := n.over(); err != nil {
			t.Error(err)
		}
	})
}

func TestWhoDoesNotWaitIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, y := pipe.New(addr("a"), addr("b"))
		n := &simnet{budget: NewBudget(0)}
		n.a = New(Carrier{Conn: x}, Config{Name: "to b", Budget: n.budget, Redial: n.redial, GiveUp: -1})
		n.b = New(Carrier{Conn: y}, Config{Name: "to a", Budget: n.budget, GiveUp: -1})
		time.Sleep(time.Hour) // an idle stream is not harmed
		start := time.Now()
		x.Break(nil)
		for _, c := range []*Conn{n.a, n.b} {
			var broken *BrokenError
			if _, err := c.Read(make([]byte, 1)); !errors.As(err, &broken) || time.Since(start) != 0 {
				t.Errorf("told after %v: %v", time.Since(start), err)
			}
			c.Close()
		}
		if err := n.over(); err != nil {
			t.Error(err)
		}
	})
}

func TestBothEndsOnlyWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSim(64 << 20)
		for _, c := range []*Conn{n.a, n.b} {
			c.SetWriteDeadline(time.Now().Add(time.Minute))
			if _, err := c.Write(make([]byte, 1<<20)); err == nil {
				t.Error("a megabyte went to a peer that does not read")
			}
			c.SetWriteDeadline(time.Time{})
		}
		n.cut() // acks flow: neither end keeps what the other has, nor takes the way for dead
		time.Sleep(10 * time.Minute)
		n.mu.Lock()
		resumed := len(n.resumed)
		n.mu.Unlock()
		for _, c := range []*Conn{n.a, n.b} {
			c.mu.Lock()
			if c.m.out.held != 0 || resumed != 1 {
				t.Errorf("%d bytes are kept, %d carriers were made", c.m.out.held, resumed)
			}
			c.mu.Unlock()
		}
		n.a.Close()
		n.b.Close()
		if err := n.over(); err != nil {
			t.Error(err)
		}
	})
}

func TestTheOtherEndIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSim(64 << 20)
		n.b.mu.Lock()
		n.b.m.closed, n.b.err = true, errors.New("gone") // as after a restart
		n.b.mu.Unlock()
		n.cut()
		start := time.Now()
		if _, err := n.a.Read(make([]byte, 1)); !errors.Is(err, ErrLost) || time.Since(start) > time.Second {
			t.Errorf("read after %v: %v", time.Since(start), err)
		}
		n.a.Close()
		n.b.mu.Lock()
		n.b.finish()
		n.b.mu.Unlock()
		if err := n.over(); err != nil {
			t.Error(err)
		}
	})
}

// TestTheLastWordIsLost cuts the carrier at each moment of the end of a session:
// what was delivered is never an error to anybody.
func TestTheLastWordIsLost(t *testing.T) {
	for step := range 40 {
		synctest.Test(t, func(t *testing.T) {
			n := newSim(64 << 20)
			n.delay = time.Millisecond
			go func() {
				time.Sleep(time.Duration(step) * time.Millisecond / 4)
				n.cut()
			}()
			if err := n.exchange([]byte("request"), []byte("answer"), 100, 0); err != nil {
				t.Errorf("cut after %d/4 ms: %v", step, err)
			}
		})
	}
}

func TestAnOldResumeIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSim(64 << 20)
		n.cut()
		synctest.Wait()
		for _, number := range []uint32{0, 1} {
			x, y := pipe.New(addr("x"), addr("y"))
			if n.b.Resume(Carrier{Conn: x}, number) {
				t.Errorf("carrier %d was taken again", number)
			}
			y.Close()
		}
		if err := n.exchange([]byte("x"), []byte("y"), 10, 0); err != nil {
			t.Error(err)
		}
	})
}

func TestAnIdleSessionHoldsNoBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSim(64 << 20)
		go n.a.Write(make([]byte, 100_000))
		io.ReadFull(n.b, make([]byte, 100_000))
		time.Sleep(time.Second)
		for _, c := range []*Conn{n.a, n.b} {
			c.mu.Lock()
			if len(c.m.out.blocks)+len(c.m.in.blocks) > 0 || c.m.out.held != 0 {
				t.Errorf("%d and %d blocks are kept", len(c.m.out.blocks), len(c.m.in.blocks))
			}
			c.mu.Unlock()
		}
		n.a.Close()
		n.b.Close()
		if err := n.over(); err != nil {
			t.Error(err)
		}
	})
}
