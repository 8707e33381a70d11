package tree

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// minPiece is how long a piece of small files at least gets before a name may
// end it.
const minPiece = 32 << 10

// ScanOptions says what of a directory is in its tree.
type ScanOptions struct {
	// Leave, if set, tells what is left out, with all that is in it.
	Leave func(name string, dir bool) bool
	// Later are names that come another way: they are left out, and the
	// directories they are in can be written to by their owner.
	Later []string
	// Skipped, if set, hears of each entry that cannot travel, and why.
	Skipped func(name, reason string)
}

// Snapshot is a scanned directory.
type Snapshot struct {
	dir      string
	manifest []byte
	pieces   []Piece
	bytes    int64
}

// Scan reads the tree below dir: regular files, directories and symlinks.
// Pipes are left out silently, sockets, devices and what vanishes meanwhile
// are told to Skipped. Errors are *fs.PathError for what cannot be read, ctx's
// cause, or wrap ErrTooLarge.
func Scan(ctx context.Context, dir string, o ScanOptions) (*Snapshot, error) {
	if o.Skipped == nil {
		o.Skipped = func(string, string) {}
	}
	list, err := newManifestWriter()
	if err != nil {
		return nil, err
	}
	s := &scanner{ScanOptions: o, ctx: ctx, dir: dir, list: list, cut: newCutter()}
	err = s.walk("")
	pieces := s.cut.finish()
	if err != nil {
		return nil, err
	}
	snap := &Snapshot{dir: dir, pieces: pieces}
	for _, p := range pieces {
		snap.bytes += int64(p.Size)
	}
	snap.manifest, err = list.finish(pieces)
	return snap, err
}

// Manifest is the encoded description; it is not to be changed.
func (s *Snapshot) Manifest() []byte { return s.manifest }

// Bytes is how much content there is.
func (s *Snapshot) Bytes() int64 { return s.bytes }

// Pieces are the content's parts, not to be changed.
func (s *Snapshot) Pieces() []Piece { return s.pieces }

// scanner is one run of Scan, on its goroutine.
type scanner struct {
	ScanOptions
	ctx  context.Context
	dir  string
	list *manifestWriter
	cut  *cutter
}

// ReadDir lists a directory, sorted by name. Only the one at the top may be a
// link: any other has become one since it was seen, and would lead out of the
// tree. The error wraps fs.ErrNotExist then, as for one that is gone.
func ReadDir(dir string, top bool) ([]fs.DirEntry, error) {
	how := os.O_RDONLY | syscall.O_DIRECTORY
	if !top {
		how |= syscall.O_NOFOLLOW
	}
	f, err := os.OpenFile(dir, how, 0)
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%w: %w: it is no directory any more", err, fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, err
}

