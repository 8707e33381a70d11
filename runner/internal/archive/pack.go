package archive

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/tree"
)

// File is a file that travels though it is not on disk. It takes the place of
// one there with the same name.
type File struct {
	Name string // relative, slashes
	Mode fs.FileMode
	Data []byte
}

// PackOptions says what besides the tree goes into an archive.
type PackOptions struct {
	Extra []File
	// Leave, if set, tells what of the tree is left out, with all that is in
	// it.
	Leave func(name string, dir bool) bool
	// Skipped, if set, hears of each entry left out and why: what cannot
	// travel (sockets, devices), and what vanished while the tree was read.
	Skipped func(name, reason string)
}

// Pack writes the tree below dir to w as a zip: regular files, directories,
// empty ones too, and symlinks as such, with modes and times. Pipes are left
// out silently, as an ssh key's pipe is no part of a project.
//
// A tree that changes meanwhile gives a sound archive all the same: each file
// holds what was read of it. Errors are *fs.PathError for what cannot be read,
// those of w, or ctx's.
func Pack(ctx context.Context, w io.Writer, dir string, o PackOptions) error {
	p := newPacker(ctx, w, o)
	defer p.stop()
	if err := p.tree(dir, ""); err != nil {
		return err
	}
	for _, f := range o.Extra {
		if err := p.extra(dir, f); err != nil {
			return err
		}
	}
	return p.zip.Close()
}

// packer is one run of Pack, on its goroutine.
type packer struct {
	PackOptions
	ctx     context.Context
	zip     *zip.Writer
	deflate *deflater
	made    map[string]bool // directories made for extra files
	buf     []byte
}

func newPacker(ctx context.Context, w io.Writer, o PackOptions) *packer {
	p := &packer{PackOptions: o, ctx: ctx, zip: zip.NewWriter(w), deflate: newDeflater(),
		made: make(map[string]bool), buf: make([]byte, blockSize)}
	p.zip.RegisterCompressor(zip.Deflate, p.deflate.compressor)
	if p.Skipped == nil {
		p.Skipped = func(string, string) {}
	}
	return p
}

func (p *packer) stop() { p.deflate.stop() }

// tree packs what is in dir, which is called name in the archive.
func (p *packer) tree(dir, name string) error {
	entries, err := tree.ReadDir(dir, name == "")
	if err != nil {
		if name != "" && errors.Is(err, fs.ErrNotExist) {
			p.Skipped(name, "it vanished while the directory was read")
			return nil
		}
		return err
	}
	for _, e := range entries {
		if err := p.ctx.Err(); err != nil {
			return context.Cause(p.ctx)
		}
		sub := path.Join(name, e.Name())
		if slices.ContainsFunc(p.Extra, func(f File) bool { return f.Name == sub }) {
			continue
		}
		if p.Leave != nil && p.Leave(sub, e.IsDir()) {
			continue
		}
		err := p.entry(filepath.Join(dir, e.Name()), sub, e)
		if errors.Is(err, fs.ErrNotExist) {
			p.Skipped(sub, "it vanished while the directory was read")
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) entry(file, name string, e fs.DirEntry) error {
	info, err := e.Info()
	if err != nil {
		return err
	}
	switch info.Mode().Type() {
	case 0:
		return p.regular(file, name)
	case fs.ModeDir:
		if err := p.directory(name, info.Mode(), info.ModTime()); err != nil {
			return err
		}
		return p.tree(file, name)
	case fs.ModeSymlink:
		return p.symlink(file, name, info.ModTime())
	case fs.ModeNamedPipe:
		return nil
	case fs.ModeSocket:
		p.Skipped(name, "it is a socket")
	default:
		p.Skipped(name, "it is a device")
	}
	return nil
}

// regular packs a file. It may have become something else since it was listed:
// then reading it could lead out of the tree (a symlink) or never end (a pipe).
func (p *packer) regular(file, name string) error {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENXIO) {
		p.Skipped(name, "it became something else while the directory was read")
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		p.Skipped(name, "it became something else while the directory was read")
		return nil
	}
	// No further than it was long: a log that grows could go on for ever.
	return p.add(name, zip.Deflate, info.Mode(), info.ModTime(), io.LimitReader(f, info.Size()))
}

func (p *packer) directory(name string, mode fs.FileMode, t time.Time) error {
	return p.add(name+"/", zip.Store, mode, t, strings.NewReader(""))
}

func (p *packer) symlink(file, name string, t time.Time) error {
	target, err := os.Readlink(file)
	if err != nil {
		return err
	}
	return p.add(name, zip.Store, fs.ModeSymlink|0o777, t, strings.NewReader(target))
}

// add writes one entry. What goes wrong with the archive itself is told apart
// from what goes wrong with the file by its type: only the file's is a
// *fs.PathError that names a file in the tree.
func (p *packer) add(name string, method uint16, mode fs.FileMode, t time.Time, r io.Reader) error {
	h := &zip.FileHeader{Name: name, Method: method}
	h.SetMode(mode)
	h.ExternalAttrs &^= 1 // DOS read-only, which Python leaves alone
	setTimes(h, t)
	w, err := p.zip.CreateHeader(h)
	if err != nil {
		return fmt.Errorf("packing %s: %w", name, err)
	}
	if strings.HasSuffix(name, "/") {
		return nil
	}
	if _, err := io.CopyBuffer(w, ctxReader{p.ctx, r}, p.buf); err != nil {
		return fmt.Errorf("packing %s: %w", name, err)
	}
	return nil
}

// extra packs a file that is not on disk, and the directories it is in where
// they are not there either.
func (p *packer) extra(dir string, f File) error {
	for i, c := range f.Name {
		if c != '/' {
			continue
		}
		parent := f.Name[:i]
		info, err := os.Lstat(filepath.Join(dir, parent))
		switch {
		case err == nil && !info.IsDir():
			return fmt.Errorf("packing %s: %s is no directory, so that nothing can be put into it",
				f.Name, filepath.Join(dir, parent))
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		case err != nil && !p.made[parent]:
			p.made[parent] = true
			if err := p.directory(parent, fs.ModeDir|0o700, time.Now()); err != nil {
				return err
			}
		}
	}
	return p.add(f.Name, zip.Deflate, f.Mode, time.Now(), strings.NewReader(string(f.Data)))
}

// ctxReader ends reading when ctx is done, so that one huge file does not keep
// Pack going.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(b []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(b)
}
