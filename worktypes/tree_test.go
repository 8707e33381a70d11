package worktypes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ranvier-mesh/ranvier/internal/tree"
	"github.com/ranvier-mesh/ranvier/worktypes/content"
)

// planter is a work type that runs its "script" in its tree.
type planter struct{}

func (planter) Name() string { return "planter" }

func (planter) Plan(s Spec, scratch string) (Plan, error) {
	dir := scratch + "/tree"
	return Plan{Argv: []string{"echo", "no tree"}, Scratch: true, Tree: &TreePlan{
		Dir: dir, Argv: []string{"sh", "-c", "cd '" + dir + "'; " + s.Params["script"]},
	}}, nil
}

func openPlanter(t testing.TB, dir string, limit int64) *Manager {
	t.Helper()
	reg, err := NewRegistry(planter{}, shell{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := Open(dir, reg, Options{Grace: 100 * time.Millisecond, ContentLimit: limit})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeNow(t, m) })
	return m
}

var alice = content.OwnerOf("alice", nil)

// snapshot is a directory with one file of random bytes and one with text.
func snapshot(t testing.TB, seed byte, size int, text string) *tree.Snapshot {
	t.Helper()
	dir := t.TempDir()
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(data)
	for name, data := range map[string][]byte{"data": data, "text": []byte(text)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	snap, err := tree.Scan(t.Context(), dir, tree.ScanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

// payload opens the payload of a new unit.
func payload(t testing.TB, m *Manager, script string) *Payload {
	t.Helper()
	id := NewID()
	if _, err := m.Submit(Spec{ID: id, Type: "planter", Params: map[string]string{"script": script}, Owner: "me"}); err != nil {
		t.Fatal(err)
	}
	p, err := m.Payload(id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	if !p.TakesTree() {
		t.Fatal("the type takes no tree")
	}
	return p
}

// sendTree gives the payload a tree, and returns how many pieces were lacking.
func sendTree(t testing.TB, p *Payload, snap *tree.Snapshot) (sent int) {
	t.Helper()
	wants, err := p.Tree(&alice, bytes.NewReader(snap.Manifest()))
	pieces, lacking := wants.Pieces, wants.Lacking
	if err != nil {
		t.Fatal(err)
	}
	putPieces(t, p, snap, pieces, lacking, func(error) bool { return false })
	for _, l := range lacking {
		if l {
			sent++
		}
	}
	return sent
}

func putPieces(t testing.TB, p *Payload, snap *tree.Snapshot, pieces []tree.Piece, lacking []bool, stop func(error) bool) {
	t.Helper()
	var wire bytes.Buffer
	if err := snap.Send(t.Context(), func(i int) bool { return lacking[i] }, func(b []byte) error {
		wire.Write(b)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	r, err := tree.NewPieceReader(&wire)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for i, piece := range pieces {
		if !lacking[i] {
			continue
		}
		data, err := r.Next(piece)
		if err == nil {
			err = p.PutPiece(piece, data)
		}
		if stop(err) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func commit(t testing.TB, p *Payload) string {
	t.Helper()
	if err := p.Commit(p.Size(), p.Sum()); err != nil {
		t.Fatal(err)
	}
	return p.Unit()
}

func results(t testing.TB, m *Manager, id string) string {
	t.Helper()
	text, err := io.ReadAll(output(t, m, id, 0))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTreeIsThereWhenTheJobStarts(t *testing.T) {
	t.Parallel()
	m := openPlanter(t, t.TempDir(), 0)
	snap := snapshot(t, 1, 3*tree.MaxPiece, "hello\n")
	const script = "cat text; wc -c < data; cat; echo changed > text; chmod 777 data; echo x >> data"
	for round, want := range []bool{true, false} {
		p := payload(t, m, script)
		if sent := sendTree(t, p, snap); (sent > 0) != want {
			t.Errorf("round %d: %d pieces were lacking", round, sent)
		}
		fmt.Fprint(p, "payload\n")
		id := commit(t, p)
		if err := m.Start(id); err != nil {
			t.Fatal(err)
		}
		if got := results(t, m, id); got != "hello\n786432\npayload\n" {
			t.Errorf("round %d: results %q", round, got)
		}
		wait(t, m, id)
		for _, name := range []string{treeFile, treePartFile, scratchDir, stdinFile} {
			if _, err := os.Lstat(unitFile(m, id, name)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left: %v", name, err)
			}
		}
	}
	// A unit without a tree runs as ever.
	p := payload(t, m, "cat text")
	id := commit(t, p)
	if err := m.Start(id); err != nil {
		t.Fatal(err)
	}
	if got := results(t, m, id); got != "no tree\n" {
		t.Errorf("results %q", got)
	}
}

// TestTreesThatLie: a manifest or a piece that is not what it says costs the
// unit, which never starts.
func TestTreesThatLie(t *testing.T) {
	t.Parallel()
	m := openPlanter(t, t.TempDir(), 0)
	for name, lie := range map[string]func(p *Payload, snap *tree.Snapshot) error{
		"no manifest": func(p *Payload, snap *tree.Snapshot) error {
			_, err := p.Tree(&alice, strings.NewReader("RVT1 or what"))
			return err
		},
		"half a manifest": func(p *Payload, snap *tree.Snapshot) error {
			b := snap.Manifest()
			_, err := p.Tree(&alice, bytes.NewReader(b[:len(b)-3]))
			return err
		},
		"another hash": func(p *Payload, snap *tree.Snapshot) error {
			b := bytes.Clone(snap.Manifest())
			b[10] ^= 1 // in the first piece's hash
			wants, err := p.Tree(&alice, bytes.NewReader(b))
			pieces, lacking := wants.Pieces, wants.Lacking
			if err != nil {
				t.Fatal(err)
			}
			putPieces(t, p, snap, pieces, lacking, func(e error) bool { err = e; return e != nil })
			return err
		},
		"a piece of something else": func(p *Payload, snap *tree.Snapshot) error {
			if _, err := p.Tree(&alice, bytes.NewReader(snap.Manifest())); err != nil {
				t.Fatal(err)
			}
			return p.PutPiece(tree.Piece{Size: 1}, []byte{0})
		},
		"pieces that do not come": func(p *Payload, snap *tree.Snapshot) error {
			if _, err := p.Tree(&alice, bytes.NewReader(snap.Manifest())); err != nil {
				t.Fatal(err)
			}
			return p.Commit(p.Size(), p.Sum())
		},
	} {
		p := payload(t, m, "echo ran")
		if err := lie(p, snapshot(t, name[0], 100_000, name)); !errors.Is(err, ErrBadPayload) {
			t.Errorf("%s: %v", name, err)
		}
		if st := wait(t, m, p.Unit()); st.State != Failed || !st.Started.IsZero() || st.Detail == "" {
			t.Errorf("%s: %+v", name, st)
		}
		if err := m.Start(p.Unit()); !errors.Is(err, ErrNotPending) {
			t.Errorf("%s: start: %v", name, err)
		}
	}
}

// TestTreeStaysWhileTheJobRuns: its room is not given to others before.
func TestTreeStaysWhileTheJobRuns(t *testing.T) {
	t.Parallel()
	const piece = tree.MaxPiece
	m := openPlanter(t, t.TempDir(), 5*piece)
	fifo := filepath.Join(t.TempDir(), "gate")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	p := payload(t, m, "read x < "+fifo)
	sendTree(t, p, snapshot(t, 1, 3*piece, ""))
	id := commit(t, p)
	if err := m.Start(id); err != nil {
		t.Fatal(err)
	}
	other := snapshot(t, 2, 3*piece, "")
	p2 := payload(t, m, "wc -c < data")
	wants, err := p2.Tree(&alice, bytes.NewReader(other.Manifest()))
	if err != nil || !errors.Is(wants.Unkept, content.ErrNoRoom) {
		t.Fatalf("%v, %+v", err, wants)
	}
	// It goes with its unit alone.
	putPieces(t, p2, other, wants.Pieces, wants.Lacking, func(error) bool { return false })
	id2 := commit(t, p2)
	if err := m.Start(id2); err != nil {
		t.Fatal(err)
	}
	if st := wait(t, m, id2); st.State != Succeeded || m.ContentUsage().Used > 3*piece {
		t.Fatalf("%+v, %+v", st, m.ContentUsage())
	}
	if _, err := os.Lstat(filepath.Join(m.store.path(id2), piecesDir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its pieces: %v", err)
	}
	gate, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(gate)
	gate.Close()
	if st := wait(t, m, id); st.State != Succeeded {
		t.Fatalf("%+v", st)
	}
	p3 := payload(t, m, "wc -c < data")
	if sent := sendTree(t, p3, other); sent != 3 {
		t.Errorf("%d pieces were lacking", sent)
	}
	if u := m.ContentUsage(); u.Used > u.Limit || u.Pieces == 0 {
		t.Errorf("%+v", u)
	}
}

// TestTreeAfterARestart: a unit that has its tree starts in the next process,
// unless the tree was damaged, which is told.
func TestTreeAfterARestart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		harm func(t *testing.T, dir string, id string)
		want error
	}{
		"whole": {func(*testing.T, string, string) {}, nil},
		"half built": {func(t *testing.T, dir, id string) {
			made := filepath.Join(dir, "units", id, scratchDir, "tree", "text")
			if err := errors.Join(os.MkdirAll(filepath.Dir(made), 0o700), os.WriteFile(made, nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		}, nil},
		"a piece is gone": {func(t *testing.T, dir, id string) { os.Remove(somePiece(t, dir)) }, content.ErrGone},
		"a piece is damaged": {func(t *testing.T, dir, id string) {
			f, err := os.OpenFile(somePiece(t, dir), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = f.WriteAt([]byte("damage"), 1000)
			f.Close()
		}, content.ErrGone},
		"all is gone": {func(t *testing.T, dir, id string) { os.RemoveAll(filepath.Join(dir, "content")) }, content.ErrGone},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			m := openPlanter(t, dir, 0)
			p := payload(t, m, "cat text; wc -c < data")
			sendTree(t, p, snapshot(t, 1, 2*tree.MaxPiece, "hello\n"))
			id := commit(t, p)
			half := payload(t, m, "true") // on its way when the process ends
			if _, err := half.Tree(&alice, bytes.NewReader(snapshot(t, 2, 1000, "").Manifest())); err != nil {
				t.Fatal(err)
			}
			closeNow(t, m)
			c.harm(t, dir, id)

			m = openPlanter(t, dir, 0)
			if _, err := os.Lstat(unitFile(m, half.Unit(), treePartFile)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("half a tree is left: %v", err)
			}
			if err := m.Start(id); !errors.Is(err, c.want) {
				t.Fatalf("start: %v, want %v", err, c.want)
			}
			st := wait(t, m, id)
			if c.want == nil {
				if got := results(t, m, id); got != "hello\n524288\n" {
					t.Errorf("results %q", got)
				}
			} else if st.State != Failed || !strings.Contains(st.Detail, "submit the job again") || !st.Started.IsZero() {
				t.Errorf("%+v", st)
			}
			if _, err := os.Lstat(unitFile(m, id, scratchDir)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("scratch is left: %v", err)
			}
		})
	}
}

func somePiece(t testing.TB, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "content", "*", fmt.Sprint("*-", tree.MaxPiece)))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	return files[0]
}

// TestCancelAndReleaseWhileTheTreeIsBuilt: whenever that comes, nothing is left.
func TestCancelAndReleaseWhileTheTreeIsBuilt(t *testing.T) {
	t.Parallel()
	m := openPlanter(t, t.TempDir(), 0)
	snap := snapshot(t, 1, 32<<20, "")
	for round := range 4 {
		p := payload(t, m, "sleep 60")
		sendTree(t, p, snap)
		id := commit(t, p)
		started := make(chan error, 1)
		go func() { started <- m.Start(id) }()
		for {
			if _, err := os.Lstat(unitFile(m, id, scratchDir)); err == nil {
				break
			}
		}
		if round%2 == 0 {
			if err := m.Cancel(id); err != nil {
				t.Fatal(err)
			}
			if st := wait(t, m, id); st.State != Canceled {
				t.Errorf("%+v", st)
			}
		}
		if err := m.Release(context.Background(), id); err != nil {
			t.Fatal(err)
		}
		if err := <-started; err != nil && !errors.Is(err, ErrNotPending) && !errors.Is(err, ErrUnknownUnit) {
			t.Error(err)
		}
		if left, _ := filepath.Glob(filepath.Join(m.store.units, "*"+id+"*")); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
}

func TestNodeThatKeepsNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := openPlanter(t, dir, -1)
	p := payload(t, m, "wc -c < data")
	snap := snapshot(t, 1, 10, "")
	wants, err := p.Tree(&alice, bytes.NewReader(snap.Manifest()))
	if err != nil || !errors.Is(wants.Unkept, content.ErrNoRoom) {
		t.Fatalf("%v, %+v", err, wants)
	}
	putPieces(t, p, snap, wants.Pieces, wants.Lacking, func(error) bool { return false })
	id := commit(t, p)
	if err := m.Start(id); err != nil {
		t.Fatal(err)
	}
	if st := wait(t, m, id); st.State != Succeeded {
		t.Errorf("%+v", st)
	}
}
