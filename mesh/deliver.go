package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/mesh/secure"
	"github.com/ranvier-mesh/ranvier/routing"
)

// errAnswer: the neighbour that asked is gone.
var errAnswer = errors.New("the answer could not be sent")

// deliver answers an Open for this node and hands the stream to its service,
// or to the session that it goes on with (docs/protocol.md sections 6.1 and 6.5). It returns
// when the carrier is over, since its caller closes it.
func (m *Mesh) deliver(ctx context.Context, stream net.Conn, open wire.Open) {
	accepted := wire.Answer{Node: m.cfg.ID, Path: []wire.Hop{{Node: m.cfg.ID}}}
	if open.Service == "" {
		m.answer(stream, accepted)
		return
	}
	l, refusal := m.service(open)
	if refusal != nil {
		m.answer(stream, *refusal)
		return
	}
	k, err := m.secured(ctx, stream, open, accepted)
	if err != nil {
		m.log.Debug("a stream did not become secure", "from", open.From, "service", open.Service, "err", err)
		return
	}
	path := append(open.Path, m.cfg.ID)
	if open.Resume {
		m.resume(k, path, open)
	} else {
		m.accept(k, path, open, l)
	}
	<-k.Closed()
}

// service finds who takes the stream. One that goes on was taken already, even
// if its service has closed since.
func (m *Mesh) service(open wire.Open) (*Listener, *wire.Answer) {
	if open.Resume {
		return nil, nil
	}
	m.mu.Lock()
	l := m.services[open.Service]
	m.mu.Unlock()
	var refusal wire.Answer
	switch {
	case l == nil:
		refusal = m.refusal(open, wire.CodeNoService, fmt.Sprintf("no service %q", open.Service))
	case len(l.backlog) == cap(l.backlog):
		refusal = m.refusal(open, wire.CodeBusy, fmt.Sprintf("service %q has too many streams waiting", open.Service))
	default:
		return l, nil
	}
	return nil, &refusal
}

// secured accepts the Open with the first words of the handshake.
func (m *Mesh) secured(ctx context.Context, stream net.Conn, open wire.Open, accepted wire.Answer) (*secure.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	a := &answering{Conn: stream, early: open.Early, answer: func(early []byte) error {
		accepted.Early = early
		if !m.answer(stream, accepted) {
			return errAnswer
		}
		return nil
	}}
	return secure.Server(ctx, a, m.ends, open.From)
}

// accept hands a new stream to its service.
func (m *Mesh) accept(k *secure.Conn, path []routing.NodeID, open wire.Open, l *Listener) {
	c, err := m.newConn(k, path, Addr{m.cfg.ID, open.Service}, Addr{open.From, open.Service}, open.Job, false)
	if limited := (*limitError)(nil); errors.As(err, &limited) {
		m.resetCarrier(k, wire.CodeBusy, limited.reason)
		return
	}
	if err != nil {
		if !errors.Is(err, ErrClosed) {
			m.log.Error("a stream got no token", "from", open.From, "err", err)
		}
		k.Close()
		return
	}
	if !l.offer(c) {
		c.session.Reset(wire.CodeBusy, "the service does not accept")
	}
}

// resume hands a further carrier to its session: who has the token and the
// key of the one that opened it goes on with it.
func (m *Mesh) resume(k *secure.Conn, path []routing.NodeID, open wire.Open) {
	late := time.AfterFunc(openTime, func() { k.Close() })
	defer late.Stop()
	r, err := readResume(k)
	if err != nil {
		m.log.Debug("a stream was not resumed", "from", open.From, "service", open.Service, "err", err)
		k.Close()
		return
	}
	m.mu.Lock()
	c := m.accepted[sessionToken(r.Token)]
	m.mu.Unlock()
	if c != nil && c.peerKey == k.PeerKey() && c.remote == (Addr{open.From, open.Service}) {
		before := c.path.Load()
		if c.session.Resume(c.carrier(k, path), r.Number) {
			c.prove(k)
			return
		}
		c.path.Store(before)
	}
	m.resetCarrier(k, wire.CodeBrokenStream, "the stream is not known here")
}

// resetCarrier tells the other end why there is no session here for a carrier.
func (m *Mesh) resetCarrier(k *secure.Conn, code wire.Code, reason string) {
	if frame, err := (wire.Reset{Code: code, Node: m.cfg.ID, Reason: reason}).Append(nil); err == nil {
		late := time.AfterFunc(openTime, func() { k.Close() })
		k.Write(frame)
		late.Stop()
	}
	k.Close()
}

func readResume(k *secure.Conn) (wire.Resume, error) {
	t, body, err := wire.ReadFrame(k, nil, wire.MaxHelloFrame)
	if err != nil {
		return wire.Resume{}, err
	}
	if t != wire.TypeResume {
		return wire.Resume{}, fmt.Errorf("%w: %v in place of a Resume", wire.ErrMalformed, t)
	}
	return wire.ParseResume(body)
}

// dialSelf opens a stream to a service of this node, through memory.
func (m *Mesh) dialSelf(ctx context.Context, near, far net.Conn, open wire.Open) (net.Conn, wire.Answer) {
	go func() {
		defer far.Close()
		m.deliver(ctx, far, open)
	}()
	var answer wire.Answer
	t, body, err := wire.ReadFrame(near, nil, wire.MaxFrame)
	if err == nil && t == wire.TypeAnswer {
		answer, err = wire.ParseAnswer(body)
	}
	if err != nil {
		answer = m.refusal(open, wire.CodeInternal, err.Error())
	}
	return near, answer
}
