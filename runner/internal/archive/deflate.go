package archive

import (
	"bytes"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/flate"
)

// blockSize is how much of a file one goroutine compresses at a time. A block
// knows nothing of the one before it, which costs well below 1 % at this size.
const blockSize = 256 << 10

// level trades size for speed: links between sites are fast compared with what
// zlib's default level can feed.
const level = 1

// deflater compresses the blocks of a file on all processors and writes them
// one after the other. Each block but the last ends with a sync flush, so that
// together they are one deflate stream that any reader takes.
//
// The goroutine of Pack owns it; workers see only jobs. Blocks in flight are
// bounded by their number, so is the memory.
type deflater struct {
	jobs    chan *block
	workers sync.WaitGroup
	free    []*block
	pending []*block // in the order of the file
	own     *flate.Writer
	ownErr  error
}

// block is a piece of a file on its way: the owner fills in, a worker turns it
// into out and closes done, the owner writes it.
type block struct {
	in   []byte
	last bool
	out  bytes.Buffer
	err  error
	done chan struct{}
}

func newDeflater() *deflater {
	n := runtime.GOMAXPROCS(0)
	d := &deflater{jobs: make(chan *block)}
	for range 2 * n {
		d.free = append(d.free, &block{in: make([]byte, 0, blockSize)})
	}
	d.own, d.ownErr = flate.NewWriter(io.Discard, level)
	for range n {
		d.workers.Add(1)
		go d.work()
	}
	return d
}

// stop ends the workers; the blocks in flight are done then.
func (d *deflater) stop() {
	close(d.jobs)
	d.workers.Wait()
}

func (d *deflater) work() {
	defer d.workers.Done()
	w, err := flate.NewWriter(io.Discard, level)
	for b := range d.jobs {
		if b.err = err; err == nil {
			b.compress(w)
		}
		close(b.done)
	}
}

func (b *block) compress(w *flate.Writer) {
	b.out.Reset()
	w.Reset(&b.out)
	if _, b.err = w.Write(b.in); b.err != nil {
		return
	}
	if b.last {
		b.err = w.Close()
	} else {
		b.err = w.Flush()
	}
}

// compressor is the zip.Compressor: one file's stream to w. zip.Writer closes
// one before it asks for the next.
func (d *deflater) compressor(w io.Writer) (io.WriteCloser, error) {
	return &deflateWriter{d: d, w: w}, nil
}

type deflateWriter struct {
	d   *deflater
	w   io.Writer
	cur *block
}

func (z *deflateWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if z.cur != nil && len(z.cur.in) == blockSize {
			z.send(false)
		}
		if z.cur == nil {
			if err := z.take(); err != nil {
				return 0, err
			}
		}
		m := min(len(p), blockSize-len(z.cur.in))
		z.cur.in = append(z.cur.in, p[:m]...)
		p = p[m:]
	}
	return n, nil
}

// Close writes what is left.
func (z *deflateWriter) Close() error {
	if z.cur == nil { // an empty file, or one whose last write failed
		if err := z.take(); err != nil {
			return err
		}
	}
	if len(z.d.pending) == 0 {
		return z.single()
	}
	z.send(true)
	for len(z.d.pending) > 0 {
		if err := z.flushOne(); err != nil {
			return err
		}
	}
	return nil
}

// single writes a file of one block. Most files are such, and handing one over
// and waiting for it would take longer than compressing it here.
func (z *deflateWriter) single() error {
	b := z.cur
	z.cur, z.d.free = nil, append(z.d.free, b)
	if z.d.ownErr != nil {
		return z.d.ownErr
	}
	b.last = true
	if b.compress(z.d.own); b.err != nil {
		return b.err
	}
	_, err := z.w.Write(b.out.Bytes())
	return err
}

// take finds a block to fill, and makes room for it if all are in flight.
func (z *deflateWriter) take() error {
	if len(z.d.free) == 0 {
		if err := z.flushOne(); err != nil {
			return err
		}
	}
	last := len(z.d.free) - 1
	z.cur, z.d.free = z.d.free[last], z.d.free[:last]
	z.cur.in, z.cur.last = z.cur.in[:0], false
	return nil
}

func (z *deflateWriter) send(last bool) {
	z.cur.last = last
	z.cur.done = make(chan struct{})
	z.d.pending = append(z.d.pending, z.cur)
	z.d.jobs <- z.cur
	z.cur = nil
}

func (z *deflateWriter) flushOne() error {
	b := z.d.pending[0]
	z.d.pending = z.d.pending[1:]
	<-b.done
	z.d.free = append(z.d.free, b)
	if b.err != nil {
		return b.err
	}
	_, err := z.w.Write(b.out.Bytes())
	return err
}
