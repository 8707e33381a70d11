package tree

import (
	"bytes"
	"context"
	"fmt"
)

// Stored is a tree whose pieces somebody has: what a node passes on. It may be
// used by one goroutine at a time.
type Stored struct {
	manifest []byte
	pieces   []Piece
	read     func(p Piece, buf []byte) ([]byte, error)
}

// NewStored returns the tree that manifest describes; read returns a piece, with
// buf as room for it. The error wraps ErrMalformed.
func NewStored(manifest []byte, read func(p Piece, buf []byte) ([]byte, error)) (*Stored, error) {
	m, err := Open(bytes.NewReader(manifest))
	if err != nil {
		return nil, err
	}
	defer m.Close()
	return &Stored{manifest, m.Pieces, read}, nil
}

// Manifest returns the encoded description.
func (s *Stored) Manifest() []byte { return s.manifest }

// Send is that of a Snapshot; its errors are read's, emit's, or the cause of ctx's end.
func (s *Stored) Send(ctx context.Context, lacking func(i int) bool, emit func([]byte) error) error {
	zip, err := newPieceEncoder()
	if err != nil {
		return err
	}
	defer zip.Close()
	buf, packed := make([]byte, MaxPiece), []byte(nil)
	for i, p := range s.pieces {
		if !lacking(i) {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		raw, err := s.read(p, buf)
		if err != nil {
			return fmt.Errorf("passing on a tree: %w", err)
		}
		packed = appendPiece(packed[:0], raw, zip)
		if err := emit(packed); err != nil {
			return err
		}
	}
	return nil
}
