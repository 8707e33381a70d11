package session

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/wire"
)

// ErrPeerClosed is returned by Write when the peer has closed its end.
var ErrPeerClosed = errors.New("the peer closed the stream")

// ErrLost is wrapped by an error of Config.Redial, and by a *BrokenError: the
// other end does not have the stream any more, so that no way to it helps.
var ErrLost = errors.New("the other end does not know the stream any more (its node was restarted, or gave the stream up)")

// ErrStalled is wrapped by the cause that Config.Redial is told where a carrier
// was given up because nothing came back over it.
var ErrStalled = fmt.Errorf("nothing was confirmed for %v", stall)

// BrokenError is returned by Read and Write when the way to the peer broke
// and the stream could not go on over another one: what was not read yet is lost, and
// nobody knows how much of what was written has arrived.
type BrokenError struct {
	Name  string        // of the stream, with its last way
	After time.Duration // how long other ways were tried; may be 0
	Cause error         // may be nil
}

// Error names the stream, its way and the cause.
func (e *BrokenError) Error() string {
	s := fmt.Sprintf("stream %s: the way broke", e.Name)
	if e.After > 0 {
		s += fmt.Sprintf(" and did not come back in %v", e.After.Round(time.Second))
	}
	if e.Cause == nil || e.Cause == io.EOF {
		return s + " (it ended without a FIN)"
	}
	return s + ": " + e.Cause.Error()
}

// Unwrap returns the cause. An end without a FIN is io.ErrUnexpectedEOF, so that
// nobody who asks errors.Is takes it for the end of what was sent.
func (e *BrokenError) Unwrap() error {
	switch {
	case !errors.Is(e.Cause, io.EOF):
		return e.Cause
	case errors.Is(e.Cause, ErrLost):
		return ErrLost
	}
	return io.ErrUnexpectedEOF
}

// ResetError is returned by Read and Write when the peer ended the stream at once.
type ResetError struct {
	Name string
	wire.Reset
}

// Error names the stream and the peer's reason.
func (e *ResetError) Error() string {
	s := fmt.Sprintf("stream %s: reset by the peer: %v", e.Name, e.Code)
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	return s
}
