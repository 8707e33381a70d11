package runner

import (
	"bufio"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/ranvier-mesh/ranvier/runner/internal/stream"
)

// keepalive is a worker's output. Where nothing was written for a time, it
// writes an event that says no more than that the worker lives
// (docs/runner.md §1.3). mu guards all of it; it is held while a message, or a
// whole zip, is written.
type keepalive struct {
	mu    sync.Mutex
	out   *bufio.Writer
	every time.Duration
	timer *time.Timer // nil for none
	ended bool
	err   error
}

func newKeepalive(w io.Writer, every time.Duration) *keepalive {
	k := &keepalive{out: bufio.NewWriterSize(w, 64<<10), every: every}
	if every > 0 {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.timer = time.AfterFunc(every, k.beat)
	}
	return k
}

func (k *keepalive) beat() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ended || k.err != nil {
		return
	}
	k.out.WriteString(`{"event": "keepalive", "counter": 0, "uuid": 0}` + "\n")
	k.note(k.out.Flush()) // which has the error of that write too
	k.timer.Reset(k.every)
}

// note keeps the first error: whoever writes next hears of it.
func (k *keepalive) note(err error) {
	if k.err == nil && err != nil {
		k.err = fmt.Errorf("the worker's stream: %w", err)
	}
}

// with lets write write a message.
func (k *keepalive) with(write func(io.Writer) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil {
		k.note(write(k.out))
	}
	if k.timer != nil && !k.ended {
		k.timer.Reset(k.every)
	}
	return k.err
}

// failed is the first error of the output, nil for none.
func (k *keepalive) failed() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

func (k *keepalive) flush() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil {
		k.note(k.out.Flush())
	}
	return k.err
}

// close writes the last message.
func (k *keepalive) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended = true
	if k.err == nil {
		k.note(stream.WriteEOF(k.out))
	}
	if k.err == nil {
		k.note(k.out.Flush())
	}
	return k.err
}

func (k *keepalive) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended = true
	if k.timer != nil {
		k.timer.Stop()
	}
}
