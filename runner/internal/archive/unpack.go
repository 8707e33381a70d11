package archive

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/flate"
	"golang.org/x/sys/unix"

	"github.com/ranvier-mesh/ranvier/runner/internal/spool"
)

// DefaultMaxBytes is how much an archive may unpack to by default.
const DefaultMaxBytes = 64 << 30

// maxDirectory bounds the zip's own directory, which has to be in memory. It
// takes more than two million files to get there.
const maxDirectory = 256 << 20

// UnpackOptions limits what an archive may do.
type UnpackOptions struct {
	MaxBytes int64 // of all files together, 0 means DefaultMaxBytes
	// Extracted, if set, hears of each entry, on the caller's goroutine. What it
	// has heard of is there when Unpack returns without an error.
	Extracted func(name string)
	// Place, if set, says where to unpack to in place of dir, and a MaxBytes for
	// that place (0: the one above), once the zip has told how many bytes it has.
	Place func(bytes int64) (dir string, maxBytes int64, err error)
	// TempDir is where UnpackStream keeps the zip; empty means spool.Dir().
	TempDir string

	// spent, if set, hears of parts of the zip that are not read again, on any goroutine.
	spent func(offset, bytes int64)
}

// UnpackStream unpacks the zip of size bytes that r holds. It keeps it in an
// unlinked temporary file meanwhile, since a zip cannot be read from its
// beginning. Errors are r's, those of the temporary file, and Unpack's.
func UnpackStream(ctx context.Context, r io.Reader, size int64, dir string, o UnpackOptions) error {
	tmp, err := spool.File(o.TempDir)
	if err != nil {
		return err
	}
	defer tmp.Close()
	n, err := copyAhead(ctx, tmp, r)
	if err != nil {
		return fmt.Errorf("receiving the archive, %d of %d bytes: %w", n, size, err)
	}
	if n != size {
		return fmt.Errorf("receiving the archive, %d of %d bytes: %w", n, size, io.ErrUnexpectedEOF)
	}
	o.spent = func(offset, bytes int64) {
		// What has been unpacked need not reach the disk, nor keep its room there. A file
		// system that cannot do that does without.
		_ = unix.Fallocate(int(tmp.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, bytes)
	}
	return Unpack(ctx, tmp, size, dir, o)
}

// Unpack makes the tree that the zip of size bytes in z describes below dir,
// which must be there. Directories that exist stay as they are; anything else
// in the way of an entry is removed first, never written through. Entries that
// lead out of dir, pass through a symlink, are named twice or are no file,
// directory or symlink fail with ErrUnsafe; more bytes than allowed with
// ErrTooLarge. Symlinks may point anywhere: only following them would be
// unsafe. setuid and setgid bits of files are dropped, since the files then
// belong to whoever unpacks. What was made before an error stays.
func Unpack(ctx context.Context, z io.ReaderAt, size int64, dir string, o UnpackOptions) error {
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	budget := &budgetReader{ReaderAt: z, left: maxDirectory}
	zr, err := zip.NewReader(budget, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // names are checked one by one
		return fmt.Errorf("reading the archive: %w", err)
	}
	budget.left = -1
	zr.RegisterDecompressor(zip.Deflate, inflater(&sync.Pool{}))
	if o.Place != nil {
		var limit int64
		if dir, limit, err = o.Place(declared(zr.File)); err != nil {
			return err
		}
		if limit > 0 {
			o.MaxBytes = min(o.MaxBytes, limit)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	u := &unpacker{UnpackOptions: o, root: root, files: newFiller(ctx, o), seen: make(map[string]bool, len(zr.File))}
	err = u.entries(ctx, zr.File)
	u.leave()
	// An entry's own error goes before those of files still on their way.
	if filled := u.files.finish(); err == nil {
		err = filled
	}
	if err != nil {
		return err
	}
	return u.finish()
}

// declared is how many bytes a zip says that its files have, as blocks of a file
// system; what cannot be is math.MaxInt64.
func declared(files []*zip.File) (sum int64) {
	for _, f := range files {
		if f.UncompressedSize64 > math.MaxInt64/4 || sum > math.MaxInt64/4 {
			return math.MaxInt64
		}
		sum += (int64(f.UncompressedSize64) + 1 + 4095) &^ 4095
	}
	return sum
}

func (u *unpacker) entries(ctx context.Context, files []*zip.File) error {
	for _, f := range files {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := u.files.failed(); err != nil {
			return err
		}
		if err := u.entry(f); err != nil {
			return fmt.Errorf("unpacking %q: %w", f.Name, err)
		}
	}
	return nil
}

// unpacker is one run of Unpack, on its goroutine. All names are made here, one
// after the other; only what is in the files is written elsewhere.
type unpacker struct {
	UnpackOptions
	root   *os.Root
	files  *filler
	seen   map[string]bool
	made   []madeDir
	parent *parent // the directory of the last entry: the next is most likely in it too
}

// madeDir is a directory whose mode and time are set when all is in it, as
// they may forbid writing and writing changes them.
type madeDir struct {
	name string
	mode fs.FileMode
	time time.Time
}

func (u *unpacker) entry(f *zip.File) error {
	name, err := cleanName(f.Name)
	if err != nil {
		return err
	}
	if name == "." {
		return nil // the target itself, which is there
	}
	if u.seen[name] {
		return fmt.Errorf("%w: the name is there twice", ErrUnsafe)
	}
	u.seen[name] = true
	if err := u.enter(path.Dir(name)); err != nil {
		return err
	}
	base := path.Base(name)
	switch mode := entryMode(f); mode.Type() {
	case 0:
		err = u.regular(f, base, mode)
	case fs.ModeDir:
		err = u.directory(f, name, base, mode)
	case fs.ModeSymlink:
		err = u.symlink(f, base)
	default:
		err = fmt.Errorf("%w: neither file, directory nor symlink (%s)", ErrUnsafe, mode)
	}
	if err == nil && u.Extracted != nil {
		u.Extracted(name)
	}
	return err
}

// cleanName returns the name without "./" and a trailing slash, both of which
// Python writes, and refuses what is not below the target.
func cleanName(name string) (string, error) {
	switch {
	case name == "" || strings.IndexByte(name, 0) >= 0:
		return "", fmt.Errorf("%w: not a file name", ErrUnsafe)
	case name[0] == '/':
		return "", fmt.Errorf("%w: an absolute name", ErrUnsafe)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", fmt.Errorf("%w: the name leads out of the directory", ErrUnsafe)
		}
	}
	return path.Clean(name), nil
}

// entryMode returns the mode of an entry; where none was recorded only the
// owner gets in.
func entryMode(f *zip.File) fs.FileMode {
	dir := strings.HasSuffix(f.Name, "/")
	mode := f.Mode()
	switch {
	case f.ExternalAttrs == 0 && dir:
		return fs.ModeDir | 0o700
	case f.ExternalAttrs == 0:
		return 0o600
	case dir && mode.IsDir():
		return mode
	}
	return mode &^ (fs.ModeSetuid | fs.ModeSetgid)
}

// enter opens the directory that the next entry goes into, and makes it where
// the archive has no entry for it. Each part is looked at: a symlink on the way,
// of this archive or an earlier one, is never followed, not even one that stays
// inside.
func (u *unpacker) enter(dir string) error {
	if u.parent != nil && u.parent.name == dir {
		return nil
	}
	u.leave()
	for i := 0; dir != "." && i <= len(dir); i++ {
		if i < len(dir) && dir[i] != '/' {
			continue
		}
		info, err := u.root.Lstat(dir[:i])
		switch {
		case errors.Is(err, fs.ErrNotExist):
			err = u.root.Mkdir(dir[:i], 0o700)
		case err == nil && info.Mode().Type() == fs.ModeSymlink:
			err = fmt.Errorf("%w: %q is a symlink", ErrUnsafe, dir[:i])
		}
		if err != nil {
			return err
		}
	}
	root, err := u.root.OpenRoot(dir)
	if err != nil {
		return err
	}
	u.parent = &parent{Root: root, name: dir}
	u.parent.users.Store(1)
	return nil
}

func (u *unpacker) leave() {
	u.parent.release()
	u.parent = nil
}

func (u *unpacker) regular(f *zip.File, base string, mode fs.FileMode) error {
	const flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL
	out, err := u.parent.OpenFile(base, flags, 0o600)
	if errors.Is(err, fs.ErrExist) {
		if err = u.parent.Remove(base); err == nil {
			out, err = u.parent.OpenFile(base, flags, 0o600)
		}
	}
	if err != nil {
		return err
	}
	return u.files.add(fillJob{f, out, u.parent, base, mode})
}

func (u *unpacker) directory(f *zip.File, name, base string, mode fs.FileMode) error {
	info, err := u.parent.Lstat(base)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		err = u.parent.Remove(base)
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err == nil {
		err = u.parent.Mkdir(base, 0o700)
	}
	if err != nil {
		return err
	}
	u.made = append(u.made, madeDir{name, mode, modTime(&f.FileHeader)})
	return nil
}

func (u *unpacker) symlink(f *zip.File, base string) error {
	var target strings.Builder
	if f.UncompressedSize64 > 1<<16 {
		return fmt.Errorf("%w: a symlink target of %d bytes", ErrUnsafe, f.UncompressedSize64)
	}
	if err := u.files.fill(&target, f, make([]byte, 4<<10)); err != nil {
		return err
	}
	err := u.parent.Symlink(target.String(), base)
	if errors.Is(err, fs.ErrExist) {
		if err = u.parent.Remove(base); err == nil {
			err = u.parent.Symlink(target.String(), base)
		}
	}
	return err
}

// finish gives the directories their modes and times, the inner ones first.
func (u *unpacker) finish() error {
	for i := len(u.made) - 1; i >= 0; i-- {
		d := u.made[i]
		if err := errors.Join(u.root.Chtimes(d.name, d.time, d.time), u.root.Chmod(d.name, d.mode)); err != nil {
			return fmt.Errorf("unpacking %q: %w", d.name, err)
		}
	}
	return nil
}

// budgetReader fails after left bytes; negative means no limit any more.
type budgetReader struct {
	io.ReaderAt
	left int64
}

func (b *budgetReader) ReadAt(p []byte, off int64) (int, error) {
	if b.left >= 0 {
		if b.left -= int64(len(p)); b.left < 0 {
			return 0, fmt.Errorf("its directory: %w of %d bytes", ErrTooLarge, maxDirectory)
		}
	}
	return b.ReaderAt.ReadAt(p, off)
}

// inflater is a zip.Decompressor that uses its buffers again for the next file.
func inflater(pool *sync.Pool) zip.Decompressor {
	return func(r io.Reader) io.ReadCloser {
		if z, ok := pool.Get().(*inflateReader); ok {
			if err := z.ReadCloser.(flate.Resetter).Reset(r, nil); err == nil {
				return z
			}
		}
		return &inflateReader{flate.NewReader(r), pool}
	}
}

type inflateReader struct {
	io.ReadCloser
	pool *sync.Pool
}

// Close puts the reader back for the next file.
func (z *inflateReader) Close() error {
	err := z.ReadCloser.Close()
	z.pool.Put(z)
	return err
}
