package archive

import (
	"context"
	"errors"
	"io"
	"sync"
)

// copyAhead copies r to w with buffers in between: what is read is written by
// another goroutine, so that decoding and the disk do not wait for each other.
// It returns how many bytes were written. The error is r's as it is, w's, or the
// cause of ctx's end.
func copyAhead(ctx context.Context, w io.Writer, r io.Reader) (int64, error) {
	const buffers = 3
	c := &aheadCopy{free: make(chan []byte, buffers), full: make(chan []byte, buffers), dead: make(chan struct{})}
	for range buffers {
		c.free <- make([]byte, blockSize)
	}
	var writer sync.WaitGroup
	writer.Go(func() { c.write(w) })
	err := c.read(ctx, r)
	close(c.full)
	writer.Wait()
	return c.written, errors.Join(c.failed, err)
}

// aheadCopy is a copy on its way: the reader has a buffer from free to full, the
// writer the other way.
type aheadCopy struct {
	free, full chan []byte
	dead       chan struct{} // closed by the writer when it has failed

	written int64 // these two are the writer's
	failed  error
}

func (c *aheadCopy) write(w io.Writer) {
	for b := range c.full {
		if c.failed == nil {
			var n int
			n, c.failed = w.Write(b)
			c.written += int64(n)
			if c.failed != nil {
				close(c.dead)
			}
		}
		c.free <- b
	}
}

func (c *aheadCopy) read(ctx context.Context, r io.Reader) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var b []byte
		select {
		case b = <-c.free:
		case <-c.dead:
			return nil // the writer's error counts
		}
		b = b[:cap(b)]
		n := 0
		var err error
		for n < len(b) && err == nil {
			var m int
			m, err = r.Read(b[n:])
			n += m
		}
		c.full <- b[:n]
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
