package mesh

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/mesh/firewall"
	"github.com/ranvier-mesh/ranvier/mesh/secure"
	"github.com/ranvier-mesh/ranvier/routing"
)

// rule makes a rule of literals and expressions; "" is no pattern.
func rule(t testing.TB, action firewall.Action, from, to, toService string) firewall.Rule {
	t.Helper()
	r := firewall.Rule{Action: action, Name: "the rule"}
	for p, s := range map[*firewall.Pattern]string{&r.FromNode: from, &r.ToNode: to, &r.ToService: toService} {
		var err error
		if *p, err = firewall.ParsePattern(s); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// refusedBy dials and wants a firewall's refusal of a node, "" for none.
func refusedBy(t *testing.T, from *running, to routing.NodeID, service string, node routing.NodeID) {
	t.Helper()
	conn, err := from.Dial(t.Context(), to, service)
	if err == nil {
		conn.Close()
	}
	var refused *RefusedError
	switch {
	case node == "" && err != nil:
		t.Errorf("%s to %s:%s: %v", from.ID(), to, service, err)
	case node != "" && (!errors.As(err, &refused) || refused.Code != Forbidden || refused.Node != node):
		t.Errorf("%s to %s:%s: %v, want a refusal by %s", from.ID(), to, service, err, node)
	}
}

func TestFirewallAtTheTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		first, last := n.line(1)
		n.start("n3", "n1")
		n.reach("n3", "n2")
		for _, s := range []string{"control", "work", "web"} {
			if _, err := last.Listen(s); err != nil {
				t.Fatal(err)
			}
		}
		last.SetFirewall(firewall.Rules{
			rule(t, firewall.Accept, "n3", "", "control"),
			rule(t, firewall.Reject, "/n[0-3]/", "n2", "control"),
			rule(t, firewall.Drop, "n3", "", "web"),
			rule(t, firewall.Reject, "n0", "", "ping"),
		})
		refusedBy(t, first, "n2", "control", "n2")
		refusedBy(t, first, "n2", "work", "")
		refusedBy(t, first, "n2", "web", "")
		refusedBy(t, n.nodes["n3"], "n2", "control", "")

		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		var refused *RefusedError
		if _, err := n.nodes["n3"].Dial(ctx, "n2", "web"); !errors.As(err, &refused) || refused.Code != TimedOut || time.Since(start) < time.Second {
			t.Errorf("dropped after %v: %v", time.Since(start), err)
		}
		if _, _, err := first.Ping(t.Context(), "n2"); !errors.As(err, &refused) || refused.Code != Forbidden {
			t.Errorf("a ping that a rule rejects: %v", err)
		}
		if _, _, err := n.nodes["n3"].Ping(t.Context(), "n2"); err != nil {
			t.Errorf("a ping of another: %v", err)
		}
	})
}

func TestFirewallGovernsOtherNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		n.start("a")
		b := n.startWith(Config{
			ID: "b", FirewallNames: map[string]string{"work": "control"},
			Firewall: firewall.Rules{rule(t, firewall.Reject, "", "b", "control")},
		}, "a")
		n.reach("a", "b")
		if _, err := b.Listen("work"); err != nil {
			t.Fatal(err)
		}
		refusedBy(t, n.nodes["a"], "b", "work", "b")
	})
}

// TestFirewallAtARelay: a relay knows its neighbours, not who opens.
func TestFirewallAtARelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		first, last := n.line(2) // n0 n1 n2 n3
		if _, err := last.Listen("web"); err != nil {
			t.Fatal(err)
		}
		relay := n.nodes["n2"]
		relay.SetFirewall(firewall.Rules{rule(t, firewall.Reject, "n0", "", "")})
		refusedBy(t, first, "n3", "web", "") // its neighbour is n1
		relay.SetFirewall(firewall.Rules{rule(t, firewall.Reject, "n1", "n3", "web")})
		refusedBy(t, first, "n3", "web", "n2")
		refusedBy(t, n.nodes["n1"], "n3", "web", "n2")
		n.reach("n0", "n3")
	})
}

func TestFirewallOfTheOpener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		first, last := n.line(0)
		if _, err := last.Listen("web"); err != nil {
			t.Fatal(err)
		}
		first.SetFirewall(firewall.Rules{rule(t, firewall.Drop, "", "n1", "web")})
		start := time.Now()
		refusedBy(t, first, "n1", "web", "n0")
		if time.Since(start) > time.Second {
			t.Error("the node kept its own user waiting")
		}
	})
}

// TestNewRulesEndStreams: what a rule refuses from now on ends, and nothing else.
func TestNewRulesEndStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		first, last := n.line(1)
		near, far := stream(t, first, last)
		near2, far2 := stream(t, last, first)
		last.SetFirewall(firewall.Rules{rule(t, firewall.Reject, "n0", "", "")})
		if _, err := io.ReadAll(near); err == nil {
			t.Error("a stream that is refused goes on")
		}
		go near2.Write([]byte("x"))
		if _, err := io.ReadFull(far2, make([]byte, 1)); err != nil {
			t.Errorf("a stream the other way: %v", err)
		}
		last.SetFirewall(nil)
		stream(t, first, last)
		for _, c := range []*Conn{near, far, near2, far2} {
			c.Close()
		}
	})
}

// TestFirewallOnTheAuthenticatedID: who passes the rules under another's name
// must still prove it.
func TestFirewallOnTheAuthenticatedID(t *testing.T) {
	s := newSociety(t)
	b := s.router("b")
	eve := s.router("eve", b)
	eventually(t, "a way", reaches(eve, "b"))
	l, err := b.Listen("web")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b.SetFirewall(firewall.Rules{rule(t, firewall.Accept, "friend", "", ""), rule(t, firewall.Reject, "", "", "web")})
	refusedBy(t, &running{Mesh: eve}, "b", "web", "b")

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	o := &opening{open: func(early []byte) (net.Conn, wire.Answer, error) {
		var answer wire.Answer
		stream, err := eve.neighbour("b").open(ctx, wire.Open{
			To: "b", From: "friend", Service: "web", Path: []routing.NodeID{"friend", "eve"}, Attempts: 1, Early: early,
		}, &answer)
		return stream, answer, err
	}}
	if k, err := secure.Client(ctx, o, eve.ends, "b"); err == nil {
		if _, err := k.Read(make([]byte, 1)); err == nil {
			t.Error("b speaks to eve as if she were the friend")
		}
		k.Close()
	}
	if len(l.backlog) > 0 {
		t.Error("the service was given eve's stream")
	}
}
