package e2e

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
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
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/tcplink"
	"github.com/ranvier-mesh/ranvier/routing"
	"github.com/ranvier-mesh/ranvier/worktypes"
	"github.com/ranvier-mesh/ranvier/worktypes/remote"
)

// hub is the node of a mesh's CA, a process.
type hub struct {
	*host
	node *process
	dir  string
	addr string
}

// startHub makes a mesh and starts its first node, with further items in its file.
func startHub(t *testing.T, items string) *hub {
	t.Helper()
	h := &hub{host: newHost(t), addr: freePort(t)}
	h.dir = filepath.Join(h.home, "data")
	h.ok("ca", "init", "--mesh", "example", "--id", "hub", "--dir", h.dir, "--listen", h.addr)
	file := filepath.Join(h.dir, "ranvier.yml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("control-service: {"), []byte("control-service: {service: control, "), 1)
	write(t, file, string(text)+items)
	h.node = h.host.node(h.dir)
	return h
}

func (h *hub) socket() string { return filepath.Join(h.dir, "control.sock") }

func (h *hub) token(args ...string) string {
	h.t.Helper()
	return strings.TrimSpace(h.ok(append([]string{"ca", "token", "--dir", h.dir}, args...)...))
}

// member joins and returns its host, and its identity for the test to misuse.
func (h *hub) member(id, role, work string) (*host, *identity.Self) {
	h.t.Helper()
	m := newHost(h.t)
	dir := filepath.Join(m.home, ".config", "ranvier")
	m.ok("join", h.token("--role", role, "--id", id, "--work", work), "--id", id, "--dir", dir, "--listen", "none")
	self, err := identity.Load(filepath.Join(dir, "identity"), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	return m, self
}

func over(self *identity.Self) tcplink.Transport {
	return tcplink.Transport{ServerTLS: self.ServerTLS(), ClientTLS: self.ClientTLS()}
}

// attach puts a member into the mesh from within the test.
func (h *hub) attach(ctx context.Context, self *identity.Self) *mesh.Attachment {
	h.t.Helper()
	m, err := mesh.Attach(ctx, mesh.Config{
		Self: self, Transports: map[string]link.Transport{"tcp": over(self)}, Peers: []mesh.PeerConfig{{Address: "tcp://" + h.addr}},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { m.Close() })
	return m
}

func workAt(m *mesh.Attachment) *remote.Client {
	return &remote.Client{Node: "hub", Keep: true, Dial: func(ctx context.Context) (net.Conn, error) {
		return m.Dial(ctx, "hub", remote.ServiceName)
	}}
}

// A member with a certificate that holds, eve, does at a real node what she must
// not. The node goes on, runs nothing of hers, and alice's job is unharmed.
func TestHostileMember(t *testing.T) {
	t.Parallel()
	h := startHub(t, `- work-command: {worktype: hold, command: sleep, params: "600"}
- work-command: {worktype: boss, command: cat}
- work-command: {worktype: signed, command: cat}
- work-command: {worktype: ansible-runner, command: ansible-runner, params: worker}
- work-policy: {worktype: signed, needsignature: true}
- work-policy: {worktype: ansible-runner, needsignature: true}
`)
	aliceHost, alice := h.member("alice", "client", "hold,signed,ansible-runner")
	_, eve := h.member("eve", "leaf", "hold,signed")
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	good, bad := h.attach(ctx, alice), h.attach(ctx, eve)

	// Alice at work: one job runs, one was signed.
	unit := worktypes.NewID()
	job, err := workAt(good).Submit(ctx, worktypes.Spec{ID: unit, Type: "hold"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer job.Close()
	var caught []byte
	signed := func(c *remote.Client, id string, sign func(identity.WorkOrder) ([]byte, error)) error {
		k, err := c.SubmitInput(ctx, worktypes.Spec{ID: id, Type: "signed"}, remote.Input{
			Payload: func(remote.Takes) io.Reader { return strings.NewReader("work") }, Sign: sign,
		})
		if err != nil {
			return err
		}
		defer k.Close()
		_, err = io.Copy(io.Discard, k.Results)
		return err
	}
	first := worktypes.NewID()
	if err := signed(workAt(good), first, func(o identity.WorkOrder) ([]byte, error) {
		caught, err = alice.SignWork(o)
		return caught, err
	}); err != nil {
		t.Fatalf("alice's signed work: %v", err)
	}

	t.Run("work", func(t *testing.T) {
		again := func(identity.WorkOrder) ([]byte, error) { return caught, nil }
		forOther := func(o identity.WorkOrder) ([]byte, error) { o.Unit = first; return eve.SignWork(o) }
		c := workAt(bad)
		_, submits := c.Submit(ctx, worktypes.Spec{ID: worktypes.NewID(), Type: "boss"}, strings.NewReader("x"))
		_, reads := c.Follow(ctx, unit, 0)
		_, cancels := c.Cancel(ctx, unit)
		for name, err := range map[string]error{
			"work that her certificate does not name":    submits,
			"another's unit read":                        reads,
			"another's unit canceled":                    cancels,
			"another's unit released":                    c.Release(ctx, unit),
			"a captured signature for a unit of hers":    signed(c, worktypes.NewID(), again),
			"a captured signature for the same unit":     signed(c, first, again),
			"her signature for another's unit":           signed(c, worktypes.NewID(), forOther),
			"a captured signature, by alice's own again": signed(workAt(good), worktypes.NewID(), again),
		} {
			if !errors.Is(err, worktypes.ErrForbidden) && !errors.Is(err, worktypes.ErrConflict) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := c.Status(ctx, "../.."); err == nil {
			t.Error("a path is taken for a unit")
		}
		h.refusesPaths(ctx, t, bad)
	})
	t.Run("hello", func(t *testing.T) {
		for name, hello := range map[string]wire.Hello{
			"of the node itself":     {ID: "hub", Role: wire.RoleRouter},
			"of another member":      {ID: "alice/1", Role: wire.RoleEphemeral},
			"of a router, by a leaf": {ID: "eve", Role: wire.RoleRouter},
		} {
			if answer := h.hello(ctx, t, eve, hello); answer.Code != wire.CodeForbidden {
				t.Errorf("%s: %+v", name, answer)
			}
		}
	})
	t.Run("join", func(t *testing.T) {
		p := newHost(t).start("join", h.token("--role", "router", "--id", "*"), "--id", "alice", "--dir", t.TempDir(), "--listen", "none")
		p.exits(1)
		if !strings.Contains(p.stderr.String(), identity.ErrTaken.Error()) {
			t.Errorf("an id that is taken: %s", p.stderr)
		}
	})
	t.Run("certificates", func(t *testing.T) {
		for name, cert := range map[string]tls.Certificate{"of 16 KiB": selfSigned(t, 16<<10), "of no CA": selfSigned(t, 1), "none": {}} {
			if err := h.shows(cert); err == nil {
				t.Errorf("a certificate %s is taken", name)
			}
		}
	})
	t.Run("job", func(t *testing.T) {
		aliceHost := &host{t: t, home: aliceHost.home}
		p := newProject(t, "- debug: {msg: it is signed}\n")
		args := []string{"run", p.dir, "-p", "test.yml", "--via-receptor", "hub", "--receptor-peer", h.addr, "-i"}
		run := aliceHost.start(append(args, "one", "--sign")...)
		run.exits(0)
		if !strings.Contains(run.stdout.String(), "it is signed") {
			t.Errorf("output: %s", run.stdout)
		}
		unsigned := aliceHost.start(append(args, "two")...)
		unsigned.exits(69)
		if !strings.Contains(unsigned.stderr.String(), "sign") {
			t.Errorf("unsigned work is refused without a word of it: %s", unsigned.stderr)
		}
	})

	st, err := workAt(good).Status(ctx, unit)
	if err != nil || st.State != worktypes.Running {
		t.Errorf("alice's job: %+v, %v", st, err)
	}
	if all, err := workAt(bad).List(ctx); err != nil {
		t.Error(err)
	} else {
		for _, st := range all {
			if st.Owner == "eve" && !st.Started.IsZero() {
				t.Errorf("work of eve was started: %+v", st)
			}
		}
	}
	if _, err := workAt(good).Cancel(ctx, unit); err != nil {
		t.Errorf("alice cancels her own: %v", err)
	}
	if _, err := io.Copy(io.Discard, job.Results); err != nil {
		t.Errorf("the end of alice's job: %v", err)
	}
	if !h.node.running() {
		t.Error("the node has ended")
	}
	if peak := h.node.peakMiB(); peak > 150 {
		t.Errorf("the node has had %d MiB", peak)
	}
}

// refusesPaths asks the control service for units that are none.
func (h *hub) refusesPaths(ctx context.Context, t *testing.T, m *mesh.Attachment) {
	t.Helper()
	conn, err := m.Dial(ctx, "hub", "control")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c, err := control.NewClient(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	for _, unit := range []string{"../..", "../../identity", "/etc/passwd"} {
		err := c.Call(ctx, map[string]any{"command": "work", "subcommand": "status", "unitid": unit}, nil)
		if err == nil || !strings.Contains(err.Error(), "unknown work unit") {
			t.Errorf("work status %s: %v", unit, err)
		}
	}
}

// hello says a Hello as a member and returns the refusal.
func (h *hub) hello(ctx context.Context, t *testing.T, self *identity.Self, hello wire.Hello) wire.GoAway {
	t.Helper()
	l, err := over(self).Dial(ctx, h.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := l.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s.SetDeadline(time.Now().Add(patience))
	hello.Protocol, hello.Epoch, hello.Nonce = wire.Protocol, 1, make([]byte, wire.NonceLen)
	frame, err := hello.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Write(frame)
	typ, body, err := wire.ReadFrame(s, nil, wire.MaxFrame)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := wire.ParseControl(typ, body)
	if err != nil {
		t.Fatal(err)
	}
	refusal, ok := msg.(wire.GoAway)
	if !ok {
		t.Errorf("node %s got %+v", routing.NodeID(hello.ID), msg)
	}
	return refusal
}

// shows shows a certificate to the node, and returns nil if the node then
// accepts a stream of yamux.
func (h *hub) shows(cert tls.Certificate) error {
	d := tls.Dialer{Config: &tls.Config{
		Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true, NextProtos: []string{identity.LinkProtocol},
	}}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := d.DialContext(ctx, "tcp", h.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	first := []byte{0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0}
	if _, err := conn.Write(first); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, first)
	return err
}

// selfSigned makes a certificate of its own with an extension of some size.
func selfSigned(t *testing.T, size int) tls.Certificate {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "eve"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		ExtraExtensions: []pkix.Extension{{Id: []int{1, 2, 3}, Value: make([]byte, size)}},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}
