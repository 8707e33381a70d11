package content

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/ranvier-mesh/ranvier/internal/tree"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var alice, bob = OwnerOf("alice", nil), OwnerOf("bob", nil)

// blob is the n-th piece, of a size that depends on n.
func blob(n int) ([]byte, tree.Piece) {
	data := make([]byte, 1000+n)
	_, _ = rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}).Read(data)
	return data, tree.Piece{Hash: sha256.Sum256(data), Size: len(data)}
}

func open(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func lease(t testing.TB, s *Store, o Owner, pieces ...tree.Piece) (*Lease, []bool) {
	t.Helper()
	l, lacking, err := s.Lease(o, pieces)
	if err != nil {
		t.Fatal(err)
	}
	return l, lacking
}

func put(t testing.TB, l *Lease, ns ...int) {
	t.Helper()
	for _, n := range ns {
		data, p := blob(n)
		if err := l.Put(p, data); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAnotherOwnerGetsNothing: whoever knows a hash has not sent the bytes.
func TestAnotherOwnerGetsNothing(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Options{Limit: 1 << 20})
	_, p := blob(1)
	a, _ := lease(t, s, alice, p)
	put(t, a, 1)
	b, lacking := lease(t, s, bob, p)
	if !lacking[0] {
		t.Fatal("bob is told that alice's piece is there")
	}
	if data, err := b.Read(p, nil); !errors.Is(err, ErrGone) {
		t.Errorf("bob reads %d bytes, %v", len(data), err)
	}
	put(t, b, 1) // he has it himself
	if _, err := b.Read(p, nil); err != nil {
		t.Error(err)
	}
	for _, o := range []Owner{OwnerOf("", []byte("alice")), OwnerOf("alice", []byte{0}), OwnerOf("alic", []byte("e"))} {
		if o == alice {
			t.Error("two owners are one")
		}
	}
}

func TestPutTakesOnlyWhatWasAnnounced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, Options{Limit: 1 << 20})
	data, p := blob(1)
	other, q := blob(2)
	l, _ := lease(t, s, alice, p)
	for name, c := range map[string]struct {
		p    tree.Piece
		data []byte
		want error
	}{
		"another piece":     {q, other, ErrNotAnnounced},
		"other bytes":       {p, append(bytes.Clone(data[1:]), 'x'), tree.ErrMalformed},
		"fewer bytes":       {p, data[1:], tree.ErrMalformed},
		"a hash, two sizes": {tree.Piece{Hash: p.Hash, Size: p.Size - 1}, data[1:], ErrNotAnnounced},
	} {
		if err := l.Put(c.p, c.data); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if names := files(t, dir); len(names) > 0 {
		t.Errorf("left on disk: %v", names)
	}
	put(t, l, 1)
	if got, err := l.Read(p, nil); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := l.Read(q, nil); !errors.Is(err, ErrNotAnnounced) {
		t.Error(err)
	}
}

// files lists all files below dir and holds their modes to what they must be.
func files(t testing.TB, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != dir && info.Mode().Perm() != 0o700 {
				t.Errorf("%s has mode %v", name, info.Mode())
			}
			return nil
		}
		if info.Mode() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
		names = append(names, filepath.Base(name))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestRoomGoesToWhatIsUsed: what is pinned stays, and of the rest what was used
// last.
func TestRoomGoesToWhatIsUsed(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	s := open(t, t.TempDir(), Options{Limit: 3200, Now: func() time.Time { return now }})
	at := func(n int) *Lease {
		now = now.Add(time.Minute)
		_, p := blob(n)
		l, lacking := lease(t, s, alice, p)
		if lacking[0] {
			put(t, l, n)
		}
		return l
	}
	at(1).Release()
	at(2).Release()
	pinned := at(3)
	at(1).Release() // used again: 2 is the oldest now
	at(4).Release() // one has to go
	have := func(n int) bool {
		_, p := blob(n)
		l, lacking := lease(t, s, alice, p)
		defer l.Release()
		return !lacking[0]
	}
	// Asking makes room too, so what is expected to be there is asked first.
	if !have(4) || !have(3) || !have(1) {
		t.Errorf("4: %v, 3: %v, 1: %v; want all", have(4), have(3), have(1))
	}
	if have(2) {
		t.Error("the longest unused piece is still there")
	}
	_, p5 := blob(5)
	_, p6 := blob(6)
	_, p7 := blob(7)
	if _, _, err := s.Lease(alice, []tree.Piece{p5, p6, p7}); !errors.Is(err, ErrNoRoom) {
		t.Errorf("four pieces where three fit: %v", err)
	}
	pinned.Release()
	l, _ := lease(t, s, alice, p5, p6, p7)
	put(t, l, 5, 6, 7)
	if u := s.Usage(); u.Used > u.Limit || u.Pieces != 3 {
		t.Errorf("%+v", u)
	}
}

// TestNextStart: pieces survive, what a crash has left does not, and damage is
// found when it matters.
func TestNextStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, Options{Limit: 1 << 20})
	_, p1 := blob(1)
	_, p2 := blob(2)
	_, p3 := blob(3)
	l, _ := lease(t, s, alice, p1, p2, p3)
	put(t, l, 1, 2, 3)

	half := filepath.Join(s.ownerDir(alice), newPrefix+"17")
	if err := os.WriteFile(half, []byte("half a pie"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(s.file(key{alice, p2}), 10); err != nil {
		t.Fatal(err)
	}
	damage, err := os.OpenFile(s.file(key{alice, p3}), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = damage.WriteAt([]byte{0, 0, 0, 0}, 500)
	damage.Close()

	s = open(t, dir, Options{Limit: 1 << 20})
	l, lacking := lease(t, s, alice, p1, p2, p3)
	if want := []bool{false, true, false}; !slices.Equal(lacking, want) {
		t.Errorf("lacking %v, want %v", lacking, want)
	}
	if names := files(t, dir); len(names) != 2 {
		t.Errorf("on disk: %v", names)
	}
	if _, err := l.Read(p1, nil); err != nil {
		t.Error(err)
	}
	if _, err := l.Read(p3, nil); !errors.Is(err, ErrGone) {
		t.Errorf("damaged content is read: %v", err)
	}
	l.Release()
	l, lacking = lease(t, s, alice, p3)
	if !lacking[0] {
		t.Error("the damaged piece is still there")
	}
	put(t, l, 3)
	if _, err := l.Read(p3, nil); err != nil {
		t.Error(err)
	}
	// A lower limit holds at once.
	s = open(t, dir, Options{Limit: 1100})
	if u := s.Usage(); u.Used > 1100 || u.Pieces != 1 {
		t.Errorf("%+v", u)
	}
	s = open(t, dir, Options{Limit: -1})
	if names := files(t, dir); len(names) > 0 {
		t.Errorf("on disk without a store: %v", names)
	}
	if _, _, err := s.Lease(alice, []tree.Piece{p1}); !errors.Is(err, ErrNoRoom) {
		t.Error(err)
	}
}

func TestStrangersAreLeftAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	open(t, dir, Options{Limit: 1})
	if _, err := os.Stat(filepath.Join(dir, "lost+found")); err != nil {
		t.Error(err)
	}
}

// TestAtOnce: submits of the same and of other trees go on at once, with room
// for a part of them only.
func TestAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, Options{Limit: 30_000})
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for round := range 30 {
				owner := []Owner{alice, bob}[g%2]
				var pieces []tree.Piece
				for n := range 3 {
					_, p := blob((g/4 + round + n) % 10)
					pieces = append(pieces, p)
				}
				l, lacking, err := s.Lease(owner, pieces)
				if errors.Is(err, ErrNoRoom) {
					continue
				}
				for n := range 3 {
					data, p := blob((g/4 + round + n) % 10)
					if lacking[n] && l.Put(p, data) != nil {
						t.Error("put failed")
					}
				}
				for _, p := range pieces {
					if _, err := l.Read(p, nil); err != nil {
						t.Error(err)
					}
				}
				l.Release()
				l.Release()
			}
		})
	}
	all.Wait()
	if u := s.Usage(); u.Used > u.Limit || s.reserved != 0 || len(files(t, dir)) != u.Pieces {
		t.Errorf("%+v, %d reserved, %d files", u, s.reserved, len(files(t, dir)))
	}
}

