package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/worktypes"
)

// Forwarder is the worktypes.Agent of a node: it stores and forwards. A unit for
// a node that is away waits here, and starts when that is back; its output is
// brought here while it comes. It is safe for use by many goroutines.
type Forwarder struct {
	// Sign and Token sign units with Spec.SignWork, as Input's; nil: not in that way.
	// They are set before the first unit.
	Sign  func(identity.WorkOrder) ([]byte, error)
	Token func(node string) (string, error)

	dial DialFunc
	log  *slog.Logger

	up     chan struct{} // closed by Start
	ctx    context.Context
	cancel context.CancelFunc
	debts  sync.WaitGroup
	idle   idle

	mu     sync.Mutex
	stores map[string]string // the incarnations of nodes' stores, by node
	ended  map[string]*Job   // whose end is being written down, by unit
	closed bool
}

// DialFunc opens a stream to the work service of a node; tlsClient is what a
// unit's Spec.TLSClient says, empty for none.
type DialFunc func(ctx context.Context, node, tlsClient string) (net.Conn, error)

// NewForwarder returns a Forwarder that dials the work service of nodes. It
// begins with Start.
func NewForwarder(dial DialFunc, log *slog.Logger) *Forwarder {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	f := &Forwarder{dial: dial, log: log, up: make(chan struct{}), stores: map[string]string{}, ended: map[string]*Job{}}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

// Start says that nodes can be dialled. It is called once.
func (f *Forwarder) Start() { close(f.up) }

// Close ends what is owed; it is taken up by the next process. The Manager is
// closed before.
func (f *Forwarder) Close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.cancel()
	f.debts.Wait()
	f.idle.close()
}

// Check implements worktypes.Agent. Whether the node has the work type only the
// node knows.
func (f *Forwarder) Check(spec worktypes.Spec) error {
	if len(spec.Node) > 255 {
		return fmt.Errorf("%w: a node id of %d bytes", worktypes.ErrBadSpec, len(spec.Node))
	}
	return nil
}

// Store implements worktypes.Agent.
func (f *Forwarder) Store(node string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stores[node]
}

func (f *Forwarder) learn(node, store string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stores[node] = store
}

func (f *Forwarder) client(node, tlsClient string) *Client {
	c := &Client{
		Node: node, Keep: true, idle: &f.idle,
		Dial: func(ctx context.Context) (net.Conn, error) { return f.dial(ctx, node, tlsClient) },
	}
	if tlsClient != "" {
		c.idle = nil // they are connections of another kind
	}
	return c
}

// wait waits for Start.
func (f *Forwarder) wait(ctx context.Context) bool {
	select {
	case <-f.up:
		return true
	case <-ctx.Done():
		return false
	}
}

// pause waits before another try, longer each time, half of it by chance. wake
// ends it early.
func pause(ctx context.Context, tries int, wake <-chan struct{}) bool {
	d := min(firstRetry<<min(tries, 10), lastRetry)
	timer := time.NewTimer(d/2 + rand.N(d/2))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-wake:
		return true
	case <-ctx.Done():
		return false
	}
}

// Owes implements worktypes.Agent.
func (f *Forwarder) Owes(o worktypes.Owed, paid func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	job := f.ended[o.ID]
	delete(f.ended, o.ID)
	f.debts.Go(func() {
		if job != nil && job.dismiss(f.ctx) == nil {
			paid()
			return
		}
		if !f.wait(f.ctx) {
			return
		}
		for tries := 0; ; tries++ {
			err := f.client(o.Node, "").Release(f.ctx, o.ID)
			if err == nil || !passing(err) { // there is no such unit, or it is not ours
				paid()
				return
			}
			if !pause(f.ctx, tries, nil) {
				return
			}
		}
	})
}

// errand is one unit on its way.
type errand struct {
	f      *Forwarder
	e      *worktypes.Errand
	c      *Client
	spec   worktypes.Spec
	log    *slog.Logger
	remote worktypes.Remote
	// maybeSent is set when the node may have the unit.
	maybeSent bool
}

