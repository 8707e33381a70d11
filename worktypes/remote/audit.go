package remote

import (
	"cmp"
	"fmt"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/worktypes"
)

// Event is something for the audit record: who wanted what of which unit, and
// whether he got it. It has no params and no payload.
type Event struct {
	Action string // submit, attach, cancel, release, status, list; or request: it could not be read
	Peer   string // who
	From   string // where he is: the nodes that his stream came by, or the address of a socket
	Stream string // its id in the logs of those nodes; empty: it is none
	Unit   string
	Type   string // the work type; empty: the unit is not known
	Owner  string // of the unit
	Job    string // the job id
	// Payload is known for a submit that was accepted.
	Payload *worktypes.PayloadRef
	Err     error // why it was refused; nil: it was not
}

// actions are the names of requests in the audit record.
func actions() map[wire.Type]string {
	return map[wire.Type]string{
		typeSubmit: "submit", typeFollow: "attach", typeCancel: "cancel", typeRelease: "release", typeQuery: "status", typeList: "list",
	}
}

// allowed returns nil where the peer may see and end the unit, or where there is
// none, which the Manager tells.
func (x *exchange) allowed(id string) error {
	spec, err := x.s.m.Spec(id)
	if err != nil || x.s.Admin != "" && x.peer == x.s.Admin || spec.Allows(x.peer) {
		return nil
	}
	return fmt.Errorf("%w: unit %s belongs to somebody else", worktypes.ErrForbidden, id)
}

// accept is Manager.Submit with the store and the payload that the submit is
// bound to.
func (x *exchange) accept(spec worktypes.Spec, m submitMsg) (worktypes.Status, error) {
	if m.Store != "" && m.Store != x.s.m.Store() {
		return worktypes.Status{}, fmt.Errorf("%w: it was set up anew since unit %s was submitted, and cannot know whether that has run", worktypes.ErrOtherStore, m.ID)
	}
	if spec.Node != "" && (x.peer != x.s.Admin || x.s.Admin == "") {
		return worktypes.Status{}, fmt.Errorf("%w: units are passed on to other nodes for who asks at this node's control socket", worktypes.ErrForbidden)
	}
	if x.permit != nil && spec.Node == "" {
		var err error
		if x.terms, err = x.permit(Offer{Spec: spec, Signed: m.Signed, Token: m.Token}); err != nil {
			x.log.Warn("a submit was refused", "type", spec.Type, "unit", spec.ID, "why", err)
			return worktypes.Status{}, fmt.Errorf("%w: %w", worktypes.ErrForbidden, err)
		}
	}
	st, err := x.s.m.Submit(spec)
	if err != nil {
		return st, err
	}
	if ref, whole, err := x.s.m.PayloadRef(m.ID); err == nil && whole && len(m.SHA256) == len(ref.SHA256) &&
		(m.Size != ref.Size || [32]byte(m.SHA256) != ref.SHA256) {
		return st, fmt.Errorf("%w: unit %s has another payload", worktypes.ErrConflict, m.ID)
	}
	return st, nil
}

func (x *exchange) about(id string) Event {
	e := Event{Unit: id}
	if spec, err := x.s.m.Spec(id); err == nil {
		e.Type, e.Owner, e.Job = spec.Type, spec.Owner, spec.Job
	}
	return e
}

func (x *exchange) audit(action, id string, err error) { x.auditAbout(action, x.about(id), err) }

// auditAbout writes the record of what is asked, of which there
// is no other: refuse leaves one that was written.
func (x *exchange) auditAbout(action string, e Event, err error) {
	x.asked = nil
	x.record(action, e, err)
}

// auditAside is for what is asked in the middle of a request, by any goroutine.
func (x *exchange) auditAside(action, id string, err error) { x.record(action, x.about(id), err) }

func (x *exchange) record(action string, e Event, err error) {
	if x.s.Audit != nil {
		e.Action, e.Peer, e.Err = action, x.peer, err
		e.Stream, e.From = TraceOf(x.conn)
		x.s.Audit(e)
	}
}

// came notes how much of the payload has come, for the record of the submit.
func (x *exchange) came(p *worktypes.Payload) {
	if x.asked != nil {
		x.asked.Payload = &worktypes.PayloadRef{Size: p.Size(), SHA256: p.Sum()}
	}
}

// settle writes the record of what is asked, unless it has one.
func (x *exchange) settle(err error) {
	if x.asked == nil {
		return
	}
	e := x.about(x.asked.Unit)
	e.Type, e.Job, e.Payload = cmp.Or(e.Type, x.asked.Type), cmp.Or(e.Job, x.asked.Job), x.asked.Payload
	x.auditAbout(x.asked.Action, e, err)
}
