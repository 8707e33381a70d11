package chaos

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/control"
)

// A storm is twelve nodes in a ring with chords, every link of them a cable
// that can be cut, transfers between four of them, and for a while one thing after
// the other that goes wrong: relays are killed and come back, or are drained;
// any node is stopped and goes on; cables are cut, or swallow what they are
// given. Every transfer that has begun has to come to its end with the right hash,
// however long that takes. `make soak` has a storm of minutes.
const (
	stormNodes = 12
	stormTime  = 12 * time.Second
	stormTrips = 3 // things that are out of order at a time
)

// stormLength is how long things go wrong.
func stormLength(t *testing.T) time.Duration {
	text := os.Getenv("RANVIER_SOAK")
	if text == "" {
		return stormTime
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal("RANVIER_SOAK: ", err)
	}
	return d
}

// cable leads connections on to a node, as long as it is whole.
type cable struct {
	l    net.Listener
	to   *node
	dead atomic.Bool // what comes is closed at once
	hole atomic.Bool // what comes is swallowed

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

func newCable(t *testing.T, to *node) *cable {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{l: l, to: to, conns: map[net.Conn]struct{}{}}
	var all sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		c.dead.Store(true)
		c.cut()
		all.Wait()
	})
	all.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { c.lead(near) })
		}
	})
	return c
}

func (c *cable) lead(near net.Conn) {
	defer near.Close()
	if c.dead.Load() {
		return
	}
	far, err := net.DialTimeout("tcp", fmt.Sprint("127.0.0.1:", c.to.port), 5*time.Second)
	if err != nil {
		return
	}
	defer far.Close()
	c.mu.Lock()
	c.conns[near], c.conns[far] = struct{}{}, struct{}{}
	c.mu.Unlock()
	if c.dead.Load() { // it was cut meanwhile
		near.Close()
		far.Close()
	}
	var both sync.WaitGroup
	both.Go(func() { c.carry(far, near) })
	both.Go(func() { c.carry(near, far) })
	both.Wait()
	c.mu.Lock()
	delete(c.conns, near)
	delete(c.conns, far)
	c.mu.Unlock()
}

func (c *cable) carry(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if c.hole.Load() {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// cut ends all connections. One that has swallowed something must not go on.
func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		conn.Close()
	}
}

// receiver takes connections, and says of what came on each: "ok" as a greeting,
// then the hash of what was sent up to the half-close.
func receiver(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.WriteString(conn, "ok\n")
				h := sha256.New()
				if _, err := io.Copy(h, conn); err == nil {
					fmt.Fprintln(conn, hex.EncodeToString(h.Sum(nil)))
				}
			}()
		}
	}()
	return l.Addr().String()
}

// errNotBegun: there was no way to begin a transfer.
var errNotBegun = errors.New("not begun")

// transfer sends size bytes, some at each tick, and compares the hashes.
func transfer(entry string, rng *rand.Rand, size int) error {
	conn, err := net.Dial("tcp", entry)
	if err != nil {
		return fmt.Errorf("%w: %v", errNotBegun, err)
	}
	defer conn.Close()
	lines := bufio.NewReader(conn)
	if greeting, err := lines.ReadString('\n'); err != nil || greeting != "ok\n" {
		return fmt.Errorf("%w: %q, %v", errNotBegun, greeting, err)
	}
	h := sha256.New()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	block := make([]byte, 16<<10)
	for sent := 0; sent < size; sent += len(block) {
		<-tick.C
		for i := 0; i < len(block); i += 8 {
			binary.LittleEndian.PutUint64(block[i:], rng.Uint64())
		}
		h.Write(block)
		if _, err := conn.Write(block); err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", sent, size, err)
		}
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	got, err := lines.ReadString('\n')
	if want := hex.EncodeToString(h.Sum(nil)); err != nil || strings.TrimSpace(got) != want {
		return fmt.Errorf("of %d bytes the hash is %s, and the other end says %q, %v", size, want, got, err)
	}
	return nil
}

type storm struct {
	t       *testing.T
	rng     *rand.Rand
	nodes   []*node
	cables  []*cable
	entries []string // addresses at which transfers begin
	broken  map[any]struct{}
	mends   []mend
	count   map[string]int
}

// mend is what puts something in order again: at a time, and when the
// condition holds.
type mend struct {
	what any
	at   time.Time
	when func() bool
	do   func()
}

// isEnd tells whether transfers begin and end at a node. These are stopped, but
// never killed: a stream does not outlive its ends.
func isEnd(i int) bool { return i%3 == 0 }

