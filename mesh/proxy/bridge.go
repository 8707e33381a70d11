package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// side is one end of a bridge.
type side struct {
	halves
	mesh  bool
	close func()
	abort func(why error) // ends both directions; who is there finds an error
}

func (s side) name() string {
	if s.mesh {
		return "the mesh"
	}
	return "this host"
}

// sideError tells at which side a bridge broke.
type sideError struct {
	mesh bool
	err  error
}

func (e *sideError) Error() string { return e.err.Error() }
func (e *sideError) Unwrap() error { return e.err }

var errStopped = errors.New("the node ends the service")

// bridge carries bytes both ways until both directions have ended, and closes
// both sides. A direction ends by its end being passed on; anything else cuts both
// sides, and so does the end of ctx. The error is the first one.
func bridge(ctx context.Context, a, b side) error {
	var once sync.Once
	var first error
	cut := func(err error) {
		once.Do(func() {
			first = err
			a.abort(err)
			b.abort(err)
		})
	}
	stop := context.AfterFunc(ctx, func() { cut(fmt.Errorf("%w: %w", errStopped, context.Canceled)) })
	var both sync.WaitGroup
	both.Go(func() { direction(a, b, cut) })
	direction(b, a, cut)
	both.Wait()
	stop()
	once.Do(func() {}) // first is settled
	a.close()
	b.close()
	return first
}

func direction(dst, src side, cut func(error)) {
	readErr, writeErr := carry(dst, src)
	switch {
	case writeErr != nil:
		cut(&sideError{dst.mesh, fmt.Errorf("to %s: %w", dst.name(), writeErr)})
	case readErr != nil:
		cut(&sideError{src.mesh, fmt.Errorf("from %s: %w", src.name(), readErr)})
	default:
		if err := dst.CloseWrite(); err != nil {
			cut(&sideError{dst.mesh, fmt.Errorf("to %s: %w", dst.name(), err)})
		}
	}
}

const (
	smallRead = 512      // what an idle direction keeps for reading
	largeRead = 64 << 10 // what a busy one reads at a time
)

type largeBuffer [largeRead]byte

var largeBuffers = sync.Pool{New: func() any { return new(largeBuffer) }}

// carry copies src to dst until src ends. It waits with a small buffer, so
// that an idle connection costs little, and takes a large one while there is much
// to read.
func carry(dst io.Writer, src io.Reader) (readErr, writeErr error) {
	var small [smallRead]byte
	for {
		n, err := src.Read(small[:])
		if n > 0 {
			if _, werr := dst.Write(small[:n]); werr != nil {
				return nil, werr
			}
		}
		if err == nil && n == len(small) {
			err, writeErr = carryBulk(dst, src)
		}
		switch {
		case err == io.EOF:
			return nil, nil
		case err != nil || writeErr != nil:
			return err, writeErr
		}
	}
}

// carryBulk is carry until a read returns little.
func carryBulk(dst io.Writer, src io.Reader) (readErr, writeErr error) {
	large := largeBuffers.Get().(*largeBuffer)
	defer largeBuffers.Put(large)
	for {
		n, err := src.Read(large[:])
		if n > 0 {
			if _, werr := dst.Write(large[:n]); werr != nil {
				return nil, werr
			}
		}
		if err != nil || n < smallRead {
			return err, nil
		}
	}
}
