package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/routing"
)

const (
	// heartbeat is how often a quiet link between routers, or one with streams,
	// carries something; after deadAfter of nothing it is given up. Links to
	// others are quieter while they carry no stream (docs/protocol.md section 4.4).
	heartbeat      = time.Second
	deadAfter      = 3 * time.Second
	quietHeartbeat = 15 * time.Second
	quietDeadAfter = 45 * time.Second
	// silentFor of nothing is more than a heartbeat takes.
	silentFor = 1500 * time.Millisecond
	// hashEvery is how often neighbours compare their databases.
	hashEvery = time.Minute
	// maxStreams bounds the streams that one neighbour may have open here.
	maxStreams = 16384
	// busyTime is how long a refusal of one more may take.
	busyTime = 100 * time.Millisecond
)

// neighbour is a link whose other end is known. Four goroutines live as long
// as it does: readControl, the writing of out, watch and acceptStreams; the first
// to end ends the link and so the others.
type neighbour struct {
	mesh     *Mesh
	part     *part // that made the link
	link     link.Link
	control  net.Conn
	hello    wire.Hello
	member   identity.Member              // who TLS has proved it to be; zero without identities
	knows    map[identity.KeyID]time.Time // the ends of the certificates it was sent; owned by route
	faults   int                          // certificates and adverts that did not hold, since faulted; owned by readControl
	faulted  time.Time
	adverts  adverts // owned by readControl
	id       routing.NodeID
	dialled  bool          // by this node
	rtt      time.Duration // of the handshake
	since    time.Time
	out      outbox
	streams  atomic.Int64
	silence  atomic.Int64  // nanoseconds since something came, as watch last saw it
	dead     atomic.Bool   // it was asked for a sign of life and gave none
	expelled atomic.Bool   // see expel
	beats    chan struct{} // has one when a Heartbeat came
	gone     chan struct{}

	mu  sync.Mutex
	end error // why the link ended, the first cause
	// What either end wishes the link to cost; 0: no wish.
	wish, peersWish routing.Cost
}

// run registers the neighbour and keeps it until its link ends or ctx does.
func (n *neighbour) run(ctx context.Context) error {
	if err := n.mesh.register(n); err != nil {
		n.refuse(err)
		return err
	}
	m := n.mesh
	m.log.Info("link up", "node", n.id, "address", n.link.RemoteAddr(), "role", n.hello.Role, "cost", n.cost())
	switch {
	case n.routers():
		m.change(ctx, func(c *routing.Core, now time.Time) {
			if m.neighbour(n.id) == n { // else the link that took over has told it
				c.AddLink(now, n.id, n.cost())
			}
		})
	case m.cfg.Role == Leaf:
		attach := wire.Attach{Leaf: m.cfg.ID, Home: n.id, HomeEpoch: n.hello.Epoch}
		if m.members != nil {
			attach.Sig = m.members.self.SignAttach(n.id, n.hello.Epoch)
		}
		n.push(attach)
	}

	g, ctx := errgroup.WithContext(ctx)
	g.Go(n.readControl)
	g.Go(func() error { return n.out.write(ctx, n.control) })
	g.Go(func() error { return n.watch(ctx) })
	g.Go(func() error { return n.acceptStreams(ctx) })
	context.AfterFunc(ctx, func() { n.link.Close() })
	n.fail(g.Wait())

	m.unregister(n)
	m.change(m.running, func(c *routing.Core, now time.Time) { m.withdraw(c, now, n) })
	close(n.gone)
	m.log.Info("link down", "node", n.id, "cause", n.cause())
	return n.cause()
}

// fail remembers the first cause of the link's end and ends it.
func (n *neighbour) fail(err error) {
	n.mu.Lock()
	if n.end == nil {
		n.end = err
	}
	n.mu.Unlock()
	n.link.Close()
}

func (n *neighbour) cause() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.end
}

// refuse tells the peer why its link is not wanted, and closes it.
func (n *neighbour) refuse(err error) {
	var refused *RefusedError
	if errors.As(err, &refused) {
		sendGoAway(n.link, n.control, wire.GoAway{Code: refused.Code, Node: n.mesh.cfg.ID, Reason: refused.Reason})
	}
	n.link.Close()
}

// giveWay ends the link because another one to the same node takes over; the
// peer is told, so that it does not take this for a break.
func (n *neighbour) giveWay() {
	reason := "a newer link takes over"
	n.mu.Lock()
	if n.end == nil {
		n.end = &RefusedError{Code: wire.CodeSuperseded, Node: n.mesh.cfg.ID, Reason: reason, what: "link to " + string(n.id), peer: n.id}
	}
	n.mu.Unlock()
	n.push(wire.GoAway{Code: wire.CodeSuperseded, Node: n.mesh.cfg.ID, Reason: reason})
	time.AfterFunc(partingTime, func() { n.link.Close() })
}

// parted waits until a peer that was sent a GoAway has closed the link, or ctx ends.
func (n *neighbour) parted(ctx context.Context) {
	select {
	case <-n.gone:
	case <-ctx.Done():
	}
}

