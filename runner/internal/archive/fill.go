package archive

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
)

// aheadSize is how large a file is for which a goroutine more is worth it.
const aheadSize = 4 * blockSize

// filler writes the contents of files that the unpacker has made, on all
// processors. The unpacker's goroutine puts them into jobs; a worker owns a
// job's file.
type filler struct {
	ctx     context.Context
	max     int64
	left    atomic.Int64              // bytes that may still be written
	spent   func(offset, bytes int64) // nil: nobody minds
	jobs    chan fillJob
	workers sync.WaitGroup

	mu  sync.Mutex // guards err
	err error      // the first
}

type fillJob struct {
	f    *zip.File
	out  *os.File
	dir  *parent
	base string
	mode fs.FileMode
}

// parent is a directory that files are being made in. It is closed by the last
// of those who use it.
type parent struct {
	*os.Root
	name  string
	users atomic.Int32
}

func (p *parent) release() {
	if p != nil && p.users.Add(-1) == 0 {
		p.Close()
	}
}

func newFiller(ctx context.Context, o UnpackOptions) *filler {
	n := runtime.GOMAXPROCS(0)
	p := &filler{ctx: ctx, max: o.MaxBytes, spent: o.spent, jobs: make(chan fillJob, 4*n)}
	p.left.Store(o.MaxBytes)
	for range n {
		p.workers.Go(p.work)
	}
	return p
}

// add hands a file over, and returns an error of one before it.
func (p *filler) add(j fillJob) error {
	j.dir.users.Add(1)
	p.jobs <- j
	return p.failed()
}

// finish waits for all files.
func (p *filler) finish() error {
	close(p.jobs)
	p.workers.Wait()
	return p.err
}

func (p *filler) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *filler) work() {
	buf := make([]byte, blockSize)
	for j := range p.jobs {
		err := p.failed()
		if err == nil {
			if err = p.regular(j, buf); err != nil {
				err = fmt.Errorf("unpacking %q: %w", j.f.Name, err)
			}
		} else {
			j.out.Close()
		}
		j.dir.release()
		if err != nil {
			p.mu.Lock()
			if p.err == nil {
				p.err = err
			}
			p.mu.Unlock()
		}
	}
}

func (p *filler) regular(j fillJob, buf []byte) error {
	if err := p.fill(j.out, j.f, buf); err != nil {
		j.out.Close()
		return err
	}
	if err := errors.Join(j.out.Chmod(j.mode), j.out.Close()); err != nil {
		return err
	}
	p.spend(j.f)
	t := modTime(&j.f.FileHeader)
	return j.dir.Chtimes(j.base, t, t)
}

// spend tells that a file is not read again. Those that share their bytes with
// another one, which no honest zip has, are damaged then.
func (p *filler) spend(f *zip.File) {
	if p.spent == nil || f.CompressedSize64 < aheadSize {
		return
	}
	if at, err := f.DataOffset(); err == nil {
		p.spent(at, int64(f.CompressedSize64))
	}
}

// fill writes the content of f, as far as the limit goes. The announced size
// is believed only where it is too large already.
func (p *filler) fill(out io.Writer, f *zip.File, buf []byte) error {
	if left := p.left.Load(); left < 0 || f.UncompressedSize64 > uint64(left) {
		return fmt.Errorf("%w of %d bytes", ErrTooLarge, p.max)
	}
	in, err := f.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	limited := limitReader{in, p}
	if f.UncompressedSize64 >= aheadSize {
		_, err = copyAhead(p.ctx, out, limited)
	} else {
		_, err = io.CopyBuffer(struct{ io.Writer }{out}, ctxReader{p.ctx, limited}, buf)
	}
	return err
}

// limitReader takes what is read from what may be written, and gives nothing
// beyond.
type limitReader struct {
	r io.Reader
	p *filler
}

func (l limitReader) Read(b []byte) (int, error) {
	n, err := l.r.Read(b)
	if l.p.left.Add(-int64(n)) < 0 {
		return 0, fmt.Errorf("%w of %d bytes", ErrTooLarge, l.p.max)
	}
	return n, err
}
