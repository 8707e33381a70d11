package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/control"
	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/routing"
	"github.com/ranvier-mesh/ranvier/worktypes"
	"github.com/ranvier-mesh/ranvier/worktypes/remote"
)

// club is a mesh of nodes with identities, whose logs are kept.
type club struct {
	t   *testing.T
	dir string
	ca  *identity.CA
	log map[string]*logText
}

func newClub(t *testing.T) *club {
	t.Helper()
	dir := t.TempDir()
	ca, err := identity.InitCA(filepath.Join(dir, "ca"), "test", "a", identity.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return &club{t, dir, ca, map[string]*logText{}}
}

// node runs a router with a control service, a control socket and further items.
func (c *club) node(id, items string, peers ...*Node) *Node {
	c.t.Helper()
	self := begin(c.t, c.ca, routing.NodeID(id), identity.Router, "*")
	text := fmt.Sprintf("- node: {id: %s, datadir: %s/%s}\n- tcp-listener: {port: 0, bindaddr: 127.0.0.1}\n- control-service: {service: control, filename: %s/%s.sock}\n",
		id, c.dir, id, c.dir, id) + items
	for _, p := range peers {
		text += "- tcp-peer: " + strings.TrimPrefix(p.Addrs()[0], "tcp://") + "\n"
	}
	n, log := logging(c.t, text, Options{Transports: secured(self), Identity: self})
	c.log[id] = log
	return n
}

// attach joins as a user's short-lived node.
func (c *club) attach(who *identity.Self, to *Node) *mesh.Attachment {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	m, err := mesh.Attach(ctx, mesh.Config{Self: who, Transports: secured(who), Peers: []mesh.PeerConfig{{Address: to.Addrs()[0]}}})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { m.Close() })
	return m
}

// work is the work service of a node for a user.
func (c *club) work(m *mesh.Attachment, node string) *remote.Client {
	return &remote.Client{Node: node, Keep: true, Dial: func(ctx context.Context) (net.Conn, error) {
		return m.Dial(mesh.WithJob(ctx, remote.JobOf(ctx)), routing.NodeID(node), remote.ServiceName)
	}}
}

// control is the control service of a node, over the mesh.
func (c *club) control(ctx context.Context, m *mesh.Attachment, node string) *control.Client {
	c.t.Helper()
	conn, err := m.Dial(ctx, routing.NodeID(node), "control")
	if err != nil {
		c.t.Fatal(err)
	}
	cc, err := control.NewClient(ctx, conn)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { cc.Close() })
	return cc
}

// audit reads a node's audit record.
func (c *club) audit(id string) (lines []auditLine) {
	c.t.Helper()
	b, err := os.ReadFile(filepath.Join(c.dir, id, "audit.log"))
	if err != nil {
		c.t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		var l auditLine
		if err := json.Unmarshal(line, &l); err != nil {
			c.t.Fatalf("%v: %s", err, line)
		}
		lines = append(lines, l)
	}
	return lines
}

// audited waits for a line of a node's audit record.
func (c *club) audited(id, action, unit string) (found auditLine) {
	c.t.Helper()
	within(c.t, "the audit record of "+id+" has a "+action+" of unit "+unit, func() bool {
		for _, l := range c.audit(id) {
			if l.Action == action && l.Unit == unit {
				found = l
				return true
			}
		}
		return false
	})
	return found
}

// submitAt submits a unit for another node at a node's control socket, and waits for
// its end.
func (c *club) submitAt(ctx context.Context, id, target, workType, payload string) string {
	c.t.Helper()
	conn, err := net.Dial("unix", filepath.Join(c.dir, id+".sock"))
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	fmt.Fprintf(conn, "work submit %s %s\n%s", target, workType, payload)
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		c.t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		c.t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(answer), "Work unit created with ID ")
	unit, _, _ := strings.Cut(rest, ".")
	if !ok {
		c.t.Fatalf("submit: %s", answer)
	}
	cc, err := control.Dial(ctx, filepath.Join(c.dir, id+".sock"))
	if err != nil {
		c.t.Fatal(err)
	}
	defer cc.Close()
	within(c.t, "unit "+unit+" succeeds", func() bool {
		var st unitStatus
		if err := cc.Call(ctx, map[string]any{"command": "work", "subcommand": "status", "unitid": unit}, &st); err != nil {
			c.t.Fatal(err)
		}
		return st.StateName == "Succeeded"
	})
	return unit
}

