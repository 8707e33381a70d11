package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/control"
	"github.com/ranvier-mesh/ranvier/routing"
	"github.com/ranvier-mesh/ranvier/worktypes"
	"github.com/ranvier-mesh/ranvier/worktypes/remote"
)

// cancelTime is how long an answer to a cancel waits for that of another node, to
// which there is a way.
const cancelTime = time.Second

// workCommand is the control socket's work: docs/control.md section 4.6.
func (n *Node) workCommand() control.Command {
	return control.Command{Name: "work", Args: []string{"subcommand"}, TakesRest: true, Run: n.doWork}
}

func (n *Node) doWork(ctx context.Context, req *control.Request, s *control.Session) error {
	sub, err := req.Need("subcommand")
	if err != nil {
		return err
	}
	sub = strings.ToLower(sub)
	w := workRequest{n: n, req: req, s: s, peer: peerOf(s), action: actionOf(sub)}
	switch sub {
	case "submit":
		elsewhere, err := w.elsewhere(ctx)
		if err != nil && !elsewhere {
			w.record(remote.Event{Err: err})
		}
		if elsewhere || err != nil {
			return err
		}
		return w.submit(ctx)
	case "list":
		return w.list(ctx)
	case "status":
		return w.one(ctx, sub, func(id string) error { return s.Reply(n.unitStatus(id)) })
	case "cancel":
		return w.one(ctx, sub, func(id string) error { return w.cancel(ctx, id) })
	case "release":
		return w.one(ctx, sub, func(id string) error { return w.release(ctx, id, w.n.work.Release) })
	case "force-release":
		return w.one(ctx, sub, func(id string) error { return w.release(ctx, id, w.n.work.ForceRelease) })
	case "results":
		return w.results(ctx)
	}
	return fmt.Errorf("work: unknown subcommand %.100q", sub)
}

// peerOf is who is at the other end of a control connection; empty is somebody on
// this host, who may do everything.
func peerOf(s *control.Session) string {
	if c, ok := overMesh(s.Conn()); ok {
		return string(c.PeerIdentity())
	}
	return ""
}

// workRequest is one work command.
type workRequest struct {
	n      *Node
	req    *control.Request
	s      *control.Session
	peer   string
	action string // in the audit record
}

// actionOf is what the audit record calls a subcommand.
func actionOf(sub string) string {
	switch sub {
	case "results":
		return "attach"
	case "force-release":
		return "release"
	}
	return sub
}

// audit tells the audit record.
func (w workRequest) audit(id string, err error) {
	e := remote.Event{Unit: id, Err: err}
	if spec, _, _, serr := w.n.work.About(id); serr == nil {
		e.Type, e.Owner, e.Job = spec.Type, spec.Owner, spec.Job
	}
	w.record(e)
}

// record completes an event by who asks for what, and from where.
func (w workRequest) record(e remote.Event) {
	e.Action, e.Peer, e.From = w.action, w.peer, fromOf(w.s.Conn())
	e.Stream, _ = remote.TraceOf(w.s.Conn())
	w.n.audited(e)
}

// one binds the unit id and lets f answer, or Receptor where the unit may be its.
func (w workRequest) one(ctx context.Context, sub string, f func(id string) error) error {
	w.req.Name("unitid")
	id, err := w.req.Need("unitid")
	if err != nil {
		return err
	}
	spec, err := w.n.work.Spec(id)
	if err != nil && w.mayBeLegacy(id) {
		return w.legacyUnit(ctx, sub, id)
	}
	if err != nil {
		err = unknownUnit(id, err)
		w.audit(id, err)
		return err
	}
	if w.peer != "" && !spec.Allows(w.peer) {
		err := fmt.Errorf("%w: unit %s belongs to somebody else", worktypes.ErrForbidden, id)
		w.audit(id, err)
		return err
	}
	return f(id)
}

// unknownUnit has the words that Receptor's clients look for.
func unknownUnit(id string, err error) error {
	if errors.Is(err, worktypes.ErrUnknownUnit) || errors.Is(err, worktypes.ErrBadSpec) {
		return fmt.Errorf("unknown work unit %.64s", id)
	}
	return err
}

// submitKeys are the parameters of a submit that are none of the work type's.
var submitKeys = [...]string{"command", "subcommand", "node", "worktype", "tlsclient", "ttl", "signwork", "signature", "grants", "stdinsize"}

