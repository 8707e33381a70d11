package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"time"

	"github.com/ranvier-mesh/ranvier/worktypes"
	"github.com/ranvier-mesh/ranvier/worktypes/content"
)

// errand is one unit on its way.
type errand struct {
	f      *Forwarder
	e      *worktypes.Errand
	c      *Client
	spec   worktypes.Spec
	log    *slog.Logger
	remote worktypes.Remote
	// asked is set when the node may know of the unit, maybeSent when it may also have
	// all of its payload.
	asked, maybeSent bool
	// lost is why no more of the output comes, of a job whose end does; nil: it comes.
	lost error
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
	if r.remote.Taken {
		e.DropInput() // the process before this one may have had no time for it
	}
	r.c.Told = r.told
	canceled, expired := e.Canceled(), e.Expired()
	for tries := 0; ; tries++ {
		before := time.Now()
		late := isClosed(e.Canceled())
		err := r.try(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		if !passing(err) && r.outputOnly(err) {
			r.log.Warn("the rest of a job's output cannot be had: its end is waited for", "error", err)
			r.lost = err
			continue
		}
		if !passing(err) {
			r.refused(err)
			return
		}
		r.log.Debug("work unit waits", "error", err)
		if late {
			e.CancelSent(false)
		}
		e.Tell(func(s *worktypes.Status) {
			switch {
			case errors.Is(err, errNoRoom):
				s.Detail = cut(err.Error())
			case s.State == worktypes.Pending:
				s.Detail = cut("Waiting for node " + spec.Node + ": " + err.Error())
			}
		})
		if time.Since(before) > lastRetry {
			tries = 0 // it was there for a while
		}
		if !f.pause(ctx, spec.Node, tries, canceled, expired) {
			return
		}
		if isClosed(canceled) {
			canceled = nil // it wakes nobody twice
		}
		if isClosed(expired) {
			expired = nil
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// unwanted reports whether the unit is not to be started any more.
func (r *errand) unwanted() bool { return isClosed(r.e.Canceled()) || isClosed(r.e.Expired()) }

// try is one connection: nil when the unit has ended.
func (r *errand) try(ctx context.Context) error {
	if !r.remote.Taken && r.unwanted() {
		there, err := r.isThere(ctx)
		if err != nil {
			return err
		}
		if !there {
			r.e.Withdraw(r.asked)
			return nil
		}
		r.remote.Taken = true // it is never sent again: how it ends is the node's to tell
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
			r.cancel(ctx, job)
		case <-gone:
		}
	}()
	if err := r.bring(job, out); err != nil {
		job.Close()
		return err
	}
	return nil
}

// cancel tells the node of a cancel, in a request that has an answer. Where that
// does not come it is said on the job's connection; one that breaks is tried again.
func (r *errand) cancel(ctx context.Context, job *Job) {
	_, err := r.c.Cancel(ctx, r.spec.ID)
	r.e.CancelSent(err == nil)
	if err != nil {
		_ = job.Cancel(ctx)
	}
}

// isThere asks the node whether it has a unit that it may have been sent and that
// is not to be started any more, and cancels it there where somebody wants that.
func (r *errand) isThere(ctx context.Context) (bool, error) {
	if !r.maybeSent {
		return false, nil
	}
	canceled := isClosed(r.e.Canceled())
	ask := r.c.Status
	if canceled {
		ask = r.c.Cancel
	}
	_, err := ask(ctx, r.spec.ID)
	switch {
	case errors.Is(err, worktypes.ErrUnknownUnit):
		return false, nil
	case err != nil:
		return false, err
	case canceled:
		r.e.CancelSent(true)
	}
	return true, nil
}

// whileWanted returns a context that ends when the unit is not to be started any
// more: its payload is not sent to the end then.
func (r *errand) whileWanted(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-r.e.Canceled():
		case <-r.e.Expired():
		case <-ctx.Done():
		}
		cancel()
	}()
	return ctx, cancel
}

// outputOnly reports whether a refusal is of a job's output and not of the job,
// which goes on.
func (r *errand) outputOnly(err error) bool {
	var refused *Refusal
	if !r.remote.Taken || r.lost != nil || !errors.As(err, &refused) {
		return false
	}
	return refused.Code == CodeTruncated || refused.Code == CodeBadOffset || refused.Code == CodeInternal
}

// refused ends a unit that its node will not do, or does not know any more. What
// that may have of it is to be released there.
func (r *errand) refused(err error) {
	r.log.Info("work unit is refused", "error", err)
	unknown := errors.Is(err, worktypes.ErrUnknownUnit) || errors.Is(err, worktypes.ErrOtherStore)
	owed := (r.asked || r.maybeSent) && !unknown && !errors.Is(err, worktypes.ErrConflict)
	r.e.Finish(owed, func(s *worktypes.Status) {
		s.State, s.Detail = worktypes.Failed, err.Error()
		if unknown && r.remote.Taken {
			s.Detail = "LOST: how the job ended is not known: " + s.Detail
		}
	})
}

// errNoRoom is output that cannot be stored here now; it is at its node.
var errNoRoom = errors.New("the node that forwards the unit cannot store its output, which waits where it is")

// disk is an error of this node's disk: it ends the unit, unless another node has
// that.
func (r *errand) disk(err error) error {
	if r.maybeSent && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errNoRoom, err)
	}
	r.e.Finish(r.maybeSent, func(s *worktypes.Status) {
		s.State, s.Detail = worktypes.Failed, "the node that forwards the unit cannot: "+err.Error()
	})
	return nil
}

