package mesh

import (
	"context"
	"errors"
	"io"
	"sync"
)

// maxOutbox is how many bytes of control messages may wait for a neighbour.
// The routing core bounds what it sends unasked; only a neighbour that asks
// again and again without reading gets here, and its link ends.
const maxOutbox = 16 << 20

var errNotReading = errors.New("the neighbour does not read its control messages")

// outbox is the queue of a control stream: push never blocks, one goroutine
// writes.
type outbox struct {
	mu      sync.Mutex
	frames  []byte // whole frames, one after the other
	full    bool
	changed chan struct{} // closed when frames grew
}

func newOutbox() outbox { return outbox{changed: make(chan struct{})} }

func (o *outbox) signal() {
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *outbox) push(frame []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.full = o.full || len(o.frames)+len(frame) > maxOutbox; !o.full {
		o.frames = append(o.frames, frame...)
	}
	o.signal()
}

// take returns what is queued, or a channel to wait on.
func (o *outbox) take() (frames []byte, wait <-chan struct{}, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.full:
		return nil, nil, errNotReading
	case len(o.frames) > 0:
		frames, o.frames = o.frames, nil
		return frames, nil, nil
	}
	return nil, o.changed, nil
}

// write sends what is pushed until ctx ends or w fails.
func (o *outbox) write(ctx context.Context, w io.Writer) error {
	for {
		frames, wait, err := o.take()
		if err != nil {
			return err
		}
		if wait != nil {
			select {
			case <-wait:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if _, err := w.Write(frames); err != nil {
			return err
		}
	}
}