// Do implements worktypes.Agent.
func (f *Forwarder) Do(ctx context.Context, e *worktypes.Errand) {
	if !f.wait(ctx) {
		return
	}
	spec := e.Spec()
	r := &errand{
		f: f, e: e, c: f.client(spec.Node, spec.TLSClient), spec: spec, remote: e.Remote(), maybeSent: !e.Fresh() && e.Remote().Store != "",
		log: f.log.With("unit", spec.ID, "job", spec.Job, "node", spec.Node),
	}
	canceled := e.Canceled()
	for tries := 0; ; tries++ {
		before := time.Now()
		err := r.try(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		if !passing(err) {
			r.log.Info("work unit is refused", "error", err)
			e.Finish(false, func(s *worktypes.Status) { s.State, s.Detail = worktypes.Failed, err.Error() })
			return
		}
		if r.isCanceled() && !r.maybeSent {
			e.Finish(false, func(s *worktypes.Status) { s.State, s.Detail = worktypes.Canceled, "Canceled" })
			return
		}
		r.log.Debug("work unit waits", "error", err)
		e.Tell(func(s *worktypes.Status) {
			if s.State == worktypes.Pending {
				s.Detail = cut("Waiting for node " + spec.Node + ": " + err.Error())
			}
		})
		if time.Since(before) > lastRetry {
			tries = 0 // it was there for a while
		}
		if !pause(ctx, tries, canceled) {
			return
		}
		if r.isCanceled() {
			canceled = nil
		}
	}
}

func (r *errand) isCanceled() bool {
	select {
	case <-r.e.Canceled():
		return true
	default:
		return false
	}
}

// try is one connection: nil when the unit has ended.
func (r *errand) try(ctx context.Context) error {
	if r.isCanceled() && !r.maybeSent {
		r.e.Finish(false, func(s *worktypes.Status) { s.State, s.Detail = worktypes.Canceled, "Canceled" })
		return nil
	}
	out, size, err := r.e.Output()
	if err != nil {
		return r.disk(err)
	}
	defer out.Close()
	job, err := r.begin(ctx, size)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { job.Close() })()
	gone := make(chan struct{})
	defer close(gone)
	go func() {
		select {
		case <-r.e.Canceled():
			_ = job.Cancel(ctx) // a connection that breaks is tried again
		case <-gone:
		}
	}()
	if err := r.bring(job, out); err != nil {
		job.Close()
		return err
	}
	return nil
}

// disk is an error of this node, which ends the unit.
func (r *errand) disk(err error) error {
	r.e.Finish(r.maybeSent, func(s *worktypes.Status) {
		s.State, s.Detail = worktypes.Failed, "the node that forwards the unit cannot: "+err.Error()
	})
	return nil
}

// begin submits the unit, or goes on with one that was. The job's results are at
// the offset then.
func (r *errand) begin(ctx context.Context, offset int64) (*Job, error) {
	if r.remote.Taken {
		return r.c.Follow(ctx, r.spec.ID, offset)
	}
	payload, ref, err := r.e.Payload()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", worktypes.ErrBadPayload, err)
	}
	defer payload.Close()
	spec := r.spec
	spec.Node = ""
	input := Input{
		Payload: func(bool) io.Reader { return payload }, Ref: &ref, Store: r.remote.Store, Accepted: r.accepted, Token: spec.Token,
	}
	if spec.SignWork {
		input.Sign = r.f.Sign
		if r.f.Token != nil && input.Token == "" {
			if input.Token, err = r.f.Token(r.spec.Node); err != nil {
				return nil, fmt.Errorf("%w: the work cannot be signed: %w", worktypes.ErrForbidden, err)
			}
		}
	}
	job, err := r.c.SubmitInput(ctx, spec, input)
	if errors.Is(err, worktypes.ErrOtherStore) && !r.maybeSent {
		// What was known of the node is out of date, and it has not had the unit.
		r.remote.Store = ""
		r.f.learn(r.spec.Node, "")
		return nil, &BrokenError{Node: r.spec.Node, ID: r.spec.ID, Err: err}
	}
	if err != nil {
		return nil, err
	}
	stream, _ := TraceOf(job.call().conn)
	r.log.Info("work unit is with its node", "stream", stream)
	r.remote.Taken = true
	if err := r.e.Remember(r.remote, false); err != nil {
		job.Close()
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, job.Results, offset); err != nil {
		job.Close()
		return nil, err
	}
	return job, nil
}

// accepted writes down whom the unit is sent to, before it can begin there.
func (r *errand) accepted(store string) error {
	r.f.learn(r.spec.Node, store)
	r.maybeSent = true
	if store == r.remote.Store {
		return nil
	}
	r.remote.Store = store
	return r.e.Remember(r.remote, true)
}

// bring copies the output here and ends the unit.
func (r *errand) bring(job *Job, out io.Writer) error {
	buf := takeBuffer()
	defer buffers.Put(buf)
	var last worktypes.Status
	for {
		n, err := job.Results.Read(*buf)
		if st := job.Status(); st != last && !st.State.Terminal() {
			last = st
			r.e.Tell(func(s *worktypes.Status) { s.State, s.Detail, s.Started = st.State, st.Detail, st.Started })
		}
		if n > 0 {
			if _, err := out.Write((*buf)[:n]); err != nil {
				job.Close()
				return r.disk(err)
			}
		}
		if err == io.EOF {
			r.finish(job)
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// finish ends the unit as the node's has, and then has that released: on the job's
// connection, which Owes finds.
func (r *errand) finish(job *Job) {
	f, id, st := r.f, r.spec.ID, job.Status()
	f.mu.Lock()
	f.ended[id] = job
	f.mu.Unlock()
	r.e.Finish(true, func(s *worktypes.Status) {
		s.State, s.Detail, s.ExitCode, s.Signal, s.Started = st.State, st.Detail, st.ExitCode, st.Signal, st.Started
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended[id] != nil { // there was nothing to finish
		delete(f.ended, id)
		job.Close()
	}
}
