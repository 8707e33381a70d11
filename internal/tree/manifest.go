package tree

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"
)

// magic begins a manifest.
const magic = "RVT1"

// window is how far zstd looks back in the list of entries.
const window = 256 << 10

// manifestWriter makes the list of entries.
type manifestWriter struct {
	out   bytes.Buffer
	zip   *zstd.Encoder
	n     int
	last  string
	time  int64
	ahead ancestry
	buf   []byte
}

func newManifestWriter() (*manifestWriter, error) {
	w := new(manifestWriter)
	var err error
	w.zip, err = zstd.NewWriter(&w.out, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true))
	return w, err
}

// add appends an entry. The error wraps ErrMalformed for one that a reader
// would not take, and ErrTooLarge.
func (w *manifestWriter) add(e Entry) error {
	if err := e.check(); err != nil {
		return err
	}
	if _, err := w.ahead.enter(&e); err != nil {
		return err
	}
	if w.n >= MaxEntries || w.out.Len() > MaxManifest/2 {
		return fmt.Errorf("%w: more than %d entries", ErrTooLarge, w.n)
	}
	return w.put(e)
}

func (w *manifestWriter) put(e Entry) error {
	shared := 0
	for shared < min(len(w.last), len(e.Name)) && w.last[shared] == e.Name[shared] {
		shared++
	}
	t := e.ModTime.UnixNano()
	b := append(w.buf[:0], byte(e.Kind))
	b = binary.AppendUvarint(b, uint64(shared))
	b = appendText(b, e.Name[shared:])
	b = binary.AppendUvarint(b, uint64(e.Perm))
	b = binary.AppendVarint(b, t-w.time)
	switch e.Kind {
	case File:
		b = binary.AppendUvarint(b, uint64(e.Size))
	case Symlink:
		b = appendText(b, e.Target)
	}
	w.last, w.time, w.buf = e.Name, t, b
	w.n++
	_, err := w.zip.Write(b)
	return err
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// finish returns the manifest.
func (w *manifestWriter) finish(pieces []Piece) ([]byte, error) {
	if err := w.zip.Close(); err != nil {
		return nil, err
	}
	if len(pieces) > MaxPieces {
		return nil, fmt.Errorf("%w: more than %d pieces of %d bytes", ErrTooLarge, MaxPieces, MaxPiece)
	}
	m := []byte(magic)
	m = binary.AppendUvarint(m, uint64(len(pieces)))
	m = binary.AppendUvarint(m, uint64(w.n))
	for _, p := range pieces {
		m = append(m, p.Hash[:]...)
		m = binary.BigEndian.AppendUint32(m, uint32(p.Size))
	}
	return append(m, w.out.Bytes()...), nil
}

// Manifest reads a manifest: the pieces at once, then entry by entry, so that
// its memory does not grow with the entries. It is for one goroutine. Close it.
type Manifest struct {
	Pieces  []Piece
	Entries int   // how many there are
	Bytes   int64 // of all pieces

	in    *bufio.Reader
	zip   *zstd.Decoder
	read  int
	bytes int64 // of the files so far
	last  []byte
	time  int64
	ahead ancestry
}

// Open reads the head of a manifest. Errors are r's, or wrap ErrMalformed.
func Open(r io.Reader) (*Manifest, error) {
	raw := bufio.NewReader(io.LimitReader(r, MaxManifest))
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(raw, head); err != nil {
		return nil, short(err)
	}
	if string(head) != magic {
		return nil, fmt.Errorf("%w: it begins with %q", ErrMalformed, head)
	}
	m := new(Manifest)
	pieces, err := number(raw, MaxPieces)
	if err != nil {
		return nil, fmt.Errorf("number of pieces: %w", err)
	}
	entries, err := number(raw, MaxEntries)
	if err != nil {
		return nil, fmt.Errorf("number of entries: %w", err)
	}
	m.Entries = int(entries)
	for range pieces {
		var b [len(Hash{}) + 4]byte
		if _, err := io.ReadFull(raw, b[:]); err != nil {
			return nil, short(err)
		}
		p := Piece{Size: int(binary.BigEndian.Uint32(b[len(Hash{}):]))}
		copy(p.Hash[:], b[:])
		if p.Size < 1 || p.Size > MaxPiece {
			return nil, fmt.Errorf("%w: a piece of %d bytes", ErrMalformed, p.Size)
		}
		m.Pieces = append(m.Pieces, p)
		m.Bytes += int64(p.Size)
	}
	m.zip, err = zstd.NewReader(raw, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window))
	if err != nil {
		return nil, malformed(err)
	}
	m.in = bufio.NewReader(m.zip)
	return m, nil
}