// spec reads a submit.
func (w workRequest) spec() (worktypes.Spec, error) {
	w.req.Name("node", "worktype")
	spec := worktypes.Spec{ID: worktypes.NewID(), Owner: w.peer, Once: true}
	if spec.Owner == "" {
		spec.Owner = string(w.n.cfg.Node.ID)
	}
	node, err := w.req.Need("node")
	if err != nil {
		return spec, err
	}
	if spec.Type, err = w.req.Need("worktype"); err != nil {
		return spec, err
	}
	local := strings.EqualFold(node, "localhost") || node == string(w.n.cfg.Node.ID)
	if !local {
		if err := routing.NodeID(node).Validate(); err != nil {
			return spec, fmt.Errorf("work submit: %w", err)
		}
		spec.Node = node
	}
	if spec.Params, err = w.req.Others(submitKeys[:]...); err != nil {
		return spec, err
	}
	if w.req.Rest != "" {
		spec.Params["params"] = w.req.Rest
	}
	if err := w.options(&spec, local); err != nil {
		return spec, err
	}
	for _, key := range slices.Sorted(maps.Keys(spec.Params)) {
		if !local && spec.TLSClient == "" && strings.HasPrefix(key, "secret_") {
			return spec, fmt.Errorf("work submit: %s: secrets are sent to another node with a tlsclient only, or in the payload", key)
		}
	}
	return spec, nil
}

// options reads ttl, signature and tlsclient.
func (w workRequest) options(spec *worktypes.Spec, local bool) error {
	ttl, err := w.req.String("ttl")
	if err != nil {
		return err
	}
	if ttl != "" {
		if local {
			return errors.New("work submit: ttl only applies to remote nodes")
		}
		d, err := time.ParseDuration(ttl)
		if err != nil || d <= 0 {
			return fmt.Errorf("work submit: ttl %.40q is no duration like 30s or 1h", ttl)
		}
		spec.Expires = time.Now().Add(d).UTC()
	}
	if _, _, err := w.stdinSize(); err != nil {
		return fmt.Errorf("work submit: %w", err)
	}
	if spec.Grants, err = w.req.Strings("grants"); err != nil {
		return err
	}
	if !local {
		if spec.TLSClient, err = w.req.String("tlsclient"); err != nil {
			return err
		}
		if _, err := w.n.tlsClient(spec.TLSClient, spec.Node); err != nil {
			return fmt.Errorf("work submit: %w", err)
		}
	}
	return w.signatures(spec, local)
}

// signatures reads signwork and signature.
func (w workRequest) signatures(spec *worktypes.Spec, local bool) (err error) {
	if spec.Token, err = w.req.String("signature"); err != nil {
		return err
	}
	sign, err := w.req.Flag("signwork")
	if err != nil || !sign || local {
		return err
	}
	if w.n.signing.signer == nil && w.n.self == nil {
		return fmt.Errorf("work submit: node %s has nothing to sign work with: it has neither an identity nor a work-signing item", w.n.cfg.Node.ID)
	}
	spec.SignWork = true
	return nil
}

// submit makes a unit, takes its input until the client ends it, and starts it.
func (w workRequest) submit(ctx context.Context) error {
	spec, err := w.spec()
	if err != nil {
		w.record(remote.Event{Unit: spec.ID, Type: spec.Type, Err: err})
		return err
	}
	m := w.n.work
	terms, err := w.maySubmit(spec)
	if err == nil {
		_, err = m.Submit(spec)
	}
	if err != nil {
		w.record(remote.Event{Unit: spec.ID, Type: spec.Type, Job: spec.ID, Err: err})
		return err
	}
	p, err := m.Payload(spec.ID)
	if err == nil {
		p.Limit(terms.Payload)
		defer p.Close()
		err = w.s.Say("Work unit created with ID " + spec.ID + ". Send stdin data and EOF.")
	}
	if err != nil {
		w.record(remote.Event{Unit: spec.ID, Type: spec.Type, Owner: spec.Owner, Job: spec.ID, Err: err})
		return err
	}
	err = w.takeIn(p)
	if err == nil {
		err = m.Start(spec.ID)
	}
	w.record(remote.Event{
		Unit: spec.ID, Type: spec.Type, Owner: spec.Owner, Job: spec.ID,
		Payload: &worktypes.PayloadRef{Size: p.Size(), SHA256: p.Sum()}, Err: err,
	})
	if errors.Is(err, errGone) {
		return control.ErrClose // the payload's Close says why it is not started
	}
	if err != nil {
		return err
	}
	result := "Job Started"
	if spec.Node != "" {
		result = "Job Submitted"
	}
	if err := w.s.Reply(map[string]string{"result": result, "unitid": spec.ID}); err != nil {
		return err
	}
	return control.ErrClose // the client has no more to say
}

// errGone is the end of a client in the middle of its job's input.
var errGone = errors.New("the client went away within the job's input")

// takeIn takes the job's input, to the end that the client gives it.
func (w workRequest) takeIn(p *worktypes.Payload) error {
	size, told, err := w.stdinSize()
	if err != nil {
		return fmt.Errorf("work submit: %w", err)
	}
	in := struct{ io.Reader }{w.s}
	if told {
		in.Reader = io.LimitReader(w.s, size)
	}
	buf := copyBuffers.Get().(*[copySize]byte)
	defer copyBuffers.Put(buf)
	if _, err := io.CopyBuffer(p, in, buf[:]); err != nil {
		return fmt.Errorf("work submit: %w", err)
	}
	if w.s.Gone() || told && p.Size() < size {
		return errGone
	}
	return p.Commit(p.Size(), p.Sum())
}

