package mesh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/routing"
)

// openTime is how long a neighbour may take from opening a stream to saying
// what it is for.
const openTime = 5 * time.Second

// hopTime is how long a neighbour may take to answer an Open where there is
// another one to try. It is no longer than a link may be silent: who asks a node that
// stopped at that moment goes another way in time.
const hopTime = deadAfter

// serve takes a stream that a neighbour opened: for a service here, or to be
// passed on (docs/protocol.md sections 6.1 and 6.2).
func (n *neighbour) serve(ctx context.Context, stream net.Conn) {
	defer stream.Close()
	stream.SetReadDeadline(time.Now().Add(openTime))
	t, body, err := wire.ReadFrame(stream, nil, wire.MaxFrame)
	if err != nil {
		return
	}
	stream.SetReadDeadline(time.Time{})
	if t != wire.TypeOpen {
		return
	}
	open, err := wire.ParseOpen(body)
	m := n.mesh
	switch {
	case err != nil:
		m.answer(stream, m.refusal(open, wire.CodeMalformed, err.Error()))
		return
	case !n.speaksFor(open):
		m.answer(stream, m.refusal(open, wire.CodeForbidden, fmt.Sprintf("neighbour %s is not the last node of the path", n.id)))
		return
	}
	if open.To == m.cfg.ID {
		if !m.barred(ctx, stream, open, open.From) {
			m.deliver(ctx, stream, open)
		}
		return
	}
	if !m.barred(ctx, stream, open, n.id) {
		m.relay(ctx, n, stream, open)
	}
}

// speaksFor tells whether the neighbour may send this Open: it must have put
// itself on the path, and who is no router only speaks for itself.
func (n *neighbour) speaksFor(open wire.Open) bool {
	path := open.Path
	if len(path) == 0 || path[0] != open.From || path[len(path)-1] != n.id {
		return false
	}
	return n.hello.Role == Router || len(path) == 1
}

// relay passes an Open of a neighbour on and then carries the stream's bytes both ways.
func (m *Mesh) relay(ctx context.Context, n *neighbour, up net.Conn, open wire.Open) {
	switch {
	case slices.Contains(open.Path, m.cfg.ID):
		m.answer(up, m.refusal(open, wire.CodeLoop, "the way came back to this node"))
		return
	case m.cfg.Role != Router:
		m.answer(up, m.refusal(open, wire.CodeNotRouter, "this node does not relay"))
		return
	case len(open.Path)+1 >= wire.MaxPath:
		m.answer(up, m.refusal(open, wire.CodeNoRoute, fmt.Sprintf("the path is longer than %d nodes", wire.MaxPath)))
		return
	case !m.enterRelay():
		m.answer(up, m.refusal(open, wire.CodeDraining, "the node is about to go"))
		return
	}
	defer m.leaveRelay()
	open.Path = append(open.Path, m.cfg.ID)
	ctx, cancel := context.WithTimeout(ctx, time.Duration(open.Timeout)*time.Millisecond)
	down, answer := m.openVia(ctx, open)
	cancel()
	answered := m.answer(up, answer)
	if down == nil {
		return
	}
	defer down.Close()
	if !answered || open.Service == "" { // a ping is over with its answer
		return
	}
	m.warn(n, answer.Path)
	m.trailed(n, open)
	splice(up, down)
}

// openVia sends an Open to the next hop, or to the next best one when a way
// turns out to be closed. Path's last node is this one. The answer has this
// node in front of its path. The stream is nil unless the answer accepts.
func (m *Mesh) openVia(ctx context.Context, open wire.Open) (net.Conn, wire.Answer) {
	hops := m.nextHops(open)
	if len(hops) == 0 {
		return nil, m.noRoute(open)
	}
	var answer wire.Answer
	for i, hop := range hops {
		start := time.Now()
		one, cancel := patience(ctx, i < len(hops)-1 && open.Attempts > 0)
		stream, err := hop.open(one, open, &answer)
		late := err != nil && one.Err() == context.DeadlineExceeded
		untrue := errors.Is(err, wire.ErrMalformed)
		cancel()
		answer.Path = slices.Insert(answer.Path, 0, wire.Hop{Node: m.cfg.ID, Micros: uint64(time.Since(start).Microseconds())})
		if hop.id != open.To && (late && !hop.silent() || untrue) {
			m.suspects.add(time.Now(), []routing.NodeID{hop.id}, fmt.Sprintf("asked for %s: %v", open.To, err))
		}
		switch {
		case err == nil && answer.Code == wire.CodeOK:
			return stream, answer
		case late || ctx.Err() != nil:
			answer = m.refusal(open, wire.CodeTimeout, fmt.Sprintf("no answer from neighbour %s in time", hop.id))
			if ctx.Err() != nil {
				return nil, answer
			}
			answer.Attempts = open.Attempts
		case untrue:
			answer = m.refusal(open, wire.CodeMalformed, fmt.Sprintf("neighbour %s does not answer as it should: %v", hop.id, err))
		case errors.Is(err, link.ErrBusy):
			answer = m.refusal(open, wire.CodeBusy, fmt.Sprintf("neighbour %s: %v", hop.id, err))
		case err != nil:
			answer = m.refusal(open, wire.CodeLinkDown, fmt.Sprintf("the link to %s broke: %v", hop.id, err))
		}
		open.Attempts = min(open.Attempts, answer.Attempts)
		if !late && !untrue && !retryable(answer.Code) || open.Attempts == 0 {
			break
		}
		open.Attempts--
	}
	return nil, answer
}