// begin submits the unit, or goes on with one that was. The job's results are at
// the offset then.
func (r *errand) begin(ctx context.Context, offset int64) (*Job, error) {
	if r.lost != nil {
		return r.c.watch(ctx, r.spec.ID)
	}
	if r.remote.Taken {
		return r.c.Follow(ctx, r.spec.ID, offset)
	}
	ctx, done := r.whileWanted(ctx)
	defer done()
	payload, ref, err := r.e.Payload()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", worktypes.ErrBadPayload, err)
	}
	defer payload.Close()
	spec := r.spec
	spec.Node = ""
	input := Input{
		Payload: func(Takes) io.Reader { return payload }, Ref: &ref, Store: r.remote.Store, Accepted: r.accepted, Token: spec.Token,
	}
	if err := r.addTree(&input); err != nil {
		return nil, fmt.Errorf("%w: %w", worktypes.ErrBadPayload, err)
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
	if errors.Is(err, worktypes.ErrOtherStore) && !r.maybeSent && r.remote.Store != "" {
		// What was known of the node is out of date, and it has not had the unit.
		r.remote.Store = ""
		r.f.learn(r.spec.Node, "")
		return r.begin(ctx, offset)
	}
	if err != nil {
		r.asked = r.asked || errors.As(err, new(*BrokenError))
		return nil, err
	}
	stream, _ := TraceOf(job.call().conn)
	r.log.Info("work unit is with its node", "stream", stream)
	r.remote.Taken = true
	if err := r.e.Handed(r.remote); err != nil {
		job.Close()
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, job.Results, offset); err != nil {
		job.Close()
		return nil, err
	}
	return job, nil
}

// addTree passes on the unit's tree, under a key that stands for its owner.
func (r *errand) addTree(input *Input) error {
	stored, owner, err := r.e.Tree()
	if stored == nil {
		return err
	}
	input.Tree, input.Key, input.Whole = stored, owner[:], owner == content.Owner{}
	payload := input.Payload
	input.Payload = func(takes Takes) io.Reader {
		if takes.Tree {
			return payload(takes)
		}
		return unwanted{fmt.Errorf("node %s takes no directory with work of type %s", r.spec.Node, r.spec.Type)}
	}
	return nil
}

// unwanted is a payload that is of no use without its tree.
type unwanted struct{ error }

func (u unwanted) Read([]byte) (int, error)       { return 0, u.error }
func (u unwanted) Seek(int64, int) (int64, error) { return 0, u.error }

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

// told tells here what the unit's node tells of it, also of a job that says nothing.
func (r *errand) told(st worktypes.Status) {
	if !st.State.Terminal() {
		r.e.Tell(func(s *worktypes.Status) { s.State, s.Detail, s.Started = st.State, st.Detail, st.Started })
	}
}

// bring copies the output here and ends the unit.
func (r *errand) bring(job *Job, out io.Writer) error {
	buf := takeBuffer()
	defer buffers.Put(buf)
	for {
		n, err := job.Results.Read(*buf)
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
		if r.lost != nil {
			s.Detail = cut(st.Detail + "; the rest of its output is missing: " + r.lost.Error())
		}
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended[id] != nil { // there was nothing to finish
		delete(f.ended, id)
		job.Close()
	}
}
