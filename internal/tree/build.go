package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// Build makes the tree that manifest describes in dir, which is there and
// empty. fetch returns a piece's bytes, with buf as room for them; they have
// been checked. Nothing outside dir is written whatever the manifest says.
//
// Errors name the entry; they wrap ErrMalformed for a manifest that does not
// hold together, or are fetch's, the file system's or the cause of ctx's end.
// What was made before stays.
func Build(ctx context.Context, manifest io.Reader, dir string, fetch func(p Piece, buf []byte) ([]byte, error)) error {
	m, err := Open(manifest)
	if err != nil {
		return err
	}
	defer m.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	b := &builder{ctx: ctx, m: m, fetch: fetch, buf: make([]byte, MaxPiece)}
	b.dirs = []openDir{{root: root}}
	defer func() {
		for _, d := range b.dirs[1:] {
			d.root.Close()
		}
	}()
	for {
		e, left, err := m.next()
		if err != nil && err != io.EOF {
			return err
		}
		if err == io.EOF {
			return b.leave(len(b.dirs) - 1)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := b.leave(len(left)); err != nil {
			return err
		}
		if err := b.entry(e); err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
	}
}

// builder is one run of Build, on its goroutine.
type builder struct {
	ctx   context.Context
	m     *Manifest
	fetch func(Piece, []byte) ([]byte, error)
	dirs  []openDir // the root, and the directories that the next entry may be in
	index int       // the next piece
	rest  []byte    // of the last one
	buf   []byte
}

// openDir is a directory that still gets entries. Its mode and time are set
// when all is in it, as they may forbid writing and writing changes them.
type openDir struct {
	root *os.Root
	Entry
}

// leave completes the innermost n directories.
func (b *builder) leave(n int) error {
	for range n {
		d := b.dirs[len(b.dirs)-1]
		b.dirs = b.dirs[:len(b.dirs)-1]
		d.root.Close()
		parent, base := b.dirs[len(b.dirs)-1].root, path.Base(d.Name)
		if err := errors.Join(parent.Chtimes(base, d.ModTime, d.ModTime), parent.Chmod(base, d.Perm)); err != nil {
			return fmt.Errorf("%s: %w", d.Name, err)
		}
	}
	return nil
}

func (b *builder) entry(e Entry) error {
	parent, base := b.dirs[len(b.dirs)-1].root, e.Name[strings.LastIndexByte(e.Name, '/')+1:]
	switch e.Kind {
	case File:
		return b.file(parent, base, e)
	case Symlink:
		return parent.Symlink(e.Target, base)
	}
	if err := parent.Mkdir(base, 0o700); err != nil {
		return err
	}
	root, err := parent.OpenRoot(base)
	if err != nil {
		return err
	}
	b.dirs = append(b.dirs, openDir{root, e})
	return nil
}

func (b *builder) file(parent *os.Root, base string, e Entry) error {
	f, err := parent.OpenFile(base, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = b.fill(f, e.Size)
	if err == nil {
		err = f.Chmod(e.Perm)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return parent.Chtimes(base, e.ModTime, e.ModTime)
}

func (b *builder) fill(f *os.File, size int64) error {
	for size > 0 {
		if len(b.rest) == 0 {
			if b.ctx.Err() != nil {
				return context.Cause(b.ctx)
			}
			data, err := b.fetch(b.m.Pieces[b.index], b.buf)
			if err != nil {
				return err
			}
			b.rest = data
			b.index++
		}
		n := int(min(size, int64(len(b.rest))))
		if _, err := f.Write(b.rest[:n]); err != nil {
			return err
		}
		b.rest = b.rest[n:]
		size -= int64(n)
	}
	return nil
}
