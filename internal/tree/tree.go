// Package tree turns a directory into what need not travel twice: a manifest
// that describes it, and its content in pieces that are named by their SHA-256.
// Whoever has some of the pieces already only needs the others.
//
// The files' contents, one after the other in the order of the manifest, are
// one long run of bytes, and the pieces are that run cut up. Small files share
// a piece and a large one has many, so the number of pieces follows the number
// of bytes and not that of files. Scan cuts so that a change moves few of the
// cuts; a reader takes them as they are. The format is docs/work.md §6.1.
package tree

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"
)

const (
	// MaxPiece is the largest piece in bytes. It bounds what a small change in
	// a large file costs, and the memory of all that handle pieces.
	MaxPiece = 256 << 10
	// MaxPieces is how many pieces a tree may have: 64 GiB.
	MaxPieces = 1 << 18
	// MaxEntries is how many files, directories and symlinks a tree may have.
	MaxEntries = 1 << 20
	// MaxManifest is the longest manifest in bytes.
	MaxManifest = 64 << 20

	maxName   = 4096
	maxTarget = 4096 // of a symlink: PATH_MAX
)

// ErrMalformed is a manifest, or a piece, that is not what the format allows,
// or does not fit what it was announced as.
var ErrMalformed = errors.New("malformed tree")

// ErrChanged is a directory that changed after it was scanned.
var ErrChanged = errors.New("the directory changed while it was sent")

// ErrTooLarge is a directory with more in it than the limits above allow.
var ErrTooLarge = errors.New("too many files or bytes for a tree")

// Hash is the SHA-256 of a piece.
type Hash [sha256.Size]byte

// String is the hash in hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Piece is a part of the content.
type Piece struct {
	Hash Hash
	Size int // in bytes, 1 to MaxPiece
}

// Check tells whether data is the piece: nil, or an error that wraps
// ErrMalformed.
func (p Piece) Check(data []byte) error {
	if len(data) != p.Size {
		return fmt.Errorf("%w: piece %v has %d bytes where %d were announced", ErrMalformed, p.Hash, len(data), p.Size)
	}
	if sum := sha256.Sum256(data); sum != p.Hash {
		return fmt.Errorf("%w: piece %v has another SHA-256: %v", ErrMalformed, p.Hash, Hash(sum))
	}
	return nil
}

// Kind is what an entry is.
type Kind uint8

// The kinds of entries; the numbers are those of the format.
const (
	File    Kind = 0
	Dir     Kind = 1
	Symlink Kind = 2
)

// Entry is a file, a directory or a symlink.
type Entry struct {
	Name    string // relative, slashes
	Kind    Kind
	Perm    fs.FileMode // the nine bits; setuid and the like do not travel
	ModTime time.Time   // to the nanosecond
	Size    int64       // of a file
	Target  string      // of a symlink
}

// check holds an entry to the rules that do not need the others.
func (e *Entry) check() error {
	if !validName(e.Name) {
		return fmt.Errorf("%w: %.100q is no name below a directory", ErrMalformed, e.Name)
	}
	switch {
	case e.Kind > Symlink:
		return fmt.Errorf("%w: %q is of kind %d", ErrMalformed, e.Name, e.Kind)
	case e.Perm&^fs.ModePerm != 0:
		return fmt.Errorf("%w: %q has mode %o", ErrMalformed, e.Name, e.Perm)
	case e.Size < 0:
		return fmt.Errorf("%w: %q has %d bytes", ErrMalformed, e.Name, e.Size)
	case e.Kind == Symlink && (e.Target == "" || len(e.Target) > maxTarget || strings.IndexByte(e.Target, 0) >= 0):
		return fmt.Errorf("%w: symlink %q points to nothing that could be", ErrMalformed, e.Name)
	}
	return nil
}

// validName takes only the plain form of a relative path, so that two names
// are the same file only if they are equal.
func validName(name string) bool {
	if name == "" || len(name) > maxName || strings.IndexByte(name, 0) >= 0 {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." {
			return false
		}
	}
	return true
}

// before is the order of entries: a directory, all that is in it, then the
// next, as in a walk that sorts each directory's names.
func before(a, b string) bool {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] == b[i] {
			continue
		}
		if a[i] == '/' || b[i] == '/' {
			return a[i] == '/'
		}
		return a[i] < b[i]
	}
	return len(a) < len(b)
}

// ancestry checks that entries come in order and each in a directory that came
// before it. So no name is there twice, and none leads through a symlink.
type ancestry struct {
	last string
	dirs []string // from the outermost to that of the last entry
}

// enter takes the next entry. It returns the directories that are complete with
// it, the innermost first.
func (a *ancestry) enter(e *Entry) (left []string, err error) {
	if a.last != "" && !before(a.last, e.Name) {
		return nil, fmt.Errorf("%w: %q does not come after %q", ErrMalformed, e.Name, a.last)
	}
	a.last = e.Name
	for len(a.dirs) > 0 && !strings.HasPrefix(e.Name, a.dirs[len(a.dirs)-1]+"/") {
		left = append(left, a.dirs[len(a.dirs)-1])
		a.dirs = a.dirs[:len(a.dirs)-1]
	}
	parent := "."
	if len(a.dirs) > 0 {
		parent = a.dirs[len(a.dirs)-1]
	}
	if path.Dir(e.Name) != parent {
		return nil, fmt.Errorf("%w: %q is in no directory of the tree", ErrMalformed, e.Name)
	}
	if e.Kind == Dir {
		a.dirs = append(a.dirs, e.Name)
	}
	return left, nil
}
