package content

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/ranvier-mesh/ranvier/internal/tree"
)

// Lease is the pieces of one tree, for as long as a unit needs them: they are
// not removed meanwhile. Its methods may be called by any goroutine.
type Lease struct {
	s     *Store
	owner Owner
	once  sync.Once

	pieces map[tree.Piece]struct{} // does not change
}

// Lease pins the pieces of a tree, makes room for those that are not there, and
// tells which these are: lacking has one entry for each of pieces, and of
// equal ones only the first is lacking. The error wraps ErrNoRoom.
func (s *Store) Lease(owner Owner, pieces []tree.Piece) (_ *Lease, lacking []bool, err error) {
	l := &Lease{s: s, owner: owner, pieces: make(map[tree.Piece]struct{}, len(pieces))}
	lacking = make([]bool, len(pieces))
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, p := range pieces {
		if _, twice := l.pieces[p]; twice {
			continue
		}
		l.pieces[p] = struct{}{}
		e := s.pieces[key{owner, p}]
		if e == nil {
			e = new(entry)
			s.pieces[key{owner, p}] = e
		}
		if !e.there {
			lacking[i] = true
			if e.pins == 0 {
				s.reserved += int64(p.Size)
			}
		}
		e.pins++
		if now.Sub(e.last) > touchAfter && e.there {
			_ = os.Chtimes(s.file(key{owner, p}), now, now) // only the order of removal is at stake
		}
		e.last = now
	}
	if s.evict(s.limit); s.used+s.reserved > s.limit {
		err = fmt.Errorf("%w: with %d bytes more in use than the limit of %d", ErrNoRoom, s.used+s.reserved-s.limit, s.limit)
		l.release()
		return nil, nil, err
	}
	return l, lacking, nil
}

// Put stores a piece that was lacking. One that another lease has stored
// meanwhile is there already, which is no error. Errors wrap tree.ErrMalformed
// where the bytes are not the piece, ErrNotAnnounced where it is none of the lease's,
// or are the file system's.
func (l *Lease) Put(p tree.Piece, data []byte) error {
	if _, ok := l.pieces[p]; !ok {
		return fmt.Errorf("%w: %v", ErrNotAnnounced, p.Hash)
	}
	if err := p.Check(data); err != nil {
		return err
	}
	k := key{l.owner, p}
	temp, err := l.s.write(k, data)
	if err != nil {
		return fmt.Errorf("store content: %w", err)
	}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	e := l.s.pieces[k]
	if e == nil || e.there { // released meanwhile, or stored by somebody else
		_ = os.Remove(temp)
		return nil
	}
	if err := os.Rename(temp, l.s.file(k)); err != nil {
		_ = os.Remove(temp)
		return fmt.Errorf("store content: %w", err)
	}
	e.there, e.checked = true, true
	l.s.used += int64(p.Size)
	l.s.reserved -= int64(p.Size)
	return nil
}

// write makes a file that has another name yet.
func (s *Store) write(k key, data []byte) (name string, err error) {
	s.mu.Lock()
	s.temps++
	name = filepath.Join(s.ownerDir(k.owner), newPrefix+strconv.Itoa(s.temps))
	s.mu.Unlock()
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	for range 10 { // an empty directory may be removed just then
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err := os.Mkdir(s.ownerDir(k.owner), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", err
		}
		f, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	}
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(name)
		return "", err
	}
	return name, nil
}

// Read returns a piece's bytes, with buf as room for them. What an earlier
// process has stored is hashed when it is read for the first time, as a machine
// that lost its power may have lost bytes as well. The error wraps ErrGone where
// the piece is not there or damaged (it is removed then), or ErrNotAnnounced.
func (l *Lease) Read(p tree.Piece, buf []byte) ([]byte, error) {
	if _, ok := l.pieces[p]; !ok {
		return nil, fmt.Errorf("%w: %v", ErrNotAnnounced, p.Hash)
	}
	k := key{l.owner, p}
	data, err := readFile(l.s.file(k), p.Size, buf)
	l.s.mu.Lock()
	e := l.s.pieces[k]
	known := err == nil && e != nil && e.checked
	l.s.mu.Unlock()
	if err == nil && !known {
		err = p.Check(data)
	}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	switch e := l.s.pieces[k]; {
	case err == nil:
		if e != nil {
			e.checked = true
		}
		return data, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, tree.ErrMalformed):
		if e != nil && e.there {
			l.s.drop(k)
			l.s.reserved += int64(p.Size) // e is pinned, and waits again
		}
		return nil, fmt.Errorf("%w: piece %v: %w", ErrGone, p.Hash, err)
	}
	return nil, fmt.Errorf("read content: %w", err)
}

func readFile(name string, size int, buf []byte) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if cap(buf) < size {
		buf = make([]byte, size)
	}
	n, err := io.ReadFull(f, buf[:size])
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil // too short, as its check will tell
	}
	return buf[:n], err
}

// Release lets go of the pieces. They stay for the next lease until their room
// is needed. It may be called more than once.
func (l *Lease) Release() {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.release()
}

// release is called with s.mu held.
func (l *Lease) release() {
	l.once.Do(func() {
		for p := range l.pieces {
			k := key{l.owner, p}
			e := l.s.pieces[k]
			if e.pins--; e.pins > 0 {
				continue
			}
			if !e.there {
				l.s.reserved -= int64(p.Size)
				delete(l.s.pieces, k)
			}
		}
	})
}
