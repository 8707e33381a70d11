package remote

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/ranvier-mesh/ranvier/internal/wire"
)

// upload sends the payload while it listens: the node may not want the rest.
type upload struct {
	k       *call
	payload io.Reader
	over    chan struct{} // closed when nobody wants more
	failed  chan error    // the payload's own error, before the node is told
}

// upload returns when the unit was started or has ended.
func (k *call) upload(ctx context.Context, payload io.Reader) (*Job, error) {
	u := &upload{k: k, payload: payload, over: make(chan struct{}), failed: make(chan error, 1)}
	defer close(u.over)
	go u.run()
	// The node says nothing before the payload's end unless something is wrong.
	job, err := k.job(ctx, 0)
	select {
	case perr := <-u.failed:
		if job != nil { // the node has been told, and says that the unit is Failed
			_, _ = io.Copy(io.Discard, job.Results)
			job.Close()
		}
		return nil, fmt.Errorf("unit %s was not started: cannot read its payload: %w", k.id, perr)
	default:
		return job, err
	}
}

// run is the goroutine that sends. Each frame is one Write, so that the frames of
// a Job that has begun already do not get into one of its.
func (u *upload) run() {
	buf := takeBuffer()
	defer buffers.Put(buf)
	frame := *buf
	hash := sha256.New()
	var size int64
	for u.payload != nil {
		n, err := u.payload.Read(frame[wire.HeaderLen:])
		if u.isOver() {
			return
		}
		if n > 0 {
			hash.Write(frame[wire.HeaderLen:][:n])
			size += int64(n)
			wire.AppendHeader(frame[:0], wire.TypeData, n)
			if _, err := u.k.conn.Write(frame[:wire.HeaderLen+n]); err != nil {
				return // the reading side finds out why
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			u.failed <- err
			u.send(typePayloadAbort, payloadAbortMsg{Reason: cut(err.Error())})
			return
		}
	}
	u.send(typePayloadEnd, payloadEndMsg{Size: size, SHA256: hash.Sum(nil)})
}

func (u *upload) isOver() bool {
	select {
	case <-u.over:
		return true
	default:
		return false
	}
}

// send writes a last message. When that cannot be done there will be no answer.
func (u *upload) send(t wire.Type, msg any) {
	if err := u.k.send(t, msg); err != nil {
		u.k.conn.Close()
	}
}