// patience bounds how long one next hop may take where there are others.
func patience(ctx context.Context, others bool) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok || !others {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, min(hopTime, time.Until(deadline)*3/4))
}

// retryable tells whether another way may do where this one did not.
func retryable(c wire.Code) bool {
	return c == wire.CodeLinkDown || c == wire.CodeBusy || c == wire.CodeDraining || c == wire.CodeShutdown
}

// open asks the neighbour and reads its answer. The stream is closed unless it
// is returned.
func (n *neighbour) open(ctx context.Context, open wire.Open, answer *wire.Answer) (_ net.Conn, err error) {
	*answer = wire.Answer{}
	if deadline, ok := ctx.Deadline(); ok {
		// Less than is left here: who waits in vain there still says so in time.
		open.Timeout = uint32(max(1, time.Until(deadline).Milliseconds()*7/8))
	}
	frame, err := open.Append(nil)
	if err != nil {
		return nil, err
	}
	stream, err := n.link.Open(ctx)
	if err != nil {
		return nil, err
	}
	n.streams.Add(1)
	counted := &countedStream{Conn: stream, n: n}
	stop := context.AfterFunc(ctx, func() { end(counted) })
	defer func() {
		if !stop() {
			err = ctx.Err()
		}
		if err != nil || answer.Code != wire.CodeOK {
			counted.Close()
		}
	}()
	if _, err := stream.Write(frame); err != nil {
		return nil, err
	}
	t, body, err := wire.ReadFrame(stream, nil, wire.MaxFrame)
	if err != nil {
		return nil, err
	}
	if t != wire.TypeAnswer {
		return nil, fmt.Errorf("%w: %v in place of an Answer", wire.ErrMalformed, t)
	}
	switch *answer, err = wire.ParseAnswer(body); {
	case err != nil:
	case len(answer.Path) == 0 || answer.Path[0].Node != n.id:
		// Whatever a neighbour says of the way, it cannot keep itself out of it.
		err = fmt.Errorf("%w: the Answer's path does not begin with the neighbour", wire.ErrMalformed)
	case len(open.Path)+len(answer.Path) > wire.MaxPath:
		err = fmt.Errorf("%w: the Answer's path is longer than a way can be", wire.ErrMalformed)
	}
	return counted, err
}

// nextHops lists the neighbours to try for an Open, best first. Among ways of
// equal cost the one to begin with is left to chance, at every node anew.
func (m *Mesh) nextHops(open wire.Open) []*neighbour {
	barred := func(id routing.NodeID) bool {
		return id != open.To && (slices.Contains(open.Path, id) || slices.Contains(open.Avoid, id))
	}
	if m.cfg.Role != Router {
		return m.homes(open.To, barred)
	}
	ids, best := m.table.Load().Route(open.To, barred)
	spread(ids[:best])
	var hops []*neighbour
	for _, id := range ids {
		if n := m.neighbour(id); n != nil {
			hops = append(hops, n)
		}
	}
	slices.SortStableFunc(hops, func(a, b *neighbour) int { return rank(a.failing()) - rank(b.failing()) })
	return m.suspects.last(time.Now(), hops, open.To)
}

// spread turns a list of equals by chance: each has the same share of streams,
// whatever the order in which they are opened.
func spread[T any](equals []T) {
	if len(equals) > 1 {
		turn := rand.IntN(len(equals))
		copy(equals, slices.Concat(equals[turn:], equals[:turn]))
	}
}

// homes are the neighbours of a node that has no routes of its own: all know
// more than it does. The target itself comes first, then those with the cheapest
// links, which share the streams.
func (m *Mesh) homes(to routing.NodeID, barred func(routing.NodeID) bool) []*neighbour {
	hops := slices.DeleteFunc(m.allNeighbours(), func(n *neighbour) bool { return n.hello.Role != Router || barred(n.id) })
	spread(hops)
	price := func(n *neighbour) routing.Cost {
		if n.id == to {
			return 0
		}
		return n.cost()
	}
	slices.SortStableFunc(hops, func(a, b *neighbour) int { return cmp.Compare(price(a), price(b)) })
	return hops
}

// refusal is this node's own refusal of an Open.
func (m *Mesh) refusal(open wire.Open, code wire.Code, reason string) wire.Answer {
	return wire.Answer{Code: code, Node: m.cfg.ID, Reason: reason, Attempts: min(open.Attempts, wire.MaxAttempts), Path: []wire.Hop{{Node: m.cfg.ID}}}
}

// knownInRefusal is how many nodes a refusal names.
const knownInRefusal = 20

func (m *Mesh) noRoute(open wire.Open) wire.Answer {
	if m.cfg.Role != Router {
		return m.refusal(open, wire.CodeLinkDown, "no link to the mesh")
	}
	a := m.refusal(open, wire.CodeNoRoute, fmt.Sprintf("no route to node %s", open.To))
	a.Known = append(a.Known, m.cfg.ID)
	for _, id := range m.table.Load().Known(knownInRefusal) {
		if id != m.cfg.ID {
			a.Known = append(a.Known, id)
		}
	}
	return a
}

// answer writes an Answer; false means that the asker is gone.
func (m *Mesh) answer(stream net.Conn, a wire.Answer) bool {
	frame, err := a.Append(nil)
	if err != nil {
		m.log.Error("answer does not encode", "err", err)
		return false
	}
	stream.SetWriteDeadline(time.Now().Add(openTime))
	_, err = stream.Write(frame)
	stream.SetWriteDeadline(time.Time{})
	return err == nil
}