// TestAccounts: whatever happens in which order, the books are right: bytes and
// reservations are those of the files and of the leases that are open.
func TestAccounts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		limit := int64(rapid.IntRange(0, 8000).Draw(rt, "limit"))
		s := open(t, dir, Options{Limit: limit + 1})
		type held struct {
			l  *Lease
			ns []int
		}
		var leases []held
		rt.Repeat(map[string]func(*rapid.T){
			"lease": func(rt *rapid.T) {
				ns := rapid.SliceOfN(rapid.IntRange(0, 9), 0, 4).Draw(rt, "pieces")
				var pieces []tree.Piece
				for _, n := range ns {
					_, p := blob(n)
					pieces = append(pieces, p)
				}
				l, _, err := s.Lease(alice, pieces)
				if err == nil {
					leases = append(leases, held{l, ns})
				} else if !errors.Is(err, ErrNoRoom) {
					rt.Fatal(err)
				}
			},
			"put": func(rt *rapid.T) {
				if len(leases) == 0 {
					return
				}
				h := leases[rapid.IntRange(0, len(leases)-1).Draw(rt, "of")]
				for _, n := range h.ns {
					put(t, h.l, n)
				}
			},
			"release": func(rt *rapid.T) {
				if len(leases) == 0 {
					return
				}
				i := rapid.IntRange(0, len(leases)-1).Draw(rt, "of")
				leases[i].l.Release()
				leases = slices.Delete(leases, i, i+1)
			},
			"": func(rt *rapid.T) {
				var onDisk, missing int64
				for k, e := range s.pieces {
					if e.there {
						onDisk += int64(k.piece.Size)
					} else {
						missing += int64(k.piece.Size)
					}
				}
				if onDisk != s.used || missing != s.reserved || s.used+s.reserved > s.limit {
					rt.Fatalf("%d used, %d are; %d reserved, %d are; limit %d", s.used, onDisk, s.reserved, missing, s.limit)
				}
				names := files(t, dir)
				if len(names) != s.Usage().Pieces || slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, newPrefix) }) {
					rt.Fatalf("%d pieces, on disk %v", s.Usage().Pieces, names)
				}
			},
		})
	})
}
