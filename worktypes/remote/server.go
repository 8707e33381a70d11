package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/worktypes"
)

const (
	// requestTime is how long a client has to say what it wants.
	requestTime = 10 * time.Second
	// idleTime is how long a connection may wait for its next request.
	idleTime = 30 * time.Second
	// lingerTime is how long a refused client has to see the refusal.
	lingerTime = 10 * time.Second
	// maxConns is how many connections are served at once; more are told so.
	maxConns = 4096
)

// Identified is a connection that knows who is at its other end.
type Identified interface {
	// PeerID is the authenticated identity of the peer, "" for none.
	PeerID() string
}

// Server answers the work service's requests for one Manager. It is safe for
// use by many goroutines.
type Server struct {
	// Lasting returns the part of a peer's id that is known for certain and
	// the same in its next submit; what the peer has sent is kept for that. ""
	// means that nothing is, and only the submitter's own key counts. Nil: all
	// of the id. It is set before the first Serve.
	Lasting func(peer string) string
	// Admin is the identity that may see and end every unit: that of the node
	// itself, which speaks for its control socket. It is set before the first
	// Serve.
	Admin string
	// Park is how long a payload is kept whose submitter's connection broke, for
	// it to go on; 0: not at all. It is set before the first Serve.
	Park time.Duration
	// Audit, where it is not nil, hears of everything that changes a unit or
	// gives out its results. It is set before the first Serve.
	Audit func(Event)

	m          *worktypes.Manager
	log        *slog.Logger
	slots      chan struct{}
	receptions receptions
}

// NewServer returns a server of the units of m. A nil log discards.
func NewServer(m *worktypes.Manager, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Server{m: m, log: log, slots: make(chan struct{}, maxConns)}
}

// Serve answers the requests of a connection, one after the other, and closes it. It
// returns when none comes for half a minute, after a refusal, when the client is gone or ctx is over. peer owns what is
// submitted; when it is empty, what the connection says of itself as Identified
// is taken.
//
// A client that goes away does not end its unit, except before its payload was
// whole: then the unit is Failed and never started.
func (s *Server) Serve(ctx context.Context, conn net.Conn, peer string) {
	s.ServeOnly(ctx, conn, peer, nil)
}

// Terms are what a submit is accepted on.
type Terms struct {
	Payload int64 // the largest payload in bytes, a tree included; 0: any
	// Verify judges the signature that came with the payload's end, before the
	// unit starts; it is empty where none came. Nil: none is needed.
	Verify func(o identity.WorkOrder, signature []byte) error
}

// Offer is a submit of which nothing was taken yet.
type Offer struct {
	Spec   worktypes.Spec
	Signed bool   // the payload's end will have a signature
	Token  string // Receptor's signature; empty: none
}

// ServeOnly is Serve for a peer that may not submit everything: permit's error
// for an offer is told to it, as one that wraps worktypes.ErrForbidden, and to the
// log. Nil permits all.
func (s *Server) ServeOnly(ctx context.Context, conn net.Conn, peer string, permit func(Offer) (Terms, error)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	if id, ok := conn.(Identified); ok && peer == "" {
		peer = id.PeerID()
	}
	x := &exchange{s: s, ctx: ctx, gone: cancel, conn: conn, peer: peer, permit: permit, log: s.log.With("peer", peer)}
	if stream, _ := TraceOf(conn); stream != "" {
		x.log = x.log.With("stream", stream)
	}
	err := x.serve(requestTime)
	for err == nil && x.again {
		x.again = false
		err = x.serve(idleTime)
	}
	if err != nil && !errors.Is(err, context.Canceled) && err != io.EOF {
		x.log.Debug("work request ended early", "error", err)
	}
}

// exchange is one connection: a request and its answer at a time.
type exchange struct {
	s      *Server
	ctx    context.Context
	gone   context.CancelFunc // the client has gone
	conn   net.Conn
	peer   string
	permit func(Offer) (Terms, error) // nil: all
	terms  Terms                      // of the submit
	tree   []byte                     // SHA-256 of the manifest that came; nil: none
	log    *slog.Logger
	again  bool   // the request was answered, and another one may come
	asked  *Event // what is asked, where it is not in the audit record yet

	write sync.Mutex // held for one frame
}

// serve reads a request and answers it. The error is for the log; io.EOF is the
// client's leaving between two requests.
func (x *exchange) serve(patience time.Duration) error {
	_ = x.conn.SetReadDeadline(time.Now().Add(patience))
	t, body, err := wire.ReadFrame(x.conn, nil, wire.MaxFrame)
	if err == io.EOF {
		return err
	}
	x.asked = &Event{Action: "request"}
	if err != nil {
		if errors.Is(err, wire.ErrMalformed) {
			return x.refuse(err)
		}
		return fmt.Errorf("read the request: %w", err)
	}
	_ = x.conn.SetReadDeadline(time.Time{})
	if action := actions()[t]; action != "" {
		x.asked.Action = action
	}
	select {
	case x.s.slots <- struct{}{}:
		defer func() { <-x.s.slots }()
	default:
		return x.refuse(fmt.Errorf("%w: %d requests are being answered; try again later", worktypes.ErrBusy, maxConns))
	}
	switch t {
	case typeSubmit:
		return x.submit(body)
	case typeFollow, typeCancel, typeRelease, typeQuery:
		var m unitMsg
		if err := wire.Unmarshal(body, &m); err != nil {
			return x.refuse(err)
		}
		return x.unit(t, m)
	case typeList:
		for _, st := range x.s.m.List() {
			if x.allowed(st.ID) != nil {
				continue
			}
			if err := x.send(typeStatus, statusToWire(st)); err != nil {
				return err
			}
		}
		return x.done(nil)
	}
	return x.refuse(fmt.Errorf("%w: a connection that begins with frame type %#x", wire.ErrMalformed, uint8(t)))
}

