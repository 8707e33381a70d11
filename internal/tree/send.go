package tree

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"runtime"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// On the way a piece has four bytes before it: its length on the way, and in
// the highest bit whether that is zstd (docs/work.md §6.2).
const (
	pieceHead  = 4
	compressed = 1 << 31
)

// Send gives the pieces that lacking tells, in their order and compressed, to
// emit. It reads the files a second time: one that is not as it was gives an error
// that wraps ErrChanged. Other errors are *fs.PathError, emit's, or the cause
// of ctx's end. emit's bytes are emit's until it returns.
func (s *Snapshot) Send(ctx context.Context, lacking func(i int) bool, emit func([]byte) error) error {
	zip, err := newPieceEncoder()
	if err != nil {
		return err
	}
	defer zip.Close()
	n := runtime.GOMAXPROCS(0)
	g, ctx := errgroup.WithContext(ctx)
	work, order, free := make(chan *parcel), make(chan *parcel, 2*n), make(chan *parcel, 2*n)
	for range 2 * n {
		free <- &parcel{raw: make([]byte, 0, MaxPiece)}
	}
	for range n {
		g.Go(func() error {
			for p := range work {
				p.pack(zip)
				close(p.done)
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(work)
		defer close(order)
		return s.cutAgain(ctx, lacking, func() (*parcel, error) {
			select {
			case p := <-free:
				p.raw, p.done = p.raw[:0], make(chan struct{})
				return p, nil
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}, func(p *parcel) { order <- p; work <- p })
	})
	for p := range order { // there is room in it for all parcels: nobody waits to put one in
		<-p.done
		err := p.err
		if err == nil {
			err = emit(p.packed)
		}
		if err != nil {
			g.Go(func() error { return err }) // ends ctx, and so the reading
			break
		}
		free <- p
	}
	return g.Wait()
}

func newPieceEncoder() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderCRC(false), zstd.WithWindowSize(MaxPiece), zstd.WithLowerEncoderMem(true))
}

// parcel is a piece on its way: read, then packed by a worker, which closes
// done, then sent.
type parcel struct {
	piece  Piece
	raw    []byte
	packed []byte
	err    error
	done   chan struct{}
}

func (p *parcel) pack(zip *zstd.Encoder) {
	if p.err = p.piece.Check(p.raw); p.err != nil {
		p.err = fmt.Errorf("%w: %w", ErrChanged, p.err)
		return
	}
	p.packed = appendPiece(p.packed[:0], p.raw, zip)
}

func appendPiece(dst, raw []byte, zip *zstd.Encoder) []byte {
	dst = append(dst, 0, 0, 0, 0)
	out := zip.EncodeAll(raw, dst)
	head := uint32(len(out)-pieceHead) | compressed
	if len(out)-pieceHead >= len(raw) {
		out, head = append(dst, raw...), uint32(len(raw))
	}
	binary.BigEndian.PutUint32(out, head)
	return out
}

// cutAgain reads the files along with the pieces, and hands out those that are
// lacking. Files without such a piece are not touched.
func (s *Snapshot) cutAgain(ctx context.Context, lacking func(int) bool, take func() (*parcel, error), give func(*parcel)) error {
	m, err := Open(bytes.NewReader(s.manifest))
	if err != nil {
		return err
	}
	defer m.Close()
	c := &recut{s: s, lacking: lacking, take: take, give: give}
	for {
		e, err := m.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err == nil && e.Kind == File && e.Size > 0 {
			err = c.file(e)
		}
		if err != nil {
			return err
		}
	}
}

// recut is where a second reading is: have bytes into piece index.
type recut struct {
	s       *Snapshot
	lacking func(int) bool
	take    func() (*parcel, error)
	give    func(*parcel)
	index   int
	have    int
	cur     *parcel // nil for a piece that nobody lacks
}

func (c *recut) file(e Entry) error {
	var f io.ReaderAt
	for off := int64(0); off < e.Size; {
		piece := c.s.pieces[c.index]
		n := min(int64(piece.Size-c.have), e.Size-off)
		if c.lacking(c.index) {
			if f == nil {
				file, _, err := openRegular(filepath.Join(c.s.dir, e.Name))
				if errors.Is(err, errNoFile) || errors.Is(err, fs.ErrNotExist) {
					return fmt.Errorf("%w: %s: %w", ErrChanged, e.Name, err)
				}
				if err != nil {
					return err
				}
				defer file.Close()
				f = file
			}
			if err := c.read(f, piece, e.Name, off, int(n)); err != nil {
				return err
			}
		}
		off += n
		if c.have += int(n); c.have == piece.Size {
			if c.cur != nil {
				c.give(c.cur)
			}
			c.cur, c.have = nil, 0
			c.index++
		}
	}
	return nil
}

func (c *recut) read(f io.ReaderAt, piece Piece, name string, off int64, n int) (err error) {
	if c.cur == nil {
		if c.cur, err = c.take(); err != nil {
			return err
		}
		c.cur.piece = piece
	}
	at := len(c.cur.raw)
	c.cur.raw = c.cur.raw[:at+n]
	if _, err := f.ReadAt(c.cur.raw[at:], off); err == io.EOF {
		return fmt.Errorf("%w: %s became shorter", ErrChanged, name)
	} else if err != nil {
		return err
	}
	return nil
}

// PieceReader takes pieces from what Send emitted. It is for one goroutine.
type PieceReader struct {
	r   io.Reader
	zip *zstd.Decoder
	in  []byte
	out []byte
}

// NewPieceReader returns a reader of the pieces in r. Close it.
func NewPieceReader(r io.Reader) (*PieceReader, error) {
	zip, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxMemory(MaxPiece), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	return &PieceReader{r: r, zip: zip, in: make([]byte, MaxPiece), out: make([]byte, 0, MaxPiece)}, nil
}

// Next returns the bytes that came for p, the next piece. It is for the caller to
// Check them. They are good until the next call. Errors are r's, or wrap
// ErrMalformed.
func (pr *PieceReader) Next(p Piece) ([]byte, error) {
	if _, err := io.ReadFull(pr.r, pr.in[:pieceHead]); err != nil {
		return nil, fmt.Errorf("reading piece %v: %w", p.Hash, err)
	}
	head := binary.BigEndian.Uint32(pr.in)
	n := int(head &^ compressed)
	if n > p.Size || p.Size > MaxPiece {
		return nil, fmt.Errorf("%w: %d bytes for piece %v of %d", ErrMalformed, n, p.Hash, p.Size)
	}
	if _, err := io.ReadFull(pr.r, pr.in[:n]); err != nil {
		return nil, fmt.Errorf("reading piece %v: %w", p.Hash, err)
	}
	data := pr.in[:n]
	if head&compressed != 0 {
		var err error
		if data, err = pr.zip.DecodeAll(data, pr.out[:0]); err != nil {
			return nil, fmt.Errorf("%w: piece %v: %w", ErrMalformed, p.Hash, err)
		}
	}
	return data, nil
}

// Close frees what reading needs.
func (pr *PieceReader) Close() { pr.zip.Close() }
