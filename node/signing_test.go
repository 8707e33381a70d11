package node

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"github.com/ranvier-mesh/ranvier/internal/freeport"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/config"
	"github.com/ranvier-mesh/ranvier/internal/control"
	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/internal/worktoken"
	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/routing"
	"github.com/ranvier-mesh/ranvier/worktypes"
	"github.com/ranvier-mesh/ranvier/worktypes/remote"
)

// running starts a node and stops it with the test.
func running(t *testing.T, cfg *config.Config, opt Options) *Node {
	t.Helper()
	n, err := New(t.Context(), cfg, opt)
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
	return n
}

// attached is a member at a node.
func attached(t *testing.T, n *Node, who *identity.Self) *mesh.Attachment {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	m, err := mesh.Attach(ctx, mesh.Config{Self: who, Transports: secured(who), Peers: []mesh.PeerConfig{{Address: n.Addrs()[0]}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func workAt(m *mesh.Attachment, node routing.NodeID) *remote.Client {
	return &remote.Client{Node: string(node), Keep: true, Dial: func(ctx context.Context) (net.Conn, error) { return m.Dial(ctx, node, remote.ServiceName) }}
}

// TestSignedWork has members submit signed and unsigned work, and what was signed
// for another.
func TestSignedWork(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, err := identity.InitCA(filepath.Join(dir, "ca"), "test", "a", identity.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	self := begin(t, ca, "a", identity.Router, "*")
	alice, bob := begin(t, ca, "alice", identity.Client, "*"), begin(t, ca, "bob", identity.Client, "*")
	port := freeport.Pick(t)
	cfg := parse(t, fmt.Sprintf(`- node: {id: a, datadir: %s}
- tcp-listener: {port: 0, bindaddr: 127.0.0.1}
- control-service: {service: control, tcplisten: "127.0.0.1:%d"}
- work-command: {worktype: cat, command: cat}
- work-command: {worktype: boss, command: cat}
- work-command: {worktype: key, command: cat}
- work-policy: {worktype: cat, needsignature: true}
- work-policy: {worktype: boss, needsignature: true, issuers: [alice]}
- work-policy: {worktype: key, needsignature: true, issuers: 'key:%s'}
`, dir, port, bob.KeyID()))
	n := running(t, cfg, Options{Transports: secured(self), Identity: self, CA: ca})
	atAlice, atBob := workAt(attached(t, n, alice), "a"), workAt(attached(t, n, bob), "a")
	limit, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	var caught []byte // alice's last signature
	var order identity.WorkOrder
	catch := func(o identity.WorkOrder) ([]byte, error) {
		order = o
		caught, err = alice.SignWork(o)
		return caught, err
	}
	submit := func(c *remote.Client, id, kind, payload string, sign func(identity.WorkOrder) ([]byte, error)) error {
		t.Helper()
		job, err := c.SubmitInput(limit, worktypes.Spec{ID: id, Type: kind}, remote.Input{
			Payload: func(remote.Takes) io.Reader { return strings.NewReader(payload) }, Sign: sign,
		})
		if err != nil {
			return err
		}
		defer job.Close()
		if out, err := io.ReadAll(job.Results); err != nil || string(out) != payload {
			t.Errorf("%s: results %q, %v", kind, out, err)
		}
		return nil
	}
	again := func(identity.WorkOrder) ([]byte, error) { return caught, nil }
	first := worktypes.NewID()
	if err := submit(atAlice, first, "cat", "work", catch); err != nil {
		t.Fatal(err)
	}
	if order.Node != "a" || order.Store != n.work.Store() || order.Unit != first || order.SHA256 != sha256.Sum256([]byte("work")) {
		t.Errorf("what was signed: %+v", order)
	}
	if err := submit(atBob, worktypes.NewID(), "boss", "work", catch); err != nil {
		t.Errorf("alice signed what bob submits: %v", err)
	}
	if err := submit(atAlice, worktypes.NewID(), "key", "work", bob.SignWork); err != nil {
		t.Errorf("signed with the key that is named: %v", err)
	}
	// Who comes over TCP cannot sign, and is not on this host.
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "work submit a cat\n")
	lines := bufio.NewScanner(conn)
	for lines.Scan() && strings.HasPrefix(lines.Text(), "Receptor Control") {
	}
	if !strings.HasPrefix(lines.Text(), "ERROR: ") || !strings.Contains(lines.Text(), "sign it") {
		t.Errorf("unsigned over TCP: %q, %v", lines.Text(), lines.Err())
	}
	// The same submit again is the same unit, and starts nothing.
	if err := submit(atAlice, first, "cat", "work", again); err != nil {
		t.Errorf("the same submit again: %v", err)
	}
	if err := atAlice.Release(limit, first); err != nil {
		t.Fatal(err)
	}
	before := n.refused.status().Work
	refused := 0
	for name, err := range map[string]error{
		"unsigned":                        submit(atAlice, worktypes.NewID(), "cat", "work", nil),
		"an empty signature":              submit(atAlice, worktypes.NewID(), "cat", "work", func(identity.WorkOrder) ([]byte, error) { return nil, nil }),
		"a captured signature":            submit(atAlice, worktypes.NewID(), "cat", "work", again),
		"a captured signature, by bob":    submit(atBob, worktypes.NewID(), "boss", "work", again),
		"alice's, submitted by bob":       submit(atBob, worktypes.NewID(), "cat", "work", catch),
		"bob's own, where alice is named": submit(atBob, worktypes.NewID(), "boss", "work", bob.SignWork),
		"alice's, where bob's key is":     submit(atAlice, worktypes.NewID(), "key", "work", alice.SignWork),
		"for another node":                submit(atAlice, worktypes.NewID(), "cat", "work", func(o identity.WorkOrder) ([]byte, error) { o.Node = "b"; return alice.SignWork(o) }),
		"for the node before it was set up anew": submit(atAlice, worktypes.NewID(), "cat", "work", func(o identity.WorkOrder) ([]byte, error) {
			o.Store = "before"
			return alice.SignWork(o)
		}),
	} {
		refused++
		if !errors.Is(err, worktypes.ErrForbidden) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := submit(atAlice, first, "cat", "work", again); !errors.Is(err, worktypes.ErrReleased) {
		t.Errorf("a unit that was released: %v", err)
	}
	if n := n.refused.status().Work - before; n != uint64(refused) {
		t.Errorf("%d refusals are counted, not %d", n, refused)
	}
	for _, st := range n.work.List() {
		if st.State != worktypes.Succeeded && (st.State != worktypes.Failed || !st.Started.IsZero()) {
			t.Errorf("a unit was started: %+v", st)
		}
	}
}

// rsaKey writes a key for Receptor's signatures.
func rsaKey(t *testing.T) (private, public string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	pkix, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	private, public = filepath.Join(dir, "key.pem"), filepath.Join(dir, "key.pub")
	for file, block := range map[string]*pem.Block{
		private: {Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)},
		public:  {Type: "PUBLIC KEY", Bytes: pkix},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return private, public
}

// ended waits for a unit's end.
func ended(t *testing.T, n *Node, id string) worktypes.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	states, err := n.work.Watch(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	var st worktypes.Status
	for st = range states {
	}
	return st
}

// TestReceptorSignatures has a node sign what another one checks, by Receptor's
// rules.
func TestReceptorSignatures(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	private, public := rsaKey(t)
	other, _ := rsaKey(t)
	b := start(t, fmt.Sprintf(`- node: {id: b, datadir: %[1]s/b}
- tcp-listener: {port: 0, bindaddr: 127.0.0.1}
- control-service: {filename: %[1]s/b.sock}
- work-command: {worktype: signed, command: cat, verifysignature: true}
- work-command: {worktype: plain, command: cat}
- work-verification: {publickey: %[2]s}
`, dir, public))
	node := func(id, more string) *Node {
		return start(t, fmt.Sprintf("- node: {id: %[1]s, datadir: %[2]s/%[1]s}\n- tcp-peer: %[3]s\n- control-service: {service: c, filename: %[2]s/%[1]s.sock}\n%[4]s",
			id, dir, strings.TrimPrefix(b.Addrs()[0], "tcp://"), more))
	}
	a := node("a", "- work-signing: {privatekey: "+private+", tokenexpiration: 1m}\n")
	liar := node("liar", "- work-signing: {privatekey: "+other+"}\n")
	broken := node("broken", "- work-signing: {privatekey: /nonexistent/key}\n") // it starts all the same
	node("none", "")

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	submit := func(c *control.Client, err error, node, kind string, more ...string) (string, error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		request := map[string]any{"command": "work", "subcommand": "submit", "node": node, "worktype": kind}
		for i := 0; i < len(more); i += 2 {
			request[more[i]] = more[i+1]
		}
		return c.Submit(ctx, request, strings.NewReader("x"))
	}
	at := func(id, node, kind string, more ...string) (string, error) {
		t.Helper()
		c, err := control.Dial(ctx, filepath.Join(dir, id+".sock"))
		return submit(c, err, node, kind, more...)
	}
	over := func(kind string, more ...string) (string, error) { // the mesh, to b's control service
		t.Helper()
		conn, err := a.mesh.Dial(ctx, "b", "control")
		for err != nil && ctx.Err() == nil {
			conn, err = a.mesh.Dial(ctx, "b", "control") // the link comes up
		}
		if err != nil {
			t.Fatal(err)
		}
		c, err := control.NewClient(ctx, conn)
		return submit(c, err, "localhost", kind, more...)
	}
	token := func(key, node string) string {
		t.Helper()
		text, err := worktoken.Signer{KeyFile: key}.Token(node, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	for name, c := range map[string]struct {
		n    *Node
		want string
		sub  func() (string, error)
	}{
		"signed by its node":               {a, "exit status 0", func() (string, error) { return at("a", "b", "signed", "signwork", "true") }},
		"not signed":                       {a, "must be signed", func() (string, error) { return at("a", "b", "signed") }},
		"signed, and that is not expected": {a, "did not expect a signature", func() (string, error) { return at("a", "b", "plain", "signwork", "true") }},
		"signed with another key":          {liar, "does not hold for node b", func() (string, error) { return at("liar", "b", "signed", "signwork", "true") }},
		"a key that is not there":          {broken, "/nonexistent/key", func() (string, error) { return at("broken", "b", "signed", "signwork", "true") }},
		"a key that is not needed":         {broken, "exit status 0", func() (string, error) { return at("broken", "b", "plain") }},
		"nothing to sign with":             {nil, "work-signing", func() (string, error) { return at("none", "b", "signed", "signwork", "true") }},
		"the submitter's own signature":    {a, "exit status 0", func() (string, error) { return at("a", "b", "signed", "signature", token(private, "b")) }},
		"on the node's host":               {b, "exit status 0", func() (string, error) { return at("b", "localhost", "signed") }},
		"there, unexpected":                {nil, "work type did not expect a signature", func() (string, error) { return at("b", "b", "plain", "signature", token(private, "b")) }},
		"over the mesh, not signed":        {nil, "must be signed", func() (string, error) { return over("signed") }},
		"over the mesh, signed":            {b, "exit status 0", func() (string, error) { return over("signed", "signature", token(private, "b")) }},
		"over the mesh, for another node":  {nil, "does not hold", func() (string, error) { return over("signed", "signature", token(private, "a")) }},
		"over the mesh, of no form":        {nil, "does not hold", func() (string, error) { return over("signed", "signature", "x") }},
		"over the mesh, unexpected":        {nil, "did not expect a signature", func() (string, error) { return over("plain", "signature", token(private, "b")) }},
		"a ttl on a unit of this node":     {nil, "ttl only applies to remote nodes", func() (string, error) { return at("b", "b", "plain", "ttl", "30s") }},
		"a secret to another node":         {nil, "secret_x", func() (string, error) { return at("a", "b", "plain", "secret_x", "y") }},
		"a signwork that is neither":       {nil, "true or false", func() (string, error) { return at("a", "b", "plain", "signwork", "maybe") }},
	} {
		id, err := c.sub()
		got := ""
		if err == nil && c.n != nil {
			got = ended(t, c.n, id).Detail
		} else if err != nil {
			got = err.Error()
		}
		if (c.n == nil) != (err != nil) || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
	}
	s, err := backend{a}.Status(ctx, control.AllFields())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range s.Nodes {
		for _, w := range n.WorkTypes {
			if w.Secure != (w.WorkType == "signed") {
				t.Errorf("%s of %s is told as secure: %v", w.WorkType, n.ID, w.Secure)
			}
		}
	}
}
