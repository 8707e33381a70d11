package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// node is a `ranvier node`.
type node struct {
	*process
	id     string
	dir    string // all that is the node's
	socket string
	addr   string // host:port of its listener, empty for none
	mark   string
	// jobsGoOn says that the test leaves jobs running, or kills the node: jobs and
	// their keeper outlive it.
	jobsGoOn bool
}

// listener is the item of a file that listens on a free port.
const listener = "- tcp-listener: {bindaddr: 127.0.0.1, port: 0}\n"

// startNode starts a node with further items of its file, and waits until it is
// up. Its home directory and TMPDIR are its own. In the end the node is stopped
// as an operator stops it, and nothing of it may be left.
func startNode(t *testing.T, id, items string) *node {
	t.Helper()
	n := prepareNode(t, id, items)
	n.begin(t)
	return n
}

// begin starts a node that was prepared.
func (n *node) begin(t *testing.T) {
	t.Helper()
	n.process = start(t, n.env(), "node", "-c", n.file())
	t.Cleanup(n.stop)
	n.await(n.stderr, "node is up")
	if strings.Contains(read(t, n.file()), "tcp-listener") {
		n.addr = n.await(n.stderr, `msg=listening address=tcp://(\S+)`)[1]
	}
}

// restart starts a node that has ended anew, where it was.
func (n *node) restart() {
	n.t.Helper()
	<-n.done
	text, err := os.ReadFile(n.file())
	if err != nil {
		n.t.Fatal(err)
	}
	if _, port, err := net.SplitHostPort(n.addr); err == nil {
		text = bytes.Replace(text, []byte("port: 0"), []byte("port: "+port), 1)
	}
	write(n.t, n.file(), string(text))
	n.process = start(n.t, n.env(), "node", "-c", n.file())
	n.t.Cleanup(n.stop)
	n.await(n.stderr, "node is up")
}

// prepareNode makes the node's directories and its file.
func prepareNode(t *testing.T, id, items string) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{id: id, dir: dir, socket: filepath.Join(dir, "s"), mark: dir}
	for _, sub := range []string{"home", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	text := fmt.Sprintf("---\n- node: {id: %s, datadir: %s}\n- control-service: {service: control, filename: %s}\n%s", id, n.dataDir(), n.socket, items)
	write(t, n.file(), text)
	return n
}

func (n *node) file() string    { return filepath.Join(n.dir, "ranvier.yml") }
func (n *node) dataDir() string { return filepath.Join(n.dir, "data") }

func (n *node) env() []string {
	return []string{"HOME=" + filepath.Join(n.dir, "home"), "TMPDIR=" + filepath.Join(n.dir, "tmp"), markName + "=" + n.mark}
}

// stop ends the node and looks for what it left behind.
func (n *node) stop() {
	n.t.Helper()
	if n.running() {
		n.signal(syscall.SIGTERM)
		select {
		case <-n.done:
		case <-time.After(patience):
			n.signal(syscall.SIGQUIT)
			<-n.done
			n.t.Errorf("node %s does not stop", n.id)
		}
		if code := n.cmd.ProcessState.ExitCode(); code != 0 {
			n.t.Errorf("node %s: exit code %d", n.id, code)
		}
	}
	if n.jobsGoOn {
		for _, r := range relatives(n.t, n.mark, "") {
			_ = syscall.Kill(r.pid, syscall.SIGKILL)
		}
		return
	}
	for _, r := range relatives(n.t, n.mark, "") {
		n.t.Errorf("node %s left process %d behind: %s", n.id, r.pid, r.argv)
		if p, err := os.FindProcess(r.pid); err == nil {
			p.Kill()
		}
	}
	for _, word := range []string{"panic: ", "DATA RACE", "level=ERROR"} {
		if strings.Contains(n.stderr.String(), word) {
			n.t.Errorf("node %s: %q in its log", n.id, word)
		}
	}
	if n.t.Failed() {
		n.t.Logf("log of node %s:\n%s", n.id, last(n.stderr))
	}
}

// peer is the item of a file that links to n.
func (n *node) peer() string { return "- tcp-peer: {address: '" + n.addr + "'}\n" }

// reaches waits until n knows the way to another node.
func (n *node) reaches(id string) {
	n.t.Helper()
	ranvierOK(n.t, "ping", id, "--socket", n.socket, "--count", "1", "--wait", patience.String())
}

// ranvierOK runs the program, which has to succeed, and returns its output.
func ranvierOK(t *testing.T, args ...string) string {
	t.Helper()
	p := ranvier(t, args...)
	p.exits(0)
	return p.stdout.String()
}

// line is a mesh a -- b -- c where only b is linked to both.
type line struct{ a, b, c *node }

func startLine(t *testing.T) line {
	t.Helper()
	b := startNode(t, "b", listener)
	m := line{startNode(t, "a", listener+b.peer()), b, startNode(t, "c", b.peer())}
	m.a.reaches("c")
	return m
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
