package e2e

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/ranvier-mesh/ranvier/internal/control"
)

// What people and programs ask of a mesh, through a control socket and as an
// ephemeral node.
func TestAsk(t *testing.T) {
	t.Parallel()
	m := startLine(t)
	const took = `[0-9.]+(ns|µs|ms|s)`
	for way, flags := range map[string][]string{
		"socket":    {"--socket", m.a.socket},
		"ephemeral": {"--receptor-peer", m.a.addr},
	} {
		// Through the socket a asks, else the ephemeral node asks through a.
		first := "a"
		if way == "ephemeral" {
			first = `\S+/\S+`
		}
		ask := func(args ...string) *process { return ranvier(t, append(args, flags...)...) }
		t.Run(way, func(t *testing.T) {
			t.Parallel()

			ping := ask("ping", "c", "--count", "2", "--delay", "1ms")
			ping.exits(0)
			matches(t, ping, `^(answer from c in `+took+`\n){2}$`)
			var pong struct {
				Success bool
				Target  string
				Time    int64
			}
			decode(t, ask("ping", "c", "--count", "1", "--json"), 0, &pong)
			if !pong.Success || pong.Target != "c" || pong.Time <= 0 {
				t.Errorf("ping --json: %+v", pong)
			}

			lost := ask("ping", "x", "--count", "1")
			lost.exits(69)
			matches(t, lost, `^no answer from x: .*no route to node x: known are a, b, c.*\n$`)
			decode(t, ask("ping", "x", "--count", "1", "--json"), 69, &pong)
			if pong.Success {
				t.Errorf("ping --json of an unknown node: %+v", pong)
			}

			trace := ask("traceroute", "c")
			trace.exits(0)
			if way == "socket" {
				matches(t, trace, `^ 0  a  \S+\n 1  b  `+took+`\n 2  c  `+took+`\n$`)
			} else {
				matches(t, trace, `^ 0  `+first+`  \S+\n 1  a  `+took+`\n 2  b  `+took+`\n 3  c  `+took+`\n$`)
			}
			var hops []control.TraceHop
			decode(t, ask("traceroute", "c", "--json"), 0, &hops)
			if n := len(hops); n < 3 || hops[n-1].From != "c" || hops[n-2].From != "b" || hops[n-3].From != "a" {
				t.Errorf("traceroute --json: %+v", hops)
			}
			stray := ask("traceroute", "x")
			stray.exits(69)
			matches(t, stray, `no route to node x`)

			m.checkStatus(t, ask)
		})
	}
}

// checkStatus looks at node a's status.
func (m line) checkStatus(t *testing.T, ask func(...string) *process) {
	t.Helper()
	table := ask("status")
	table.exits(0)
	matches(t, table, `(?s)^node a, ranvier \S+, \d+ CPUs, \d+ MiB\ninsecure: .*`+
		`LINK +ADDRESS +DIRECTION +COST +STATE +SINCE +IN +OUT\n.*`+
		`b +`+regexp.QuoteMeta(m.b.addr)+` +out +1 +up, insecure +\d+[sm] +\S+ k?B +\S+ k?B\n.*`+
		`NODE +STATE +SINCE +COST +VIA +WORK TYPES\n.*`+
		`a +reachable.*b +reachable.*\bc +reachable, insecure +\d+[sm] +2 +b +ansible-runner\n`)
	var s control.Status
	decode(t, ask("status", "--json"), 0, &s)
	if s.NodeID != "a" || s.RoutingTable["c"] != "b" || len(s.Nodes) != 3 || len(s.Connections) != 1 || !strings.HasPrefix(s.Software, "ranvier ") {
		t.Errorf("status --json: %+v", s)
	}
	if cost := s.KnownConnectionCosts["b"]["c"]; cost != 1 {
		t.Errorf("status --json: the link from b to c costs %v", cost)
	}
}

func matches(t *testing.T, p *process, pattern string) {
	t.Helper()
	if out := p.stdout.String(); !regexp.MustCompile(pattern).MatchString(out) {
		t.Errorf("%q prints\n%s\nwhich does not match %q", p.cmd.Args[1:], out, pattern)
	}
}

func decode(t *testing.T, p *process, code int, v any) {
	t.Helper()
	p.exits(code)
	if err := json.Unmarshal([]byte(p.stdout.String()), v); err != nil {
		t.Errorf("%q: %v: %s", p.cmd.Args[1:], err, p.stdout)
	}
}

// Nobody is there to ask.
func TestAskNobody(t *testing.T) {
	t.Parallel()
	nobody := closedPort(t)
	for _, command := range [][]string{{"ping", "x"}, {"traceroute", "x"}, {"status"}} {
		p := ranvier(t, append(command, "--receptor-peer", nobody)...)
		p.exits(69)
		p.says("cannot reach peer " + regexp.QuoteMeta(nobody) + ": connection refused")
		p = ranvier(t, append(command, "--socket", t.TempDir()+"/absent")...)
		p.exits(69)
		p.says(`.*absent.*no such file or directory.*`)
	}
}