func newStorm(t *testing.T, seed uint64) *storm {
	s := &storm{t: t, rng: rand.New(rand.NewPCG(seed, 12)), broken: map[any]struct{}{}, count: map[string]int{}}
	there := receiver(t)
	s.nodes = make([]*node, stormNodes)
	for i := range s.nodes {
		items := ""
		for _, to := range []int{i - 1, i - 5, i - 11} { // a ring, and chords
			if to >= 0 {
				c := newCable(t, s.nodes[to])
				s.cables = append(s.cables, c)
				items += fmt.Sprintf("- tcp-peer: {address: '%s'}\n", c.l.Addr())
			}
		}
		if isEnd(i) {
			items += fmt.Sprintf("- tcp-client: {service: there, address: '%s'}\n"+
				"- tcp-server: {bindaddr: 127.0.0.1, port: 0, remotenode: n%d, remoteservice: there}\n", there, (i+6)%stormNodes)
		}
		s.nodes[i] = newNode(t, fmt.Sprint("n", i), ", resumetime: 10m", items)
		s.nodes[i].start()
		if isEnd(i) {
			s.entries = append(s.entries, s.nodes[i].bound())
		}
	}
	return s
}

// bound is the address of the node's one service, from its log.
func (n *node) bound() string {
	n.t.Helper()
	var found []string
	re := regexp.MustCompile(`a service of the mesh is served here" .*bound=(\S+)`)
	n.eventually("the service of node "+n.id, func() bool {
		text, _ := os.ReadFile(n.log.Name())
		found = re.FindStringSubmatch(string(text))
		return found != nil
	})
	return found[1]
}

// all waits until every node reaches every other one.
func (s *storm) all() {
	for _, from := range s.nodes {
		for _, to := range s.nodes {
			from.eventually(fmt.Sprintf("%s to reach %s", from.id, to.id), func() bool {
				c, err := control.Dial(s.t.Context(), from.socket())
				if err != nil {
					return false
				}
				defer c.Close()
				_, err = c.Ping(s.t.Context(), to.id)
				return err == nil
			})
		}
	}
}

func (s *storm) between(low, high int) time.Duration {
	return time.Duration(low+s.rng.IntN(high-low)) * time.Millisecond
}

// trip puts something out of order, unless it is already.
func (s *storm) trip() {
	if len(s.broken) >= stormTrips {
		return
	}
	c, i := s.cables[s.rng.IntN(len(s.cables))], s.rng.IntN(stormNodes)
	n, what := s.nodes[i], s.rng.IntN(6)
	if what >= 2 && what <= 4 && isEnd(i) {
		what = 5 // an end is stopped at most
	}
	var object any = n
	if what < 2 {
		object = c
	}
	if _, already := s.broken[object]; already {
		return
	}
	s.broken[object] = struct{}{}
	always := func() bool { return true }
	later := func(name string, after time.Duration, when func() bool, do func()) {
		s.count[name]++
		s.mends = append(s.mends, mend{object, time.Now().Add(after), when, do})
	}
	switch what {
	case 0:
		c.dead.Store(true)
		c.cut()
		later("cables cut", s.between(0, 2000), always, func() { c.dead.Store(false) })
	case 1:
		c.hole.Store(true)
		later("cables that swallow", s.between(100, 5000), always, func() {
			c.cut() // what has swallowed something must not go on
			c.hole.Store(false)
		})
	case 2, 3:
		n.kill()
		later("relays killed", s.between(0, 2000), always, n.start)
	case 4:
		wait := n.wait
		n.cmd.Process.Signal(syscall.SIGTERM)
		later("relays drained", s.between(0, 1000), func() bool {
			select {
			case <-wait:
				return true
			default:
				return false
			}
		}, n.start)
	case 5:
		n.cmd.Process.Signal(syscall.SIGSTOP)
		later("nodes stopped", s.between(100, 4500), always, func() { n.cmd.Process.Signal(syscall.SIGCONT) })
	}
}

// mend puts in order what is due, or everything.
func (s *storm) mend(everything bool) {
	var left []mend
	for _, m := range s.mends {
		if !everything && (time.Now().Before(m.at) || !m.when()) {
			left = append(left, m)
			continue
		}
		if !m.when() {
			s.nodes[0].eventually("the end of a node that drains", m.when)
		}
		m.do()
		delete(s.broken, m.what)
	}
	s.mends = left
}

func TestStorm(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := newStorm(t, seed)
	s.all()

	var calm atomic.Bool
	var done, begun atomic.Int64
	var all sync.WaitGroup
	over := make(chan struct{})
	for i, entry := range s.entries {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		all.Go(func() {
			for !calm.Load() {
				begun.Add(1)
				err := transfer(entry, rng, rng.IntN(8<<20))
				switch {
				case err == nil:
					done.Add(1)
				case !errors.Is(err, errNotBegun):
					t.Errorf("transfer to %s: %v", entry, err)
					return
				}
			}
		})
	}
	go func() { all.Wait(); close(over) }()

	end := time.After(stormLength(t))
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for storming := true; storming; {
		select {
		case <-end:
			storming = false
		case <-tick.C:
			s.mend(false)
			if s.rng.IntN(6) == 0 {
				s.trip()
			}
		}
	}
	s.mend(true)
	calm.Store(true)
	select {
	case <-over:
	case <-time.After(3 * patience):
		t.Errorf("transfers have not ended %v after the storm", 3*patience)
	}
	s.all()
	t.Logf("%d transfers of %d came to their end; %v", done.Load(), begun.Load(), s.count)
	if done.Load() == 0 {
		t.Error("not one transfer came to its end")
	}
}
