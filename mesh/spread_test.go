package mesh

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/pipe"
	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/routing"
)

// Ways of equal cost share the streams, wherever on the way they part: at the
// originator, at a relay, among the homes of a leaf.
func TestWaysOfEqualCostShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		n.start("a")
		n.start("left", "a")
		n.start("right", "a")
		n.start("z", "left", "right")
		n.startWith(Config{ID: "far", Role: Ephemeral}, "a")
		n.startWith(Config{ID: "edge", Role: Leaf}, "left", "right")
		dear := PeerConfig{Address: n.addrs["left"], Cost: 5 * routing.CostUnit}
		n.startWith(Config{ID: "spare", Role: Leaf, Peers: []PeerConfig{dear}}, "right")
		for _, to := range []routing.NodeID{"a", "z", "edge", "spare"} {
			n.reach("a", to)
			n.reach("z", to)
		}
		time.Sleep(time.Second)
		// Who is suspected elsewhere changes nothing.
		n.nodes["a"].suspects.add(time.Now(), []routing.NodeID{"elsewhere"}, "of nothing")
		for _, tt := range []struct {
			from, to routing.NodeID
			shared   bool
		}{{"a", "z", true}, {"far", "z", true}, {"a", "edge", true}, {"edge", "z", true}, {"spare", "z", false}, {"a", "spare", false}} {
			const pings = 200
			left := 0
			for range pings {
				_, path, err := n.nodes[tt.from].Ping(t.Context(), tt.to)
				if err != nil {
					t.Fatal(err)
				}
				for _, hop := range path {
					if hop.Node == "left" {
						left++
					}
				}
			}
			if share := left * 100 / pings; tt.shared && (share < 30 || share > 70) || !tt.shared && share > 0 {
				t.Errorf("from %s to %s %d %% go over one of two ways", tt.from, tt.to, share)
			}
		}
	})
}

// answerer is a link whose streams give one answer, or none can be opened.
type answerer struct {
	link.Link
	err    error
	answer wire.Answer
}

func (l answerer) Open(context.Context) (net.Conn, error) {
	near, far := pipe.New(pipeAddr("near"), pipeAddr("far"))
	if l.err != nil {
		return nil, l.err
	}
	go func() {
		wire.ReadFrame(far, nil, wire.MaxFrame)
		frame, _ := l.answer.Append(nil)
		far.Write(frame)
		io.Copy(io.Discard, far)
		far.Close()
	}()
	return near, nil
}

type pipeAddr string

func (pipeAddr) Network() string  { return "pipe" }
func (a pipeAddr) String() string { return string(a) }

// What a neighbour does wrong is told as that, and another one is asked.
func TestAnswersThatAreNone(t *testing.T) {
	hops := func(n int, first routing.NodeID) []wire.Hop {
		path := []wire.Hop{{Node: first}}
		for i := 1; i < n; i++ {
			path = append(path, wire.Hop{Node: routing.NodeID(fmt.Sprint("n", i))})
		}
		return path
	}
	for name, tt := range map[string]struct {
		bad  answerer
		want wire.Code
	}{
		"64 hops":        {answerer{answer: wire.Answer{Node: "n63", Path: hops(wire.MaxPath, "bad")}}, wire.CodeMalformed},
		"of another":     {answerer{answer: wire.Answer{Node: "z", Path: hops(2, "another")}}, wire.CodeMalformed},
		"no more room":   {answerer{err: fmt.Errorf("open: %w", link.ErrBusy)}, wire.CodeBusy},
		"the link broke": {answerer{err: link.ErrClosed}, wire.CodeLinkDown},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := New(t.Context(), Config{ID: "edge", Role: Leaf})
			if err != nil {
				t.Fatal(err)
			}
			add := func(id routing.NodeID, cost routing.Cost, l link.Link) {
				m.neighbours[id] = &neighbour{mesh: m, id: id, link: l, wish: cost, hello: wire.Hello{Role: Router}}
			}
			add("bad", 1, tt.bad)
			ask := func() wire.Answer {
				stream, answer := m.openVia(t.Context(), wire.Open{To: "z", From: "edge", Path: []routing.NodeID{"edge"}, Attempts: wire.MaxAttempts})
				if stream != nil {
					stream.Close()
				}
				return answer
			}
			a := ask()
			if _, err := a.Append(nil); err != nil || a.Code != tt.want || a.Node != "edge" {
				t.Errorf("told is %+v, %v", a, err)
			}
			add("good", 2, answerer{answer: wire.Answer{Node: "z", Path: hops(wire.MaxPath-1, "good")}})
			if a := ask(); a.Code != wire.CodeOK || len(a.Path) != wire.MaxPath {
				t.Errorf("with a better neighbour: %+v", a)
			}
		})
	}
}
