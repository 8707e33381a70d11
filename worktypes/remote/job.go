package remote

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/worktypes"
)

// releaseTime is how long a node has to answer a release that nobody waits for
// otherwise.
const releaseTime = 10 * time.Second

// Job is a unit at another node as its follower sees it. One goroutine reads
// Results; the other methods may be called by any.
type Job struct {
	// ID is the unit's.
	ID string
	// Results gives the job's output as it comes, byte by byte what it wrote.
	// Read returns io.EOF only when the unit has ended and all of its output
	// has come; Status is final then, and the unit is released unless
	// Client.Keep says otherwise. A connection that breaks is taken up anew for as
	// long as Client.Patience says, and then a *BrokenError,
	// a node that cannot go on a *Refusal. Nothing is read ahead: what is not
	// read here waits at the node, and does not hold the job up.
	Results io.Reader

	c      *Client
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	blind  bool  // no output is asked for
	rest   int   // of a Data frame
	err    error // what Read returns from now on

	mu       sync.Mutex // guards what is below
	k        *call      // changed by the reader only
	status   worktypes.Status
	offset   int64
	canceled bool
}

func (j *Job) call() *call {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.k
}

// job waits for the first frame of a followed unit, so that a refusal is an
// error here, and lets go of ctx.
func (k *call) job(ctx context.Context, offset int64) (*Job, error) {
	head, err := k.in.Peek(wire.HeaderLen)
	if err != nil {
		return nil, k.fail(ctx, err)
	}
	if wire.Type(head[wire.HeaderLen-1]) == typeRefusal {
		_, _, err := k.next(ctx)
		return nil, err
	}
	if !k.stop() {
		return nil, k.fail(ctx, context.Cause(ctx))
	}
	j := &Job{ID: k.id, c: k.c, k: k, offset: offset, status: worktypes.Status{ID: k.id, ExitCode: -1}}
	j.ctx, j.cancel = context.WithCancel(context.Background())
	j.Results = (*jobReader)(j)
	return j, nil
}

// Status is the latest that was read of the unit's status: the final one after
// the io.EOF of Results.
func (j *Job) Status() worktypes.Status {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.status
}

// Offset is how many bytes of the output were read, those before a Follow's
// offset included: where another Follow goes on.
func (j *Job) Offset() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.offset
}

// Cancel asks for the end of the job. It returns when the request is sent;
// Results goes on to the job's last words and ends with the state Canceled.
// After the end of Results it does nothing.
func (j *Job) Cancel(ctx context.Context) error {
	if j.Status().State.Terminal() {
		return nil
	}
	j.mu.Lock()
	j.canceled = true // said again on a connection that takes this one's place
	k := j.k
	j.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { _ = k.conn.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := k.send(typeCancel, unitMsg{}); err != nil && (j.c.Patience == 0 || ctx.Err() != nil) {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return &BrokenError{Node: j.c.Node, ID: j.ID, Offset: j.Offset(), Err: err}
	}
	return nil
}

// dismiss releases the unit at its node, after the end of Results, for a Client
// that keeps units and connections. The Job is closed then, whatever the error.
func (j *Job) dismiss(ctx context.Context) error {
	j.cancel()
	k := j.call()
	k.stop = context.AfterFunc(ctx, func() { k.conn.Close() })
	if err := k.send(typeRelease, unitMsg{}); err != nil {
		return k.fail(ctx, err)
	}
	if _, _, err := k.next(ctx); err != nil {
		return err
	}
	k.done()
	return nil
}

// Close lets go of the unit, which goes on at its node. It wakes a Read that
// waits. It is not needed after Results has ended.
func (j *Job) Close() error {
	j.cancel()
	j.call().close()
	return nil
}

// jobReader is Job.Results.
type jobReader Job

// Read implements io.Reader.
func (r *jobReader) Read(b []byte) (int, error) {
	j := (*Job)(r)
	if len(b) == 0 || j.err != nil {
		return 0, j.err
	}
	for {
		n, err := j.read(b)
		if err == nil && n > 0 {
			return n, nil
		}
		if err == nil {
			continue
		}
		if err != io.EOF {
			if err = j.reattach(err); err == nil {
				continue
			}
		}
		j.err = err
		if err != io.EOF || j.c.idle == nil {
			_ = j.Close()
		}
		return 0, err
	}
}

// read is Read on one connection.
func (j *Job) read(b []byte) (int, error) {
	for j.rest == 0 {
		if err := j.frame(); err != nil {
			return 0, err
		}
	}
	n, err := j.call().in.Read(b[:min(len(b), j.rest)])
	j.rest -= n
	j.mu.Lock()
	j.offset += int64(n)
	j.mu.Unlock()
	if n == 0 && err != nil {
		return 0, j.broken(err)
	}
	return n, nil
}

// frame reads up to the next Data frame; io.EOF is the unit's end.
func (j *Job) frame() error {
	k := j.call()
	h, err := wire.ReadHeader(k.in, wire.MaxFrame)
	if err != nil {
		return j.broken(err)
	}
	if h.Type == wire.TypeData {
		j.rest = h.Len
		return nil
	}
	body, err := readBody(k.in, h, nil)
	if err != nil {
		return j.broken(err)
	}
	switch h.Type {
	case typeRefusal:
		return j.c.refusal(body)
	case typeStatus:
		st, err := parseStatus(body)
		if err != nil {
			return j.broken(err)
		}
		if st.State.Terminal() && st.StdoutSize != j.Offset() && !j.blind {
			return j.broken(fmt.Errorf("%w: the unit has %d bytes of output, %d came", wire.ErrMalformed, st.StdoutSize, j.Offset()))
		}
		j.mu.Lock()
		j.status = st
		j.mu.Unlock()
		if j.c.Told != nil {
			j.c.Told(st)
		}
		if st.State.Terminal() {
			j.release()
			return io.EOF
		}
	}
	return nil
}

// release tells the node that nobody needs the unit any more. That it fails is
// no failure of the job: the unit stays until somebody else releases it.
func (j *Job) release() {
	if j.c.Keep {
		return
	}
	k := j.call()
	_ = k.conn.SetDeadline(time.Now().Add(releaseTime))
	if err := k.send(typeRelease, unitMsg{}); err == nil {
		_, _, _ = readSmall(k.in, nil)
	}
}

func (j *Job) broken(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF // an end that nobody has announced
	}
	return &BrokenError{Node: j.c.Node, ID: j.ID, Offset: j.Offset(), Err: err}
}
