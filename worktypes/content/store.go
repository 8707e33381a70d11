// Package content keeps what submitters have sent in pieces, so that it need not
// be sent again (docs/work.md §6.3).
//
// A piece belongs to an owner: nobody else can refer to it, or learn that it is
// there. Pieces in use are pinned by leases; the others stay until the room is
// needed, those that were used last the longest. A piece is there whole and
// with the hash that it is named by, or not at all.
package content

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ranvier-mesh/ranvier/internal/tree"
)

// ErrNoRoom is a tree that the limit has no room for beside what is in use.
var ErrNoRoom = errors.New("no room for the content")

// ErrGone is a piece that was there and is not any more, or not as it was.
var ErrGone = errors.New("content is gone or damaged: submit the job again")

// ErrNotAnnounced is a piece that is no part of the lease's tree.
var ErrNotAnnounced = errors.New("a piece that was not announced")

// MaxLimit is the default limit's upper bound: a tenth of the disk, but at most
// so many bytes.
const MaxLimit = 2 << 30

// touchAfter is how stale the time of a piece's last use on disk may be.
const touchAfter = time.Hour

// newPrefix begins the names of pieces in the making.
const newPrefix = ".new-"

// Owner says whose a piece is.
type Owner [sha256.Size]byte

// OwnerOf makes an owner of an identity that is known for certain, or "", and a
// key that only the submitter has. At least one of them has to be there.
func OwnerOf(identity string, key []byte) Owner {
	h := sha256.New()
	fmt.Fprintf(h, "ranvier content owner\x00%d\x00%s\x00", len(identity), identity)
	h.Write(key)
	return Owner(h.Sum(nil))
}

// Options are a Store's settings; the zero value is usable.
type Options struct {
	// Limit is how many bytes the pieces may have; 0 is the default
	// (MaxLimit), less than 0 is none at all.
	Limit int64
	Log   *slog.Logger     // nil: nothing is logged
	Now   func() time.Time // nil: time.Now
}

// Store is a directory of pieces. Its methods may be called by any goroutine.
// One process uses a directory at a time; who opens it sees to that.
type Store struct {
	dir   string
	limit int64
	log   *slog.Logger
	now   func() time.Time

	mu       sync.Mutex // guards what is below; held while names in dir change, never while bytes move
	pieces   map[key]*entry
	used     int64 // bytes of pieces
	reserved int64 // bytes that leases still wait for
	temps    int   // for names
}

type key struct {
	owner Owner
	piece tree.Piece
}

// entry is a piece on disk, or one that a lease waits for.
type entry struct {
	pins    int
	there   bool
	checked bool // since this process began
	last    time.Time
}

// Open takes the directory, makes it where it is missing, and looks at what is
// in it: pieces in the making, of another length than their name says, and what
// is over the limit are removed.
func Open(dir string, o Options) (*Store, error) {
	s := &Store{dir: dir, limit: o.Limit, log: o.Log, now: o.Now, pieces: make(map[key]*entry)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of content: %w", err)
	}
	if s.limit == 0 {
		s.limit = defaultLimit(dir)
	}
	s.limit = max(s.limit, 0)
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("read content: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.evict(s.limit)
	return s, nil
}

func defaultLimit(dir string) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return MaxLimit
	}
	return min(MaxLimit, int64(st.Blocks)*st.Bsize/10)
}

// load reads the names of <owner>/<hash>-<size>.
func (s *Store) load() error {
	owners, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, o := range owners {
		var owner Owner
		if !parseHex(owner[:], o.Name()) || !o.IsDir() {
			s.log.Warn("left alone what is no content", "dir", s.dir, "name", o.Name())
			continue
		}
		files, err := os.ReadDir(filepath.Join(s.dir, o.Name()))
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := s.loadPiece(owner, f); err != nil {
				return err
			}
		}
		_ = os.Remove(filepath.Join(s.dir, o.Name())) // if it is empty
	}
	return nil
}

func (s *Store) loadPiece(owner Owner, f fs.DirEntry) error {
	info, err := f.Info()
	if err != nil {
		return err
	}
	p, ok := parseName(f.Name())
	if !ok || !info.Mode().IsRegular() || info.Size() != int64(p.Size) {
		return os.RemoveAll(filepath.Join(s.dir, hex.EncodeToString(owner[:]), f.Name()))
	}
	s.pieces[key{owner, p}] = &entry{there: true, last: info.ModTime()}
	s.used += int64(p.Size)
	return nil
}

func parseHex(dst []byte, text string) bool {
	if len(text) != hex.EncodedLen(len(dst)) || strings.ToLower(text) != text {
		return false
	}
	_, err := hex.Decode(dst, []byte(text))
	return err == nil
}

func parseName(name string) (p tree.Piece, ok bool) {
	hash, size, _ := strings.Cut(name, "-")
	n, err := strconv.Atoi(size)
	p.Size = n
	return p, err == nil && n > 0 && n <= tree.MaxPiece && strconv.Itoa(n) == size && parseHex(p.Hash[:], hash)
}

func (s *Store) ownerDir(o Owner) string { return filepath.Join(s.dir, hex.EncodeToString(o[:])) }

func (s *Store) file(k key) string {
	return filepath.Join(s.ownerDir(k.owner), k.piece.Hash.String()+"-"+strconv.Itoa(k.piece.Size))
}

// evict removes what nobody uses, the longest unused first, until used and
// reserved bytes are at most limit or nothing is left to remove. s.mu is held.
func (s *Store) evict(limit int64) {
	if s.used+s.reserved <= limit {
		return
	}
	type idle struct {
		key
		last time.Time
	}
	var all []idle
	for k, e := range s.pieces {
		if e.there && e.pins == 0 {
			all = append(all, idle{k, e.last})
		}
	}
	slices.SortFunc(all, func(a, b idle) int { return a.last.Compare(b.last) })
	for _, i := range all {
		if s.used+s.reserved <= limit {
			return
		}
		s.drop(i.key)
	}
}

// drop removes a piece that is there. s.mu is held.
func (s *Store) drop(k key) {
	if err := os.Remove(s.file(k)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Error("cannot remove content", "error", err)
	}
	e := s.pieces[k]
	e.there, e.checked = false, false
	s.used -= int64(k.piece.Size)
	if e.pins == 0 {
		delete(s.pieces, k)
		_ = os.Remove(s.ownerDir(k.owner)) // if it is empty
	}
}

// Usage is how full the store is.
type Usage struct {
	Limit  int64 // bytes
	Used   int64 // bytes on disk
	Pieces int   // how many are on disk
}

// Usage tells how full the store is.
func (s *Store) Usage() Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := Usage{Limit: s.limit, Used: s.used}
	for _, e := range s.pieces {
		if e.there {
			u.Pieces++
		}
	}
	return u
}
