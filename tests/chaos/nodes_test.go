// Package chaos kills real processes at every step of a remote job, and looks
// whether the job ends in the same result, started once.
package chaos

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/control"
	"github.com/ranvier-mesh/ranvier/internal/freeport"
)

// patience is how long anything may take.
const patience = 60 * time.Second

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "ranvier-chaos-")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "ranvier")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "../../cmd/ranvier")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return bin, nil
})

func TestMain(m *testing.M) {
	bin, err := build()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(filepath.Dir(bin))
	os.Exit(code)
}

// node is a node's process, and those that take its place.
type node struct {
	t        *testing.T
	id, dir  string
	port     int
	cmd      *exec.Cmd
	wait     chan struct{}
	log      *os.File
	attempts int
}

// startNode starts a node with a fixed port, so that it can come back.
func startNode(t *testing.T, id, items string) *node {
	t.Helper()
	n := newNode(t, id, "", items)
	n.start()
	return n
}

// newNode makes a node that does not run yet; options are of its item node.
func newNode(t *testing.T, id, options, items string) *node {
	t.Helper()
	n := &node{t: t, id: id, dir: t.TempDir(), port: freeport.Pick(t)}
	text := fmt.Sprintf("---\n- node: {id: %s, datadir: %s%s}\n- control-service: {service: control, filename: %s}\n"+
		"- tcp-listener: {bindaddr: 127.0.0.1, port: %d}\n- work-command: {worktype: sh, command: sh, allowruntimeparams: true}\n%s",
		id, n.data(), options, n.socket(), n.port, items)
	if err := os.WriteFile(filepath.Join(n.dir, "ranvier.yml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.end)
	return n
}

func (n *node) data() string   { return filepath.Join(n.dir, "data") }
func (n *node) socket() string { return filepath.Join(n.dir, "s") }
func (n *node) peer() string   { return fmt.Sprintf("- tcp-peer: {address: '127.0.0.1:%d'}\n", n.port) }

// start starts the process and waits for its control socket.
func (n *node) start() {
	n.t.Helper()
	bin, err := build()
	if err != nil {
		n.t.Fatal(err)
	}
	n.attempts++
	if n.log, err = os.Create(filepath.Join(n.dir, "log"+strconv.Itoa(n.attempts))); err != nil {
		n.t.Fatal(err)
	}
	defer n.log.Close()
	n.cmd = exec.Command(bin, "node", "-c", filepath.Join(n.dir, "ranvier.yml"))
	n.cmd.Stderr = n.log
	n.cmd.Env = append(os.Environ(), "CHAOS="+n.dir)
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.wait = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) { _ = cmd.Wait(); close(done) }(n.cmd, n.wait)
	n.eventually("the control socket of node "+n.id, func() bool {
		select {
		case <-n.wait:
			b, _ := os.ReadFile(n.log.Name())
			n.t.Fatalf("node %s ended: %s", n.id, b)
		default:
		}
		c, err := control.Dial(n.t.Context(), n.socket())
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// kill is kill -9 of the node.
func (n *node) kill() {
	_ = n.cmd.Process.Kill()
	<-n.wait
}

// killKeeper is kill -9 of its keeper.
func (n *node) killKeeper() {
	for _, pid := range n.processes() {
		b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		if strings.Contains(string(b), "\x00keep\x00") {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// processes are all that the node has started, and itself.
func (n *node) processes() []int {
	var pids []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		env, err := os.ReadFile(d + "/environ")
		if err == nil && strings.Contains(string(env), "CHAOS="+n.dir+"\x00") {
			pid, _ := strconv.Atoi(filepath.Base(d))
			pids = append(pids, pid)
		}
	}
	return pids
}

// end kills everything, and shows the logs of a test that failed.
func (n *node) end() {
	for _, pid := range n.processes() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	if n.wait == nil {
		return // it was never started
	}
	<-n.wait
	if n.t.Failed() {
		for i := range n.attempts {
			b, _ := os.ReadFile(filepath.Join(n.dir, "log"+strconv.Itoa(i+1)))
			n.t.Logf("log %d of node %s:\n%s", i+1, n.id, b[max(0, len(b)-3000):])
		}
	}
}

// eventually waits until f is true. Only who looks from outside the processes has to
// look again and again.
func (n *node) eventually(what string, f func() bool) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			n.t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// submit stores a job for a node at this one.
func (n *node) submit(to, script string, stdin io.Reader) (string, error) {
	c, err := control.Dial(n.t.Context(), n.socket())
	if err != nil {
		return "", err
	}
	defer c.Close()
	return c.Submit(n.t.Context(), map[string]any{
		"command": "work", "subcommand": "submit", "node": to, "worktype": "sh", "params": script,
	}, stdin)
}

// unit is a unit's status, as the control socket tells it.
type unit struct {
	State      int
	StateName  string
	Detail     string
	StdoutSize int64
	ExtraData  map[string]any
}

func (n *node) status(id string) (unit, error) {
	c, err := control.Dial(n.t.Context(), n.socket())
	if err != nil {
		return unit{}, err
	}
	defer c.Close()
	var u unit
	err = c.Call(n.t.Context(), map[string]any{"command": "work", "subcommand": "status", "unitid": id}, &u)
	return u, err
}

// work asks the control socket for something with a unit.
func (n *node) work(t *testing.T, subcommand, id string) map[string]string {
	t.Helper()
	c, err := control.Dial(t.Context(), n.socket())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var reply map[string]string
	if err := c.Call(t.Context(), map[string]any{"command": "work", "subcommand": subcommand, "unitid": id}, &reply); err != nil {
		t.Fatal(err)
	}
	return reply
}
