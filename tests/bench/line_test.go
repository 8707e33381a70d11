package bench

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/routing"
)

// nodes starts children that are members of one mesh.
type nodes struct {
	b    *testing.B
	ca   *identity.CA
	dirs string
}

func newNodes(b *testing.B) *nodes { return &nodes{b: b, ca: newCA(b), dirs: b.TempDir()} }

// peer is a child and the pipe to it; one goroutine uses it at a time.
type peer struct {
	b     *testing.B
	spec  spec
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
	addrs []string
	cpu   time.Duration // when it was last asked
}

// start starts a child, once those it dials have started.
func (n *nodes) start(s spec) *peer {
	n.b.Helper()
	if s.Identity == "" {
		s.Identity = filepath.Join(n.dirs, s.ID)
		claims := identity.Claims{ID: routing.NodeID(s.ID), Role: identity.Router}
		if _, err := identity.Load(s.Identity, nil); err != nil {
			if _, err := identity.Begin(n.ca, claims, s.Identity); err != nil {
				n.b.Fatal(err)
			}
		}
	}
	text, err := json.Marshal(s)
	if err != nil {
		n.b.Fatal(err)
	}
	c := &peer{b: n.b, spec: s, cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	c.cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		n.b.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		n.b.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		n.b.Fatal(err)
	}
	n.b.Cleanup(c.end)
	c.addrs = c.answer().Addrs
	return c
}

// end lets the child end by itself, so that it writes its profile.
func (c *peer) end() {
	c.in.Close()
	late := time.AfterFunc(5*time.Second, func() { c.cmd.Process.Kill() })
	defer late.Stop()
	c.cmd.Wait()
}

func (c *peer) answer() answer {
	c.b.Helper()
	line, err := c.out.ReadBytes('\n')
	if err != nil {
		c.b.Fatalf("child %s: %v", c.spec.ID, err)
	}
	var a answer
	if err := json.Unmarshal(line, &a); err != nil {
		c.b.Fatalf("child %s: %v: %q", c.spec.ID, err, line)
	}
	return a
}

// try gives an order and returns what came of it.
func (c *peer) try(o order) answer {
	c.b.Helper()
	if err := json.NewEncoder(c.in).Encode(o); err != nil {
		c.b.Fatal(err)
	}
	return c.answer()
}

// do is try for what must not fail.
func (c *peer) do(o order) answer {
	c.b.Helper()
	a := c.try(o)
	if a.Err != "" {
		c.b.Fatalf("child %s, %s: %s", c.spec.ID, o.Do, a.Err)
	}
	return a
}

// reach waits until a node is reached.
func (c *peer) reach(to string) {
	c.b.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for late := time.Now().Add(20 * time.Second); ; <-tick.C {
		a := c.try(order{Do: "ping", To: to})
		if a.Err == "" {
			return
		}
		if time.Now().After(late) {
			c.b.Fatalf("child %s: %s", c.spec.ID, a.Err)
		}
	}
}

// line is a line of children.
type line []*peer

func (l line) first() *peer { return l[0] }
func (l line) last() string { return l[len(l)-1].spec.ID }

// line starts one of a kind; change may alter a spec.
func (n *nodes) line(kind string, relays int, change ...func(i int, s *spec)) line {
	n.b.Helper()
	var l line
	for i := range relays + 2 {
		s := spec{Kind: kind, ID: "n" + strconv.Itoa(i), Listen: 1}
		if i > 0 {
			s.Peers = l[i-1].addrs[:1]
		}
		if i == relays+1 {
			s.Listen = 0
			if kind == "mesh" {
				s.Listen = 1
			}
		}
		for _, f := range change {
			f(i, &s)
		}
		l = append(l, n.start(s))
	}
	l.first().reach(l.last())
	return l
}

// cpu is what the whole line has used since it was asked the last time.
func (l line) cpu() time.Duration {
	var sum time.Duration
	for _, c := range l {
		now := c.do(order{Do: "stats"}).CPU
		sum += now - c.cpu
		c.cpu = now
	}
	return sum
}

// sent is one transfer over a line.
type sent struct{ mbPerSecond, cpuPerGB float64 }

func (l line) send(streams int, bytes int64) sent {
	l.first().b.Helper()
	l.first().do(order{Do: "sinks", To: l.last(), Streams: streams})
	l.cpu()
	a := l.first().do(order{Do: "send", Bytes: bytes})
	return sent{float64(bytes) / 1e6 / a.Took.Seconds(), l.cpu().Seconds() / (float64(bytes) / 1e9)}
}