// A job is found by its id in the logs of every node that it touched; where its stream
// was another job's before, the ends say which.
func TestTrailOfAJob(t *testing.T) {
	c := newClub(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	target := c.node("target", "- work-command: {worktype: cat, command: cat}\n")
	relay := c.node("relay", "", target)
	from := c.node("from", "", relay)
	within(t, "the way is known", func() bool { _, _, err := from.mesh.Ping(ctx, "target"); return err == nil })

	first := c.submitAt(ctx, "from", "target", "cat", "one")
	for id, want := range map[string]string{"from": "work unit is with its node", "relay": "a stream passes", "target": "work unit submitted"} {
		within(t, fmt.Sprintf("%s logs %q of job %s", id, want, first), func() bool { return len(c.log[id].lines(want, first)) > 0 })
	}
	if got := c.log["relay"].lines("a stream passes", "stream="+first, "from=from", "to=target", "neighbour=from", "address=127.0.0.1:"); len(got) == 0 {
		t.Errorf("the relay does not say where the stream came from:\n%s", c.log["relay"])
	}

	// Whatever stream the next one takes, the relay's line is found by what the ends say.
	second := c.submitAt(ctx, "from", "target", "cat", "two")
	l := c.audited("target", "submit", second)
	if l.Stream == "" || len(c.log["from"].lines("work unit is with its node", second, "stream="+l.Stream)) == 0 {
		t.Errorf("the ends do not agree on the stream %q of job %s:\n%s", l.Stream, second, c.log["from"])
	}
	if len(c.log["target"].lines("work unit submitted", second, "stream="+l.Stream)) == 0 || len(c.log["relay"].lines("a stream passes", "stream="+l.Stream)) == 0 {
		t.Errorf("the stream %s of job %s is not in the logs of target and relay", l.Stream, second)
	}

	sum := sha256.Sum256([]byte("two"))
	if l.Peer != "from" || l.From != "from → relay → target" || l.Type != "cat" || l.SHA256 != hex.EncodeToString(sum[:]) || *l.Size != 3 || l.Job != second || l.Outcome != "ok" {
		t.Errorf("audit record %+v", l)
	}
	if l := c.audited("from", "submit", second); l.Peer != "" || !strings.HasPrefix(l.From, fmt.Sprintf("unix socket, uid %d, pid %d", os.Getuid(), os.Getpid())) {
		t.Errorf("audit record of the submitter's node %+v", l)
	}
}

// Everything that is wanted of a unit is in the audit record, with who, from where and
// whether he got it; what is secret is not.
func TestAuditRecord(t *testing.T) {
	c := newClub(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	a := c.node("a", "- work-command: {worktype: cat, command: cat, allowruntimeparams: true}\n- work-policy: {worktype: cat, payload: 1kB}\n")
	alice := c.attach(begin(t, c.ca, "alice", identity.Client, "cat"), a)
	client := c.work(alice, "a")
	from := string(alice.ID()) + " → a"

	check := func(action, unit, outcome string) auditLine {
		t.Helper()
		l := c.audited("a", action, unit)
		if l.Peer != "alice" || l.From != from || l.Stream == "" || !strings.Contains(l.Outcome, outcome) {
			t.Errorf("%s: %+v, want %s from %s", action, l, outcome, from)
		}
		return l
	}
	hash := func(s string) string { sum := sha256.Sum256([]byte(s)); return hex.EncodeToString(sum[:]) }

	good := worktypes.Spec{ID: worktypes.NewID(), Type: "cat"}
	job, err := client.Submit(ctx, good, strings.NewReader("hunter2"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(job.Results); err != nil {
		t.Fatal(err)
	}
	if l := check("submit", good.ID, "ok"); l.SHA256 != hash("hunter2") || *l.Size != 7 {
		t.Errorf("%+v", l)
	}
	if job, err = client.Follow(ctx, good.ID, 0); err != nil {
		t.Fatal(err)
	}
	job.Close()
	check("attach", good.ID, "ok")
	if err := client.Release(ctx, good.ID); err != nil {
		t.Fatal(err)
	}
	check("release", good.ID, "ok")

	// A cancel that comes on the stream of the submit.
	r, w := io.Pipe()
	defer w.Close()
	late := worktypes.Spec{ID: worktypes.NewID(), Type: "cat"}
	canceled := make(chan struct{})
	go func() {
		defer close(canceled)
		for ctx.Err() == nil {
			if _, err := client.Status(ctx, late.ID); err == nil {
				break
			}
		}
		if _, err := client.Cancel(ctx, late.ID); err != nil {
			t.Error(err)
		}
		w.Close()
	}()
	if job, err := client.Submit(ctx, late, r); err == nil {
		job.Close()
	}
	<-canceled
	check("cancel", late.ID, "ok")
	check("submit", late.ID, "the unit ended before its payload")

	// What is refused.
	forbidden, large := worktypes.NewID(), worktypes.NewID()
	if _, err := client.Submit(ctx, worktypes.Spec{ID: forbidden, Type: "other"}, nil); !errors.Is(err, worktypes.ErrForbidden) {
		t.Error(err)
	}
	check("submit", forbidden, "may not use the work type")
	tooMuch := strings.Repeat("hunter2", 1000)
	if _, err := client.Submit(ctx, worktypes.Spec{ID: large, Type: "cat"}, strings.NewReader(tooMuch)); err == nil {
		t.Error("a payload that is too large was taken")
	}
	check("submit", large, "at most 1000 bytes are allowed")

	// A payload whose hash is another, and bytes that are no request.
	raw := func(frames ...[]byte) {
		t.Helper()
		conn, err := alice.Dial(ctx, "a", remote.ServiceName)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.Write(bytes.Join(frames, nil))
		conn.CloseWrite()
		io.Copy(io.Discard, conn)
	}
	wrong := worktypes.NewID()
	frame := func(typ wire.Type, msg any) []byte {
		t.Helper()
		b, err := wire.AppendMessage(nil, typ, msg)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	submit := frame(0x40, map[int]any{1: wrong, 2: "cat"})
	data := append(wire.AppendHeader(nil, wire.TypeData, 3), "abc"...)
	raw(submit, data, frame(0x46, map[int]any{1: 3, 2: make([]byte, 32)}))
	check("submit", wrong, "another SHA-256")
	raw([]byte("GET / HTTP/1.1\r\n\r\n"))
	check("request", "", "")

	text, err := os.ReadFile(filepath.Join(c.dir, "a", "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "hunter2") || strings.Contains(c.log["a"].String(), "hunter2") {
		t.Error("a payload is in the audit record or in the log")
	}
}
