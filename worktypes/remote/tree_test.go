package remote_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/tree"
	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/worktypes"
	"github.com/ranvier-mesh/ranvier/worktypes/remote"
)

// planter is a work type that tells what is in its tree and its payload.
type planter struct{}

func (planter) Name() string { return "planter" }

func (planter) Plan(_ worktypes.Spec, scratch string) (worktypes.Plan, error) {
	dir := scratch + "/tree"
	return worktypes.Plan{Argv: []string{"sh", "-c", "echo no tree; cat"}, Scratch: true, Tree: &worktypes.TreePlan{
		Dir: dir, Argv: []string{"sh", "-c", "cat '" + dir + "/text'; wc -c < '" + dir + "/data'; cat"},
	}}, nil
}

var (
	key   = bytes.Repeat([]byte{1}, 32)
	other = bytes.Repeat([]byte{2}, 32)
)

// directory has one file of random bytes and one with text.
func directory(t testing.TB, size int) string {
	t.Helper()
	dir := t.TempDir()
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(data)
	for name, data := range map[string][]byte{"data": data, "text": []byte("hello\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func scan(t testing.TB, dir string) *tree.Snapshot {
	t.Helper()
	snap, err := tree.Scan(t.Context(), dir, tree.ScanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

// input is a directory and a payload that says whether it went along. sent is
// how many bytes travelled; it is right when the job has been submitted.
func input(snap remote.Tree, key []byte) (_ remote.Input, sent *atomic.Int64) {
	sent = new(atomic.Int64)
	return remote.Input{Tree: snap, Key: key, Sent: sent.Store, Payload: func(takes remote.Takes) io.Reader {
		return strings.NewReader(fmt.Sprintln("payload", takes.Tree))
	}}, sent
}

func TestOnlyWhatIsLackingIsSent(t *testing.T) {
	const size = 10 << 20
	overBoth(t, func(t *testing.T, n *node) {
		dir := directory(t, size)
		submit := func(key []byte) int64 {
			t.Helper()
			in, sent := input(scan(t, dir), key)
			job, err := n.client().SubmitInput(deadline(t), worktypes.Spec{Type: "planter"}, in)
			if err != nil {
				t.Fatal(err)
			}
			expectRest(t, job.Results, fmt.Sprintf("hello\n%d\npayload true\n", size))
			return sent.Load()
		}
		if sent := submit(key); sent < size {
			t.Errorf("first: %d bytes", sent)
		}
		if sent := submit(key); sent > 4<<10 {
			t.Errorf("again: %d bytes", sent)
		}
		f, err := os.OpenFile(filepath.Join(dir, "data"), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = f.WriteAt([]byte("changed"), 5<<20)
		f.Close()
		if sent := submit(key); sent > 2*tree.MaxPiece || sent < 1000 {
			t.Errorf("with a change: %d bytes", sent)
		}
		// Another owner is asked for all of it: that a piece is there is none
		// of his business.
		if sent := submit(other); sent < size {
			t.Errorf("another owner: %d bytes", sent)
		}
	})
}

// TestTreeThatIsNotTaken: the payload then brings everything.
func TestTreeThatIsNotTaken(t *testing.T) {
	t.Parallel()
	n := newNode(t, "tcp")
	in, sent := input(scan(t, directory(t, 1<<20)), key)
	job, err := n.client().SubmitInput(deadline(t), shell("cat"), in)
	if err != nil {
		t.Fatal(err)
	}
	expectRest(t, job.Results, "payload false\n")
	if sent.Load() > 10_000 {
		t.Errorf("%d bytes were sent for nothing", sent.Load())
	}
}

// TestTreeThatIsNotKept: it travels as any other, and the next time again.
func TestTreeThatIsNotKept(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	for name, c := range map[string]struct {
		key   []byte
		whole bool
		limit int64
		why   string
	}{
		"no room":          {key, false, 1000, "no room"},
		"none is kept":     {key, false, -1, "set up to keep none"},
		"a key too short":  {[]byte("secret"), false, 0, "neither an identity nor a key"},
		"a key too long":   {make([]byte, 65), false, 0, "neither an identity nor a key"},
		"nobody wants it":  {nil, true, 0, ""},
		"wanted elsewhere": {key, true, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNodeWith(t, "tcp", worktypes.Options{ContentLimit: c.limit})
			snap := scan(t, directory(t, size))
			for range 2 {
				in, sent := input(snap, c.key)
				told := ""
				in.Whole, in.Unkept = c.whole, func(why string) { told = why }
				job, err := n.client().SubmitInput(deadline(t), worktypes.Spec{Type: "planter"}, in)
				if err != nil {
					t.Fatal(err)
				}
				expectRest(t, job.Results, fmt.Sprintf("hello\n%d\npayload true\n", size))
				if sent.Load() < size || !strings.Contains(told, c.why) || (told == "") != (c.why == "") {
					t.Errorf("%d bytes; told %q", sent.Load(), told)
				}
			}
			if kept := n.m.ContentUsage(); kept.Used != 0 {
				t.Errorf("%+v is kept", kept)
			}
		})
	}
}

// TestDirectoryThatChanges: other bytes than those of the manifest never
// arrive.
func TestDirectoryThatChanges(t *testing.T) {
	overBoth(t, func(t *testing.T, n *node) {
		dir := directory(t, 1<<20)
		in, _ := input(scan(t, dir), key)
		if err := os.WriteFile(filepath.Join(dir, "data"), make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		spec := worktypes.Spec{ID: worktypes.NewID(), Type: "planter"}
		if _, err := n.client().SubmitInput(deadline(t), spec, in); !errors.Is(err, tree.ErrChanged) {
			t.Fatal(err)
		}
		if st, err := n.m.Status(spec.ID); err != nil && !errors.Is(err, worktypes.ErrUnknownUnit) || st.State != worktypes.Failed && err == nil {
			t.Errorf("%+v, %v", st, err)
		}
	})
}

// cutter ends the connection after some pieces.
type cutter struct {
	*tree.Snapshot
	left int
	cut  func()
}

func (c *cutter) Send(ctx context.Context, lacking func(int) bool, emit func([]byte) error) error {
	return c.Snapshot.Send(ctx, lacking, func(b []byte) error {
		if c.left--; c.left < 0 {
			c.cut()
		}
		return emit(b)
	})
}

// TestSubmitterDiesWithinTheTree: the unit never starts, and what came need not
// come again.
func TestSubmitterDiesWithinTheTree(t *testing.T) {
	overBoth(t, func(t *testing.T, n *node) {
		const size = 8 << 20
		snap := scan(t, directory(t, size))
		ctx, cancel := context.WithCancel(deadline(t))
		defer cancel()
		in, _ := input(&cutter{snap, 16, cancel}, key)
		spec := worktypes.Spec{ID: worktypes.NewID(), Type: "planter"}
		if _, err := n.client().SubmitInput(ctx, spec, in); err == nil {
			t.Fatal("it was taken")
		}
		if st := waitEnd(t, n, spec.ID); st.State != worktypes.Failed || !st.Started.IsZero() {
			t.Errorf("%+v", st)
		}
		in, sent := input(snap, key)
		job, err := n.client().SubmitInput(deadline(t), worktypes.Spec{Type: "planter"}, in)
		if err != nil {
			t.Fatal(err)
		}
		expectRest(t, job.Results, fmt.Sprintf("hello\n%d\npayload true\n", size))
		if sent.Load() > size-8*tree.MaxPiece {
			t.Errorf("%d bytes were sent after 16 of 32 pieces had been", sent.Load())
		}
	})
}

// TestCancelWithinTheTree: somebody else cancels the unit while it arrives.
func TestCancelWithinTheTree(t *testing.T) {
	overBoth(t, func(t *testing.T, n *node) {
		spec := worktypes.Spec{ID: worktypes.NewID(), Type: "planter"}
		in, _ := input(&cutter{scan(t, directory(t, 8<<20)), 10, func() { _ = n.m.Cancel(spec.ID) }}, key)
		job, err := n.client().SubmitInput(deadline(t), spec, in)
		if err != nil {
			t.Fatal(err)
		}
		expectRest(t, job.Results, "")
		if st := job.Status(); st.State != worktypes.Canceled {
			t.Errorf("%+v", st)
		}
	})
}

// TestSubmittersThatLie speaks the protocol by hand.
func TestSubmittersThatLie(t *testing.T) {
	t.Parallel()
	n := newNode(t, "tcp")
	snap := scan(t, directory(t, 10))
	manifest := snap.Manifest()
	sum := sha256.Sum256(manifest)
	end := func(size int, sum [32]byte) []byte { return frame(0x48, map[int]any{1: size, 2: sum[:]}) }
	data := func(b ...byte) []byte { return append(wire.AppendHeader(nil, wire.TypeData, len(b)), b...) }
	good := append(data(manifest...), end(len(manifest), sum)...)
	one := data(0, 0, 0, 1, 'x')
	for name, c := range map[string]struct {
		first, then []byte // then comes after Lacking
		code        remote.Code
	}{
		"another hash":         {append(data(manifest...), end(len(manifest), [32]byte{})...), nil, remote.CodeBadPayload},
		"another size":         {append(data(manifest...), end(len(manifest)+1, sum)...), nil, remote.CodeBadPayload},
		"a short hash":         {append(data(manifest...), frame(0x48, map[int]any{1: 1, 2: []byte{1}})...), nil, remote.CodeMalformed},
		"no manifest":          {append(data('x'), end(1, sha256.Sum256([]byte("x")))...), nil, remote.CodeBadPayload},
		"other bytes":          {good, data(append([]byte{0, 0, 0, byte(snap.Bytes())}, make([]byte, snap.Bytes())...)...), remote.CodeBadPayload},
		"a longer piece":       {good, data(0, 0, 1, 0), remote.CodeBadPayload},
		"no zstd":              {good, data(0x80, 0, 0, 1, 'x'), remote.CodeBadPayload},
		"a shorter piece":      {good, one, remote.CodeBadPayload},
		"payload in its midst": {good, append(data(0, 0, 0, 9), frame(0x46, map[int]any{1: 0, 2: make([]byte, 32)})...), 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := n.dial(deadline(t))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			id := worktypes.NewID()
			_, _ = conn.Write(frame(0x40, map[int]any{1: id, 2: "planter", 5: true, 6: key}))
			expect(t, conn, 0x50)
			_, _ = conn.Write(c.first)
			if c.then != nil {
				expect(t, conn, 0x54)
				_, _ = conn.Write(c.then)
			}
			if c.code == 0 { // it is waited for, until the client goes
				conn.Close()
			} else {
				var m struct {
					Code remote.Code `cbor:"1,keyasint"`
				}
				if err := wire.Unmarshal(expect(t, conn, 0x53), &m); err != nil || m.Code != c.code {
					t.Errorf("code %v, %v; want %v", m.Code, err, c.code)
				}
				conn.Close()
			}
			if st := waitEnd(t, n, id); st.State != worktypes.Failed || !st.Started.IsZero() {
				t.Errorf("%+v", st)
			}
		})
	}
}

// expect reads a frame of type t.
func expect(t *testing.T, r io.Reader, want wire.Type) []byte {
	t.Helper()
	got, body, err := wire.ReadFrame(r, nil, wire.MaxFrame)
	if err != nil || got != want {
		t.Fatalf("frame %#x %q, %v; want %#x", uint8(got), body, err, uint8(want))
	}
	return body
}

// TestTheSameTreeAtOnce: several submits bring the same pieces.
func TestTheSameTreeAtOnce(t *testing.T) {
	overBoth(t, func(t *testing.T, n *node) {
		const size = 2 << 20
		snap := scan(t, directory(t, size))
		var all sync.WaitGroup
		for range 6 {
			all.Go(func() {
				in, _ := input(snap, key)
				job, err := n.client().SubmitInput(deadline(t), worktypes.Spec{Type: "planter"}, in)
				if err != nil {
					t.Error(err)
					return
				}
				expectRest(t, job.Results, fmt.Sprintf("hello\n%d\npayload true\n", size))
			})
		}
		all.Wait()
		if u := n.m.ContentUsage(); u.Used != size+6 {
			t.Errorf("%+v", u)
		}
	})
}

// breaking ends the connection after some bytes were written, once for each of
// after.
type breaking struct {
	dial  func(context.Context) (net.Conn, error)
	after []int64
}

func (b *breaking) open(ctx context.Context) (net.Conn, error) {
	conn, err := b.dial(ctx)
	if err != nil || len(b.after) == 0 {
		return conn, err
	}
	left := b.after[0]
	b.after = b.after[1:]
	return &brittle{conn, left}, nil
}

type brittle struct {
	net.Conn
	left int64
}

func (c *brittle) Write(b []byte) (int, error) {
	if c.left -= int64(len(b)); c.left < 0 {
		c.Close()
		return 0, net.ErrClosed
	}
	return c.Conn.Write(b)
}

// TestTreeGoesOnAfterABreak: in the manifest, in the pieces, and in the payload
// behind them; the unit is the same, and no piece comes twice.
func TestTreeGoesOnAfterABreak(t *testing.T) {
	t.Parallel()
	const size = 8 << 20
	n := newNode(t, "tcp")
	n.server.Park = time.Minute
	for name, after := range map[string]int64{"manifest": 300, "pieces": size / 2, "payload": size + 8<<10} {
		t.Run(name, func(t *testing.T) {
			way := &breaking{dial: n.dial, after: []int64{after}}
			client := &remote.Client{Dial: way.open, Node: "x", Patience: 20 * time.Second}
			in, sent := input(scan(t, directory(t, size)), append(bytes.Repeat([]byte{3}, 20), name...))
			in.Again = true
			spec := worktypes.Spec{ID: worktypes.NewID(), Type: "planter"}
			if name == "payload" { // long enough to break in it
				in.Payload = func(remote.Takes) io.Reader { return strings.NewReader(strings.Repeat("payload ", 8<<10)) }
			}
			job, err := client.SubmitInput(deadline(t), spec, in)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(job.Results)
			if err != nil || !strings.HasPrefix(string(text), fmt.Sprintf("hello\n%d\npayload", size)) {
				t.Fatalf("%.60q, %v", text, err)
			}
			if len(way.after) > 0 || job.ID != spec.ID {
				t.Errorf("it did not break, or is another unit")
			}
			// Sent counts what the last connection brought.
			if name != "manifest" && sent.Load() > size/2+3*tree.MaxPiece {
				t.Errorf("%d bytes were sent after the break", sent.Load())
			}
		})
	}
}

// counting counts what is written to a connection.
type counting struct {
	net.Conn
	n *atomic.Int64
}

func (c counting) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return c.Conn.Write(b)
}

// TestTreeIsPassedOn: a node that forwards a unit sends of its tree what the other
// one lacks, also when that was away, and after a restart of its own.
func TestTreeIsPassedOn(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	n := newNode(t, "tcp")
	h := newHome(t, n)
	var passed atomic.Int64
	count := func() {
		passed.Store(0)
		h.wrap = func(c net.Conn) net.Conn { return counting{c, &passed} }
	}
	client := &remote.Client{Node: "home", Dial: func(context.Context) (net.Conn, error) {
		a, b := net.Pipe()
		server := remote.NewServer(h.m, nil)
		server.Admin = "me"
		go server.Serve(deadline(t), b, "me")
		return a, nil
	}}
	dir := directory(t, size)
	submit := func(whole bool, restart func()) {
		t.Helper()
		in, _ := input(scan(t, dir), key)
		in.Whole = whole
		spec := worktypes.Spec{ID: worktypes.NewID(), Type: "planter", Node: "x"}
		job, err := client.SubmitInput(deadline(t), spec, in)
		if err != nil {
			t.Fatal(err)
		}
		if restart != nil {
			restart()
			job.Close()
			if job, err = client.Follow(deadline(t), spec.ID, 0); err != nil {
				t.Fatal(err)
			}
		}
		if text, err := io.ReadAll(job.Results); err != nil || string(text) != fmt.Sprintf("hello\n%d\npayload true\n", size) {
			t.Fatalf("%q, %v, %+v", text, err, job.Status())
		}
	}
	count()
	submit(false, nil)
	if sent := passed.Load(); sent < size {
		t.Errorf("first: %d bytes", sent)
	}
	count()
	h.cut()
	submit(false, func() { h.restart(); h.mend(); count() })
	if sent := passed.Load(); sent > 10_000 {
		t.Errorf("again: %d bytes", sent)
	}
	count()
	h.cut()
	submit(true, func() { h.restart(); h.mend(); count() })
	if sent := passed.Load(); sent < size {
		t.Errorf("whole: %d bytes", sent)
	}
	if n.m.ContentUsage().Used == 0 {
		t.Error("nothing is kept where the job is done")
	}

	in, _ := input(scan(t, dir), key)
	spec := shell("cat")
	spec.ID, spec.Node = worktypes.NewID(), "x"
	job, err := client.SubmitInput(deadline(t), spec, in)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, job.Results)
	if st := job.Status(); st.State != worktypes.Failed || !strings.Contains(st.Detail, "node x takes no directory") {
		t.Errorf("%+v", st)
	}
}
