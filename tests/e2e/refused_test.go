package e2e

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// A job that cannot begin says so in one line, that names what is wrong and
// where, and leaves no artifacts.
func TestJobsThatCannotBegin(t *testing.T) {
	t.Parallel()
	a := startNode(t, "a", listener)
	startNode(t, "b", a.peer()+"- work-command: {worktype: echo, command: echo}\n")
	a.reaches("b")
	nobody := closedPort(t)
	web := serve(t, func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
		io.Copy(io.Discard, c)
	})
	closing := serve(t, func(c net.Conn) {})
	silent := serve(t, hold)

	for name, test := range map[string]struct {
		target string
		peers  []string
		dir    string // "": a good one
		code   int
		says   string
	}{
		"unknown target": {
			target: "x", peers: []string{a.addr}, code: 69,
			says: `stream to x: node a refused: no route to node x: known are a, b.*`,
		},
		"target without the work type": {
			target: "b", peers: []string{a.addr}, code: 69,
			says: `node b: .*"ansible-runner".*echo.*`,
		},
		"peer refuses the connection": {
			target: "a", peers: []string{nobody}, code: 69,
			says: `cannot reach peer ` + regexp.QuoteMeta(nobody) + `: connection refused`,
		},
		"all peers refuse the connection": {
			target: "a", peers: []string{nobody, "localhost:1"}, code: 69,
			says: `cannot reach peer ` + regexp.QuoteMeta(nobody) + `: connection refused` + "\n" + `cannot reach peer localhost:1: connection refused`,
		},
		"peer's name does not resolve": {
			target: "a", peers: []string{"no-such-host.invalid:1234"}, code: 69,
			says: `cannot reach peer no-such-host\.invalid:1234: (lookup no-such-host\.invalid.*|no answer in 5s)`,
		},
		"peer is a web server": {
			target: "a", peers: []string{web}, code: 69,
			says: `cannot reach peer ` + regexp.QuoteMeta(web) + `: .*\(is it a Ranvier node\?\).*`,
		},
		"peer closes at once": {
			target: "a", peers: []string{closing}, code: 69,
			says: `cannot reach peer ` + regexp.QuoteMeta(closing) + `: .*\(is it a Ranvier node\?\).*`,
		},
		"peer says nothing": {
			target: "a", peers: []string{silent}, code: 69,
			says: `cannot reach peer ` + regexp.QuoteMeta(silent) + `: no answer in 5s`,
		},
		"peer is no address": {
			target: "a", peers: []string{"udp://here:1"}, code: 1,
			says: `.*udp://here:1.*`,
		},
		"no private data directory": {
			target: "a", peers: []string{a.addr}, dir: "/nowhere/at/all", code: 1,
			says: `.*/nowhere/at/all.*`,
		},
		"target is no node id": {
			target: "no node", peers: []string{a.addr}, code: 1,
			says: `.*the node to run on: .*"no node".*`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProject(t, "- debug:\n")
			dir := p.dir
			if test.dir != "" {
				dir = test.dir
			}
			args := []string{"run", dir, "-p", "test.yml", "--via-receptor", test.target}
			for _, peer := range test.peers {
				args = append(args, "--receptor-peer", peer)
			}
			run := ranvier(t, args...)
			run.exits(test.code)
			run.says(test.says)
			if out := run.stdout.String(); out != "" {
				t.Errorf("standard output: %q", out)
			}
			if _, err := os.Stat(filepath.Join(p.dir, "artifacts")); err == nil {
				t.Error("there are artifacts of a job that did not begin")
			}
		})
	}
}

// One of several peers is enough.
func TestSecondPeer(t *testing.T) {
	t.Parallel()
	n := startNode(t, "n", listener)
	run := newProject(t, "- debug:\n").run(n, "n", "--receptor-peer", closedPort(t), "--receptor-peer", serve(t, hold), "--receptor-node-id", "visitor")
	run.exits(0)
	n.await(n.stderr, `link up.*node=visitor`)
}

// A command line that is wrong is no job.
func TestWrongCommandLines(t *testing.T) {
	t.Parallel()
	dir := newProject(t, "- debug:\n").dir
	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"unknown flag":      {[]string{"run", dir, "-p", "test.yml", "--via-receptor", "n", "--receptor-pier", "x"}, `unknown flag: --receptor-pier \(see ranvier run --help\)`},
		"flag needs value":  {[]string{"run", dir, "-p"}, `flag needs an argument: 'p' in -p.*`},
		"no number":         {[]string{"run", dir, "-p", "test.yml", "--forks", "many"}, `invalid argument "many" for "--forks".*`},
		"peer without node": {[]string{"run", dir, "-p", "test.yml", "--receptor-peer", "x"}, `run: --receptor-peer, .* name it with --via-receptor NODE`},
		"no directory":      {[]string{"run", "-p", "test.yml", "--via-receptor", "n"}, `run: DIR is missing.*`},
		"two directories":   {[]string{"run", dir, dir, "-p", "test.yml", "--via-receptor", "n"}, `run: ".*" is one argument too many.*`},
		"playbook and role": {[]string{"run", dir, "-p", "test.yml", "-r", "role", "--via-receptor", "n"}, `.*not allowed with argument -p/--playbook`},
		"nothing to run":    {[]string{"run", dir, "--via-receptor", "n"}, `.*playbook.*`},
		"unknown command":   {[]string{"rnu"}, `unknown command "rnu", did you mean run\? \(see ranvier --help\)`},
		"ping nobody":       {[]string{"ping"}, `ping: NODE is missing.*`},
		"node without file": {[]string{"node"}, `.*config.*`},
		"socket and peer":   {[]string{"status", "--socket", "s", "--receptor-peer", "p"}, `.*receptor-peer.*socket.*`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run := ranvier(t, test.args...)
			run.exits(2)
			run.says(test.says)
		})
	}
}

// closedPort is an address where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return l.Addr().String()
}

// hold reads what comes and says nothing.
func hold(c net.Conn) { io.Copy(io.Discard, c) }

// serve answers connections until the end of the test, and returns the address.
func serve(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				answer(c)
			}()
		}
	}()
	return l.Addr().String()
}