// Close frees what reading needs.
func (m *Manifest) Close() { m.zip.Close() }

// Next returns the next entry, and io.EOF after the last, when the files have
// as many bytes as the pieces. Other errors wrap ErrMalformed or are the
// reader's.
func (m *Manifest) Next() (Entry, error) {
	e, _, err := m.next()
	return e, err
}

// next also returns the directories that are complete before the entry.
func (m *Manifest) next() (e Entry, left []string, err error) {
	if m.read == m.Entries {
		return e, nil, m.end()
	}
	if e, err = m.entry(); err != nil {
		return e, nil, fmt.Errorf("entry %d: %w", m.read+1, err)
	}
	m.read++
	if err := e.check(); err != nil {
		return e, nil, err
	}
	if left, err = m.ahead.enter(&e); err != nil {
		return e, nil, err
	}
	if e.Size > m.Bytes-m.bytes {
		return e, nil, fmt.Errorf("%w: %q has more bytes than the pieces that are left", ErrMalformed, e.Name)
	}
	m.bytes += e.Size
	return e, left, nil
}

func (m *Manifest) end() error {
	if m.bytes != m.Bytes {
		return fmt.Errorf("%w: files of %d bytes and pieces of %d", ErrMalformed, m.bytes, m.Bytes)
	}
	switch _, err := m.in.ReadByte(); {
	case err == nil:
		return fmt.Errorf("%w: more than %d entries", ErrMalformed, m.Entries)
	case err != io.EOF:
		return malformed(err)
	}
	return io.EOF
}

func (m *Manifest) entry() (e Entry, err error) {
	kind, err := m.in.ReadByte()
	if err != nil {
		return e, short(err)
	}
	e.Kind = Kind(kind)
	shared, err := number(m.in, uint64(len(m.last)))
	if err != nil {
		return e, err
	}
	suffix, err := m.text(maxName)
	if err != nil {
		return e, err
	}
	m.last = append(m.last[:shared], suffix...)
	e.Name = string(m.last)
	perm, err := number(m.in, 0o777)
	if err != nil {
		return e, err
	}
	delta, err := binary.ReadVarint(m.in)
	if err != nil {
		return e, short(err)
	}
	m.time += delta
	e.Perm, e.ModTime = modeOf(perm), time.Unix(0, m.time)
	switch e.Kind {
	case File:
		size, err := number(m.in, MaxPieces*MaxPiece)
		e.Size = int64(size)
		return e, err
	case Symlink:
		e.Target, err = m.text(maxTarget)
	}
	return e, err
}

func (m *Manifest) text(limit uint64) (string, error) {
	n, err := number(m.in, limit)
	if err != nil {
		return "", err
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(m.in, b); err != nil {
		return "", short(err)
	}
	return string(b), nil
}

func number(r io.ByteReader, limit uint64) (uint64, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return 0, short(err)
	}
	if n > limit {
		return 0, fmt.Errorf("%w: %d where at most %d may be", ErrMalformed, n, limit)
	}
	return n, nil
}

// short is err for something that ended too early.
func short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", ErrMalformed, io.ErrUnexpectedEOF)
	}
	return malformed(err)
}

// malformed says whose fault it is where decoding failed. What the reader below
// says is passed on inside.
func malformed(err error) error { return fmt.Errorf("%w: %w", ErrMalformed, err) }
