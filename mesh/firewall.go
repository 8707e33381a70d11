package mesh

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/mesh/firewall"
	"github.com/ranvier-mesh/ranvier/routing"
)

// pingName is what rules call the empty service.
const pingName = "ping"

// judge asks the firewall rules about a stream from one node to another's
// service. from must be who it is known to be: at the target whom the handshake
// will prove, at a relay the neighbour.
func (m *Mesh) judge(from, to routing.NodeID, service string) firewall.Verdict {
	rules := m.firewall.Load()
	if rules == nil || len(*rules) == 0 {
		return firewall.Verdict{}
	}
	if service == "" {
		service = pingName
	}
	names := []string{service}
	if other := m.cfg.FirewallNames[service]; other != "" {
		names = append(names, other)
	}
	return rules.Decide(firewall.Stream{From: string(from), To: string(to), Service: names})
}

// dropSlack is how much longer than who asks a dropped stream is held: else its end
// is sometimes seen, and told as a broken link.
const dropSlack = 2 * time.Second

// barred tells whether the rules refuse an Open that came from another node,
// and then has answered it, or let it wait where it is to be dropped. A target asks
// about the opener's id, which is only a claim as yet: what the rules accept must
// still prove it. A relay knows its neighbour alone.
func (m *Mesh) barred(ctx context.Context, stream net.Conn, open wire.Open, from routing.NodeID) bool {
	v := m.judge(from, open.To, open.Service)
	if v.Action == firewall.Accept {
		return false
	}
	m.refusals.Do(func() {
		m.log.Info("a firewall rule refuses a stream", "action", v.Action, "rule", v.Rule.Name, "from", from,
			"to", open.To, "service", open.Service, "path", joinIDs(open.Path, " → "))
	})
	if v.Action == firewall.Reject {
		m.answer(stream, m.refusal(open, wire.CodeForbidden, forbiddenText(open)))
		return true
	}
	// Closed at once it would be told as a broken link, and tried elsewhere.
	wait := dialTimeout
	if open.Timeout > 0 {
		wait = min(wait, time.Duration(open.Timeout)*time.Millisecond)
	}
	wait += dropSlack
	stop := context.AfterFunc(ctx, func() { stream.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	stream.SetReadDeadline(time.Now().Add(wait))
	var buf [64]byte
	for {
		if _, err := stream.Read(buf[:]); err != nil {
			return true
		}
	}
}

func forbiddenText(open wire.Open) string {
	if open.Service == "" {
		return "a firewall rule refuses it"
	}
	return fmt.Sprintf("a firewall rule refuses service %q of node %s", open.Service, open.To)
}

// mayOpen asks the rules about a stream that is to be opened from here.
func (m *Mesh) mayOpen(open wire.Open) error {
	v := m.judge(m.cfg.ID, open.To, open.Service)
	if v.Action == firewall.Accept {
		return nil
	}
	return &RefusedError{Code: wire.CodeForbidden, Node: m.cfg.ID, Path: []routing.NodeID{m.cfg.ID}, what: "stream to " + string(open.To),
		Reason: fmt.Sprintf("%s (%s)", forbiddenText(open), v.Rule.Name)}
}

// SetFirewall replaces the firewall rules. Streams that end here and that the
// new rules refuse are reset; those that are relayed go on.
func (m *Mesh) SetFirewall(rules firewall.Rules) {
	rules = slices.Clone(rules)
	m.firewall.Store(&rules)
	m.mu.Lock()
	conns := slices.Collect(maps.Keys(m.conns))
	m.mu.Unlock()
	for _, c := range conns {
		from, to := c.remote, c.local
		if c.dialled {
			from, to = to, from
		}
		if v := m.judge(from.Node, to.Node, to.Service); v.Action != firewall.Accept {
			m.log.Info("a firewall rule ends a stream", "rule", v.Rule.Name, "from", from.Node, "to", to.Node, "service", to.Service)
			c.session.Reset(wire.CodeForbidden, "a firewall rule refuses it now")
		}
	}
}