func (s *scanner) walk(name string) error {
	entries, err := ReadDir(filepath.Join(s.dir, name), name == "")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
		sub := path.Join(name, e.Name())
		if s.leaves(sub, e.IsDir()) {
			continue
		}
		err := s.entry(sub, e)
		if errors.Is(err, fs.ErrNotExist) {
			s.Skipped(sub, "it vanished while the directory was read")
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (s *scanner) leaves(name string, dir bool) bool {
	for _, l := range s.Later {
		if l == name {
			return true
		}
	}
	return s.Leave != nil && s.Leave(name, dir)
}

func (s *scanner) entry(name string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	switch info.Mode().Type() {
	case 0:
		return s.file(name)
	case fs.ModeDir:
		perm := info.Mode().Perm()
		for _, l := range s.Later {
			if strings.HasPrefix(l, name+"/") {
				perm |= 0o700
			}
		}
		if err := s.list.add(Entry{Name: name, Kind: Dir, Perm: perm, ModTime: info.ModTime()}); err != nil {
			return err
		}
		return s.walk(name)
	case fs.ModeSymlink:
		target, err := os.Readlink(filepath.Join(s.dir, name))
		if err != nil {
			return err
		}
		return s.list.add(Entry{Name: name, Kind: Symlink, Perm: 0o777, ModTime: info.ModTime(), Target: target})
	case fs.ModeNamedPipe:
		return nil
	case fs.ModeSocket:
		s.Skipped(name, "it is a socket")
	default:
		s.Skipped(name, "it is a device")
	}
	return nil
}

// errNoFile is what was a regular file when it was listed and is none.
var errNoFile = errors.New("it became something else while the directory was read")

// openRegular opens a file that a directory listed as a regular one. It may have
// become something else since: then reading it could lead out of the tree (a
// symlink) or never end (a pipe).
func openRegular(file string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENXIO) {
		return nil, nil, errNoFile
	}
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errNoFile
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

func (s *scanner) file(name string) error {
	f, info, err := openRegular(filepath.Join(s.dir, name))
	if errors.Is(err, errNoFile) {
		s.Skipped(name, err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	// No further than it was long: a log that grows could go on for ever.
	size, err := s.cut.file(s.ctx, name, io.LimitReader(f, info.Size()), info.Size())
	if err != nil {
		return err
	}
	return s.list.add(Entry{Name: name, Kind: File, Perm: info.Mode().Perm(), ModTime: info.ModTime(), Size: size})
}

func modeOf(perm uint64) fs.FileMode { return fs.FileMode(perm) }

// cutter cuts the files' bytes into pieces and has them hashed on all
// processors. Its owner fills cur; a worker has a buffer from send to free.
type cutter struct {
	cur     []byte
	free    chan []byte
	full    chan uncounted
	workers sync.WaitGroup

	mu     sync.Mutex // guards pieces
	pieces []Piece
	count  int // as many are cut
}

// uncounted is a piece that has no hash yet.
type uncounted struct {
	data  []byte
	index int
}

func newCutter() *cutter {
	n := runtime.GOMAXPROCS(0)
	c := &cutter{free: make(chan []byte, 2*n), full: make(chan uncounted, 2*n)}
	for range 2 * n {
		c.free <- make([]byte, 0, MaxPiece)
	}
	for range n {
		c.workers.Go(c.hash)
	}
	c.cur = <-c.free
	return c
}

func (c *cutter) hash() {
	for u := range c.full {
		sum := sha256.Sum256(u.data)
		c.mu.Lock()
		for len(c.pieces) <= u.index {
			c.pieces = append(c.pieces, Piece{})
		}
		c.pieces[u.index] = Piece{Hash: sum, Size: len(u.data)}
		c.mu.Unlock()
		c.free <- u.data[:0]
	}
}

// file takes a file of about size bytes, and returns how many it had.
//
// Where pieces end decides what a change costs. A file that would not fit into
// the piece begins a new one, and one of several pieces ends its last. Besides,
// names end pieces: one in eight is such a name, whatever else is in its
// directory, so that behind a new or longer file the cuts soon are the old ones.
func (c *cutter) file(ctx context.Context, name string, r io.Reader, size int64) (int64, error) {
	if int64(len(c.cur))+size > MaxPiece || len(c.cur) >= minPiece && endsPiece(name) {
		c.end()
	}
	var total int64
	for {
		n, err := r.Read(c.cur[len(c.cur):cap(c.cur)])
		c.cur = c.cur[:len(c.cur)+n]
		total += int64(n)
		if len(c.cur) == cap(c.cur) {
			c.end()
			if ctx.Err() != nil {
				return 0, context.Cause(ctx)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	if total >= MaxPiece {
		c.end()
	}
	if c.count > MaxPieces {
		return 0, fmt.Errorf("%w: more than %d pieces of %d bytes", ErrTooLarge, MaxPieces, MaxPiece)
	}
	return total, nil
}

func endsPiece(name string) bool {
	h := fnv.New32a()
	_, _ = io.WriteString(h, name)
	return h.Sum32()%8 == 0
}

func (c *cutter) end() {
	if len(c.cur) == 0 {
		return
	}
	c.full <- uncounted{c.cur, c.count}
	c.count++
	c.cur = <-c.free
}

// finish returns the pieces and ends the workers.
func (c *cutter) finish() []Piece {
	c.end()
	close(c.full)
	c.workers.Wait()
	return c.pieces
}