// stdinSize is how long the client says that the input is, if it does: over TCP nothing
// else tells its end from that of the client.
func (w workRequest) stdinSize() (size int64, told bool, err error) {
	if told = w.req.Has("stdinsize"); told {
		size, err = w.req.Int("stdinsize")
	}
	if err == nil && size < 0 {
		err = fmt.Errorf("stdinsize is %d, less than none", size)
	}
	return size, told, err
}

// unitStatus is a unit as Receptor's clients know it.
type unitStatus struct {
	State      int
	StateName  string
	Detail     string
	StdoutSize int64
	WorkType   string
	ExtraData  any
}

// extraData is what Receptor tells of a unit that another node does.
type extraData struct {
	RemoteNode     string
	RemoteWorkType string
	RemoteParams   map[string]string
	RemoteUnitID   string
	RemoteStarted  bool
	LocalCancelled bool
	LocalReleased  bool
	SignWork       bool
	TLSClient      string
	Expiration     time.Time
}

func (n *Node) unitStatus(id string) unitStatus {
	st, err := n.work.Status(id)
	if err != nil { // released just now
		return unitStatus{State: int(worktypes.Failed), StateName: worktypes.Failed.String(), Detail: err.Error()}
	}
	u := unitStatus{int(st.State), st.State.String(), st.Detail, st.StdoutSize, st.WorkType, nil}
	spec, r, canceled, err := n.work.About(id)
	if err != nil || spec.Node == "" {
		return u
	}
	params := map[string]string{} // clients look into it: never null
	for key, value := range spec.Params {
		if !strings.HasPrefix(key, "secret_") {
			params[key] = value
		}
	}
	u.WorkType = "remote"
	extra := extraData{
		RemoteNode: spec.Node, RemoteWorkType: spec.Type, RemoteParams: params, RemoteStarted: r.Taken, SignWork: spec.SignWork,
		LocalCancelled: canceled || st.State == worktypes.Canceled, TLSClient: spec.TLSClient, Expiration: spec.Expires,
	}
	if r.Store != "" {
		extra.RemoteUnitID = id
	}
	u.ExtraData = extra
	return u
}

func (w workRequest) list(ctx context.Context) error {
	w.req.Name("unitid")
	if id, err := w.req.String("unitid"); err != nil {
		return err
	} else if id != "" {
		return w.one(ctx, "list", func(id string) error { return w.s.Reply(map[string]unitStatus{id: w.n.unitStatus(id)}) })
	}
	all := w.legacyUnits(ctx)
	for _, st := range w.n.work.List() {
		if spec, err := w.n.work.Spec(st.ID); err == nil && (w.peer == "" || spec.Allows(w.peer)) {
			all[st.ID] = w.n.unitStatus(st.ID)
		}
	}
	return w.s.Reply(all)
}

func (w workRequest) cancel(ctx context.Context, id string) error {
	err := w.n.work.Cancel(id)
	w.audit(id, err)
	if err != nil {
		return unknownUnit(id, err)
	}
	answer := "cancelled"
	ctx, done := context.WithTimeout(ctx, cancelTime)
	defer done()
	if !w.n.work.CancelTaken(ctx, id) {
		answer = "cancel pending"
	}
	return w.s.Reply(map[string]string{answer: id})
}

func (w workRequest) release(ctx context.Context, id string, release func(context.Context, string) error) error {
	spec, _, _, _ := w.n.work.About(id)
	err := release(ctx, id)
	w.record(remote.Event{Unit: id, Type: spec.Type, Owner: spec.Owner, Job: spec.Job, Err: err})
	if err != nil {
		return unknownUnit(id, err)
	}
	return w.s.Reply(map[string]string{"released": id})
}

// copySize is how much is taken from a client or sent to one at once.
const copySize = 32 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copySize]byte) }}

// send sends results to their end. While there are none no buffer is held: there may be
// many watchers of a quiet job.
func (w workRequest) send(r *worktypes.Results) error {
	some := func() error {
		buf := copyBuffers.Get().(*[copySize]byte)
		defer copyBuffers.Put(buf)
		n, err := r.Read(buf[:])
		if n > 0 {
			_, err = w.s.Write(buf[:n])
		}
		return err
	}
	for {
		err := r.Wait()
		if err == nil {
			err = some()
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// results sends the output from a position on, while it comes, and then ends the
// connection.
func (w workRequest) results(ctx context.Context) error {
	w.req.Name("unitid", "startpos")
	return w.one(ctx, "results", func(id string) error {
		from, err := w.req.Int("startpos")
		if err != nil {
			w.audit(id, err)
			return err
		}
		r, err := w.n.work.Results(ctx, id, from)
		w.audit(id, err)
		if err != nil {
			return err
		}
		defer r.Close()
		if err := w.s.Say("Streaming results for work unit " + id); err != nil {
			return err
		}
		if err := w.send(r); err != nil {
			w.n.log.Debug("work results ended early", "unit", id, "err", err)
		}
		return control.ErrClose
	})
}
