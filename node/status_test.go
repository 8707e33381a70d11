package node

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/control"
	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/tcplink"
)

// logText is a log that tests read.
type logText struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// lines are those that have all of some words in them.
func (l *logText) lines(words ...string) (found []string) {
	for line := range strings.Lines(l.String()) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			found = append(found, line)
		}
	}
	return found
}

// logging is start with options, and a log at all levels.
func logging(t *testing.T, text string, opt Options) (*Node, *logText) {
	t.Helper()
	log := &logText{}
	opt.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if opt.Transports == nil {
		opt.Transports = map[string]link.Transport{"tcp": tcplink.Transport{}}
	}
	n, err := New(t.Context(), parse(t, text), opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	over, ready := make(chan error, 1), make(chan struct{})
	go func() { over <- n.Run(ctx, func([]string) { close(ready) }) }()
	<-ready
	t.Cleanup(func() {
		stop()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
	return n, log
}

// within waits for what other goroutines bring about.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not so after 30 s: %s", what)
		}
	}
}

func statusOf(t *testing.T, n *Node) control.Status {
	t.Helper()
	s, err := backend{n}.Status(t.Context(), control.AllFields())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A node without an identity says so in its log, and is marked in the status of
// all that see it, a leaf too.
func TestInsecureIsToldToAll(t *testing.T) {
	dir := t.TempDir()
	a, log := logging(t, fmt.Sprintf("- node: {id: a, datadir: %s/a, insecure: true}\n- tcp-listener: {port: 0, bindaddr: 127.0.0.1}\n", dir), Options{Open: true})
	peer := "- tcp-peer: " + strings.TrimPrefix(a.Addrs()[0], "tcp://") + "\n"
	b, _ := logging(t, fmt.Sprintf("- node: {id: b, datadir: %s/b, insecure: true}\n- tcp-listener: {port: 0, bindaddr: 127.0.0.1}\n", dir)+peer, Options{})
	leaf, _ := logging(t, fmt.Sprintf("- node: {id: leaf, datadir: %s/leaf, insecure: true, leaf: true}\n", dir)+peer, Options{})
	for _, want := range []string{"insecure: this node has no identity", "anybody who reaches this node may use its work types"} {
		if len(log.lines("level=WARN", want)) != 1 {
			t.Errorf("%q is not in the log once:\n%s", want, log)
		}
	}
	if s := statusOf(t, a); !s.Open || !s.Insecure {
		t.Errorf("a's own status: open %v, insecure %v", s.Open, s.Insecure)
	}
	within(t, "b sees that a and the leaf have no identity", func() bool {
		marked := map[string]bool{}
		for _, n := range statusOf(t, b).Nodes {
			marked[n.ID] = n.Insecure
		}
		return marked["a"] && marked["b"] && marked["leaf"]
	})
	within(t, "the leaf sees it of its home", func() bool {
		s := statusOf(t, leaf)
		return len(s.Links) == 1 && s.Links[0].NodeID == "a" && s.Links[0].Insecure && s.Insecure
	})
}

func TestSuspectsInTheStatus(t *testing.T) {
	t.Parallel()
	now := time.Now()
	got := suspects(mesh.Status{Suspects: []mesh.Suspect{{Node: "eve", Times: 2, First: now.Add(-time.Minute), Last: now, Why: "because"}}})
	if len(got) != 1 || got[0] != (control.Suspect{NodeID: "eve", Times: 2, First: now.Add(-time.Minute), Last: now, Why: "because"}) {
		t.Errorf("%+v", got)
	}
}