func (n *neighbour) readControl() error {
	var buf []byte
	for {
		t, body, err := wire.ReadFrame(n.control, buf, wire.MaxFrame)
		if err != nil {
			return fmt.Errorf("link to %s: %w", n.id, err)
		}
		msg, err := wire.ParseControl(t, body)
		if err != nil {
			return fmt.Errorf("link to %s: %w", n.id, err)
		}
		if n.expelled.Load() {
			continue
		}
		if err := n.handle(msg); err != nil {
			return err
		}
		if buf = body[:0]; cap(buf) > 4<<10 {
			buf = nil // a quiet link keeps no large buffer
		}
	}
}

// handle acts on a message of the control stream; one for a later version is nil.
func (n *neighbour) handle(msg any) error {
	switch msg := msg.(type) {
	case wire.GoAway:
		return &RefusedError{Code: msg.Code, Node: msg.Node, Reason: msg.Reason, what: "link to " + string(n.id)}
	case wire.Heartbeat:
		select {
		case n.beats <- struct{}{}:
		default:
		}
		if msg.HasCost {
			n.wishes(nil, &msg.Cost)
		}
		if msg.Ask {
			n.push(wire.Heartbeat{})
		}
		if msg.HasHash {
			return n.toCore(msg.Hash)
		}
	case wire.Attach:
		n.attach(msg)
	case wire.Draining:
		if now := time.Now(); n.mesh.cfg.Role != Router { // who has a database knows better
			n.mesh.moves.tell(msg.Nodes, now, now.Add(toldTime))
		}
	case wire.Revoked:
		if err := n.mesh.revoked(msg); err != nil {
			return fmt.Errorf("link to %s: %w", n.id, err)
		}
	case wire.Cert:
		return n.introduced(msg)
	case wire.Sealed:
		return n.advert(msg)
	case routing.Message:
		return n.toCore(msg)
	}
	return nil
}

// attach makes this node a home of the leaf at the other end.
func (n *neighbour) attach(msg wire.Attach) {
	m := n.mesh
	if n.hello.Role != Leaf || m.cfg.Role != Router || msg.Leaf != n.id || msg.Home != m.cfg.ID {
		return // nobody attaches another, or to another
	}
	if m.members != nil {
		leaf := m.members.id(n.id)
		if leaf == nil {
			return
		}
		if err := m.members.self.Trust().VerifyAttach(leaf.signer, m.cfg.ID, msg.HomeEpoch, msg.Sig); err != nil {
			m.log.Warn("a leaf is not attached", "node", n.id, "err", err)
			return
		}
	}
	m.change(m.running, func(c *routing.Core, now time.Time) {
		if m.neighbour(n.id) != n {
			return
		}
		c.AddLeaf(now, routing.Attachment{Leaf: n.id, Cost: n.cost(), Sig: msg.Sig})
	})
}

// introduced takes a certificate that the neighbour passes on.
func (n *neighbour) introduced(msg wire.Cert) error {
	m := n.mesh
	if m.members == nil || m.cfg.Role != Router {
		return nil
	}
	in, newer, err := m.members.introduce(msg)
	if err != nil {
		return n.fault(err)
	}
	if newer {
		m.passOn(in, n)
	}
	return nil
}

// advert takes a router's advert, after its signature was checked. One that is
// dropped is acknowledged all the same: it is not to come again on this link.
func (n *neighbour) advert(msg wire.Sealed) error {
	m := n.mesh
	if !n.routers() {
		return nil // others have no say in routing
	}
	var err error
	if m.members != nil {
		err = m.members.verify(msg.Advert, msg.Envelope)
	}
	now := time.Now()
	switch {
	case err == nil && n.adverts.take(now, msg.Advert.Origin, m.limits.burst):
		return n.toCore(msg.Advert)
	case err == nil:
		// It is fetched later, after the next comparison of databases.
		m.limits.advert(now, msg.Advert.Origin, n.id)
		err = fmt.Errorf("%w: too many adverts of %s", errDrop, msg.Advert.Origin)
		if msg.Advert.Origin != n.id {
			n.acknowledge(msg.Advert)
			return nil // not the fault of who passes it on
		}
	}
	if !errors.Is(err, errDrop) {
		return fmt.Errorf("link to %s: %w: %w", n.id, wire.ErrMalformed, err)
	}
	n.acknowledge(msg.Advert)
	return n.fault(err)
}

// acknowledge has an advert that is not taken not come again on this link.
func (n *neighbour) acknowledge(a *routing.Advert) {
	if frame, err := wire.AppendRouting(nil, &routing.Ack{Entries: []routing.Stamp{a.Stamp()}}); err == nil {
		n.out.push(frame)
	}
}