// unit answers the requests that name a unit.
func (x *exchange) unit(t wire.Type, m unitMsg) error {
	err := x.allowed(m.ID)
	if err != nil {
		x.audit(actions()[t], m.ID, err)
		return x.refuse(err)
	}
	x.asked.Unit = m.ID
	switch t {
	case typeFollow:
		x.audit("attach", m.ID, nil)
		if m.Blind {
			return x.watch(m.ID)
		}
		return x.follow(m.ID, m.Offset)
	case typeCancel:
		x.log.Info("cancel of a work unit", "unit", m.ID)
		err := x.s.m.Cancel(m.ID)
		x.audit("cancel", m.ID, err)
		if err != nil {
			return x.refuse(err)
		}
	case typeRelease:
		x.log.Info("release of a work unit", "unit", m.ID)
		about := x.about(m.ID)
		err := x.s.m.Release(x.ctx, m.ID)
		x.auditAbout("release", about, err)
		return x.done(err)
	}
	st, err := x.s.m.Status(m.ID)
	if err != nil {
		return x.refuse(err)
	}
	if err := x.send(typeStatus, statusToWire(st)); err != nil {
		return err
	}
	return x.done(nil)
}

// submit makes the unit, takes its payload, starts it and follows it. A unit that
// is not Pending any more was submitted before: it is followed only.
func (x *exchange) submit(body []byte) error {
	var m submitMsg
	if err := wire.Unmarshal(body, &m); err != nil {
		return x.refuse(err)
	}
	x.asked.Unit, x.asked.Type, x.asked.Job = m.ID, m.Type, cmp.Or(m.Job, m.ID)
	spec := worktypes.Spec{
		ID: m.ID, Type: m.Type, Params: m.Params, Job: m.Job, Owner: x.peer, Grants: m.Grants, Expires: x.s.m.In(time.Duration(m.TTL)),
		Node: m.Node,
	}
	x.terms, x.tree = Terms{}, nil // of the submit before
	st, err := x.accept(spec, m)
	if err != nil {
		return x.refuse(err)
	}
	x.log.Info("work unit submitted", "unit", m.ID, "job", cmp.Or(m.Job, m.ID), "type", m.Type)
	if st.State != worktypes.Pending {
		return x.acceptAndFollow(m.ID)
	}
	p, err := x.payload(m)
	if errors.Is(err, worktypes.ErrNotPending) { // just now
		return x.acceptAndFollow(m.ID)
	}
	if err != nil {
		return x.refuse(err)
	}
	p.Limit(x.terms.Payload)
	switch err := x.takeIn(m, p); {
	case errors.Is(err, errNoPayload): // the unit has ended, and says why
		x.settle(err)
		return x.follow(m.ID, 0)
	case err != nil:
		x.settle(err)
		return err
	}
	// A unit that could not be started is Failed, or was canceled: following
	// it tells.
	err = x.s.m.Start(m.ID)
	x.settle(err)
	if errors.Is(err, worktypes.ErrClosed) {
		return x.refuse(err)
	}
	return x.follow(m.ID, 0)
}

func (x *exchange) acceptAndFollow(id string) error {
	x.audit("attach", id, nil) // it was submitted before
	if err := x.send(typeAccepted, acceptedMsg{Store: x.s.m.Store()}); err != nil {
		return err
	}
	return x.follow(id, 0)
}

// send writes one message.
func (x *exchange) send(t wire.Type, msg any) error {
	frame, err := wire.AppendMessage(nil, t, msg)
	if err != nil {
		return err
	}
	return x.writeFrame(frame)
}

func (x *exchange) writeFrame(frame []byte) error {
	x.write.Lock()
	defer x.write.Unlock()
	if _, err := x.conn.Write(frame); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}

// done ends an answer.
func (x *exchange) done(err error) error {
	if err != nil {
		return x.refuse(err)
	}
	x.again = true
	return x.send(typeDone, struct{}{})
}

// refuse tells the client why not. It reads on for a while: closing while
// the client still sends would take the refusal away from it.
func (x *exchange) refuse(err error) error {
	x.log.Info("work request refused", "error", err)
	x.settle(err)
	_ = x.conn.SetDeadline(time.Now().Add(lingerTime))
	if serr := x.send(typeRefusal, refusalMsg{Code: codeOf(err), Reason: cut(err.Error())}); serr != nil {
		return serr
	}
	if errors.Is(err, wire.ErrMalformed) {
		return err // nobody is there who would wait for more
	}
	_, _ = io.Copy(io.Discard, x.conn)
	return err
}

// buffers are as large as the largest frame of Data, header included. They are
// taken when there is something to put into them, not before.
var buffers sync.Pool

func takeBuffer() *[]byte {
	if b, ok := buffers.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, wire.HeaderLen+wire.MaxData)
	return &b
}