// fault bears with some of what does not hold: the neighbour may not have heard
// yet of what this node knows.
func (n *neighbour) fault(err error) error {
	if now := time.Now(); now.Sub(n.faulted) > time.Minute {
		n.faulted, n.faults = now, 0
	}
	if n.faults++; n.faults > maxFaults {
		n.dismiss(wire.CodeBusy, "too much of what comes from here does not hold, or is beyond a limit")
		return fmt.Errorf("link to %s: %w: too much of what it passes on does not hold, the last: %w", n.id, wire.ErrMalformed, err)
	}
	n.mesh.log.Debug("not taken from a neighbour", "node", n.id, "err", err)
	return nil
}

// dismiss tells the neighbour why the link ends, and gives it time to read that.
func (n *neighbour) dismiss(code wire.Code, reason string) {
	n.push(wire.GoAway{Code: code, Node: n.mesh.cfg.ID, Reason: reason})
	over := time.NewTimer(partingTime)
	defer over.Stop()
	select {
	case <-n.link.Done():
	case <-over.C:
	}
}

// toCore hands a router's message to the routing core and waits for its
// verdict, so that a neighbour's flood is held back by the core's pace.
func (n *neighbour) toCore(msg routing.Message) error {
	m := n.mesh
	if !n.routers() || m.neighbour(n.id) != n {
		return nil // others have no say in routing, nor has a link that gave way
	}
	verdict := make(chan error, 1)
	if !m.change(m.running, func(c *routing.Core, now time.Time) { verdict <- c.Receive(now, n.id, msg) }) {
		return ErrClosed
	}
	if err := <-verdict; err != nil {
		return fmt.Errorf("link to %s: %w: %w", n.id, wire.ErrMalformed, err)
	}
	return nil
}

// watch sends heartbeats and notices when nothing comes any more. Whatever
// comes on the link is life.
func (n *neighbour) watch(ctx context.Context) error {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	start := time.Now()
	heard, compared := start, start
	received, sent := n.link.Traffic()
	pace := pace{start, sent}
	wasQuiet := false
	for {
		var now time.Time
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.link.Done():
			return link.ErrClosed
		case now = <-tick.C:
		}
		quiet := !n.routers() && n.streams.Load() == 0
		r, s := n.link.Traffic()
		if r != received || (wasQuiet && !quiet) { // the peer may not have known yet
			received, heard = r, now
		}
		wasQuiet = quiet

		every, dead := heartbeat, deadAfter
		if quiet {
			every, dead = quietHeartbeat, quietDeadAfter
		}
		beat := pace.due(now, s, every)
		silence := now.Sub(heard)
		n.silence.Store(int64(silence))
		switch {
		case silence >= dead:
			return fmt.Errorf("link to %s: nothing heard for %v", n.id, silence.Round(100*time.Millisecond))
		case n.routers() && now.Sub(compared) >= hashEvery:
			compared = now
			n.mesh.change(ctx, func(c *routing.Core, _ time.Time) {
				n.push(wire.Heartbeat{Hash: c.Hash(), HasHash: true})
			})
		case !n.routers() && !quiet && silence >= heartbeat:
			n.push(wire.Heartbeat{Ask: true}) // it may count its streams otherwise and be quiet
		case beat:
			n.push(wire.Heartbeat{})
		}
	}
}

// silent tells whether nothing came for longer than it should on a link that is not quiet.
func (n *neighbour) silent() bool { return time.Duration(n.silence.Load()) >= silentFor }

// failing tells whether the link is silent and should not be: it may be given
// up soon, and what is asked there may be asked in vain.
func (n *neighbour) failing() bool { return n.routers() && n.silent() }

// routers tells whether both ends are routers.
func (n *neighbour) routers() bool { return n.hello.Role == Router && n.mesh.cfg.Role == Router }

// push queues a message of the control stream.
func (n *neighbour) push(msg interface{ Append([]byte) ([]byte, error) }) {
	frame, err := msg.Append(nil)
	if err != nil {
		n.mesh.log.Error("message does not encode", "node", n.id, "err", err)
		return
	}
	n.out.push(frame)
}

func (n *neighbour) acceptStreams(ctx context.Context) error {
	for {
		stream, err := n.link.Accept()
		if err != nil {
			return err
		}
		if n.expelled.Load() {
			stream.Close()
			continue
		}
		if n.streams.Add(1) > maxStreams {
			n.streams.Add(-1)
			n.overfull(stream)
			continue
		}
		go func() {
			defer n.streams.Add(-1)
			n.serve(ctx, stream)
		}()
	}
}

// overfull refuses a stream that is one too many, before it has said anything;
// meanwhile no other one is accepted.
func (n *neighbour) overfull(stream net.Conn) {
	defer stream.Close()
	busy := wire.Answer{
		Code: wire.CodeBusy, Node: n.mesh.cfg.ID, Reason: fmt.Sprintf("neighbour %s has %d streams open here", n.id, maxStreams),
		Attempts: wire.MaxAttempts, Path: []wire.Hop{{Node: n.mesh.cfg.ID}},
	}
	if frame, err := busy.Append(nil); err == nil {
		stream.SetWriteDeadline(time.Now().Add(busyTime))
		stream.Write(frame)
	}
}
