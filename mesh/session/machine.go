package session

import (
	"fmt"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/wire"
)

const (
	// stall is how long the other end may leave unanswered what must be
	// answered, before the carrier is taken for a black hole.
	stall = 3 * time.Second
	// idling and lasting are how long a carrier has to live to have been of use
	// without a byte of payload: where all was answered, and where it was not.
	idling  = stall
	lasting = 3 * stall
	// askFirst and askMost: the dialling end of a stream on which nothing
	// happens asks whether the way still carries, rarer and rarer.
	askFirst = time.Second
	askMost  = 30 * time.Second
)

// machine is what one end knows of a session. It has no goroutine, lock or
// clock: the time comes with each call.
//
// Each direction of the stream goes through
//
//	open ──Fin queued──► ending ──all of it confirmed──► ended
//
// and a direction also ends when the end that it leads to will not read any
// more (closed). Where both have ended, and this end knows that the other knows
// all it had to be told, it says over; the session is over when both have said it.
//
// What was said on a carrier and not confirmed is said again on the next one:
// attach forgets that it was said.
type machine struct {
	dialler bool
	giveUp  time.Duration

	out ring
	in  inbox

	finQueued bool // no more will be written
	closed    bool // nor read
	finSent   bool // on this carrier
	saidClose bool // and it said closed
	finAcked  bool
	closeAck  bool // the other end knows that this one is closed

	finGot     bool // the other end sends no more
	peerClosed bool // nor does it read

	overSent, overGot bool

	attached   bool
	synced     bool          // the other end has said on this carrier what it has
	broken     time.Time     // since when there is no carrier, or none that is synced; before that by lost
	lost       time.Duration // for how long that was so since the last new break (detach)
	breaks     bool          // there was one
	gained     uint64        // bytes both ways by then
	since      time.Time     // of the carrier
	told       bool          // a Progress is due now
	ackAt      time.Time     // one is due then, or with the next data
	ask, asked bool          // the other end is to be asked; it was and has not answered
	askEvery   time.Duration
	active     time.Time // when data last moved or an ask went out
	heard      time.Time // when a frame last came
	waiting    time.Time // since when an answer is missing
}

// attach begins with a carrier; the first of a session is synced from the start.
func (m *machine) attach(now time.Time, rtt time.Duration, first bool) {
	m.attached, m.synced, m.since = true, first, now
	m.told = !first
	m.finSent, m.saidClose, m.overSent = false, false, false
	m.ask, m.asked, m.ackAt = false, false, time.Time{}
	m.in.rtt = rtt
	m.heard, m.active, m.askEvery = now, now, askFirst
	m.waiting = time.Time{}
	m.expect(now)
}

// detach notes that there is no carrier any more. It tells whether this is a
// new break: a carrier that was synced, and then brought nothing and did not
// last, ends none, or somebody on its way could keep the ends at it for ever.
// Then what was lost before counts, and the time in which an answer was missing.
func (m *machine) detach(now time.Time) (fresh bool) {
	m.attached = false
	if !m.broken.IsZero() {
		return false
	}
	gain, lived := m.in.got+m.out.acked, now.Sub(m.since)
	switch {
	case !m.breaks, gain > m.gained, lived >= lasting, lived >= idling && m.waiting.IsZero():
		m.breaks, m.gained, m.lost, fresh = true, gain, 0, true
	case !m.waiting.IsZero():
		m.lost += now.Sub(m.waiting)
	}
	m.broken = now.Add(-m.lost)
	return fresh
}

// change notes that the carrier is given up for another one that is there
// already: nothing is wrong with it, so this is no break.
func (m *machine) change(now time.Time) {
	m.attached = false
	if m.broken.IsZero() {
		m.broken = now
	}
}

// complete tells whether both directions have ended as far as this end must know.
func (m *machine) complete() bool {
	return m.peerClosed || m.finGot && m.finAcked || m.closeAck
}

func (m *machine) over() bool { return m.overSent && m.overGot }

// finOwed tells whether a Fin is to be sent once the ring is empty.
func (m *machine) finOwed() bool {
	return m.finQueued && !m.complete() && (!m.finSent || m.closed && !m.saidClose)
}

// outstanding tells whether the other end has something to answer.
func (m *machine) outstanding() bool {
	return !m.synced || m.asked || m.out.sent > m.out.acked ||
		m.finSent && !m.complete() && (!m.finAcked || m.saidClose) || m.overSent && !m.overGot
}

// expect starts the time for an answer where one is missing.
func (m *machine) expect(now time.Time) {
	switch {
	case !m.outstanding():
		m.waiting = time.Time{}
	case m.waiting.IsZero():
		m.waiting = now
	}
}

// hasOutput tells whether next would return something.
func (m *machine) hasOutput() bool {
	return m.attached && (m.told || m.ask || m.synced && (m.out.unsent() || m.finOwed()))
}

// smallFrames is up to how many bytes data is copied, so that it leaves
// together with what else is to be said.
const smallFrames = 4 << 10

// next returns bytes for the carrier: of the ring, with the block that must be
// held until they are written, or put together in small.
func (m *machine) next(now time.Time, small []byte) (*block, []byte, error) {
	var err error
	ready := m.synced && m.out.unsent()
	if m.told || m.ask || !m.ackAt.IsZero() && ready && m.out.written-m.out.sent < smallFrames {
		if small, err = m.progress(now, small); err != nil {
			return nil, nil, err
		}
	}
	for m.synced && m.out.unsent() {
		if len(small) > 0 && m.out.written-m.out.sent >= smallFrames {
			break // the rest goes out from where it is
		}
		b, frames := m.out.next()
		m.active, m.askEvery = now, askFirst
		if len(frames) > smallFrames {
			m.expect(now)
			return b, frames, nil
		}
		small = append(small, frames...)
	}
	if m.synced && !m.out.unsent() && m.finOwed() {
		m.finSent, m.saidClose = true, m.closed
		small, err = wire.Fin{Offset: m.out.written, Closed: m.closed}.Append(small)
	}
	m.expect(now)
	return nil, small, err
}

func (m *machine) progress(now time.Time, frame []byte) ([]byte, error) {
	p := wire.Progress{Fin: m.finGot, Closed: m.peerClosed, Ask: m.ask, Over: m.complete()}
	p.Received, p.Limit = m.in.tell(now)
	m.overSent = p.Over
	if m.ask {
		m.ask, m.asked, m.active = false, true, now
	}
	m.told, m.ackAt = false, time.Time{}
	return p.Append(frame)
}

// settle is called after each change from outside: what has become due?
func (m *machine) settle(now time.Time) {
	if m.complete() && !m.overSent {
		m.told = true
	}
	if m.in.due() {
		m.told = true
	} else if m.in.got > m.in.acked && m.ackAt.IsZero() && !m.told {
		m.ackAt = now.Add(ackDelay)
	}
	m.expect(now)
}

// data was received, n bytes of it.
func (m *machine) data(now time.Time, spans []span) {
	m.in.commit(spans)
	if m.closed {
		m.in.discard()
	}
	m.heard, m.active, m.askEvery = now, now, askFirst
	m.settle(now)
}

func (m *machine) receiveFin(now time.Time, fin wire.Fin) error {
	if fin.Offset != m.in.got || m.finGot && m.peerClosed && !fin.Closed {
		return fmt.Errorf("%w: a Fin at %d after %d bytes", wire.ErrMalformed, fin.Offset, m.in.got)
	}
	m.heard, m.finGot, m.told = now, true, true
	if fin.Closed && !m.peerClosed {
		m.peerClosed = true
		m.out.clear()
	}
	m.settle(now)
	return nil
}

func (m *machine) receiveProgress(now time.Time, p wire.Progress) error {
	if err := m.confirm(p); err != nil {
		return err
	}
	m.heard, m.waiting, m.asked = now, time.Time{}, false
	if m.synced = true; !m.broken.IsZero() {
		m.lost, m.broken = now.Sub(m.broken), time.Time{}
	}
	m.out.limit = max(m.out.limit, p.Limit)
	m.finAcked = m.finAcked || p.Fin
	m.closeAck = m.closeAck || p.Closed
	if p.Over {
		if m.overGot = true; !m.complete() {
			return fmt.Errorf("%w: over, with a direction that has not ended", wire.ErrMalformed)
		}
	}
	m.told = m.told || p.Ask
	m.settle(now)
	return nil
}

// confirm takes what the other end has.
func (m *machine) confirm(p wire.Progress) error {
	if p.Fin && !m.finQueued || p.Closed && !m.closed {
		return fmt.Errorf("%w: a Fin is confirmed that was not sent", wire.ErrMalformed)
	}
	if m.peerClosed {
		return nil // what is left of the ring is thrown away
	}
	if p.Fin && p.Received != m.out.written {
		return fmt.Errorf("%w: a Fin at %d is confirmed at %d", wire.ErrMalformed, m.out.written, p.Received)
	}
	if !m.synced {
		return m.out.rewind(p.Received)
	}
	return m.out.ack(p.Received)
}

// stuck asks the other end to confirm what it has, since the user waits for
// memory.
func (m *machine) stuck() {
	if m.attached && m.synced && m.out.written < m.out.limit && !m.out.unsent() && m.out.sent > m.out.acked && !m.asked {
		m.ask = true
	}
}

// A verdict says what a moment means for the carrier.
type verdict int

const (
	fine     verdict = iota
	stalled          // the carrier is a black hole
	hopeless         // nothing has helped for too long
)

// tick looks at the time.
func (m *machine) tick(now time.Time) verdict {
	due := func(at time.Time) bool { return !at.IsZero() && !now.Before(at) }
	if due(m.giveUpAt()) {
		return hopeless
	}
	if !m.attached {
		return fine
	}
	if due(m.stallAt()) {
		return stalled
	}
	if due(m.ackAt) {
		m.told, m.ackAt = true, time.Time{}
	}
	if due(m.askAt()) {
		m.ask = true
		m.askEvery = min(2*m.askEvery, askMost)
	}
	return fine
}

// wake is when tick has something to do; zero for never.
func (m *machine) wake() time.Time {
	first := m.giveUpAt()
	for _, at := range [...]time.Time{m.stallAt(), m.ackAt, m.askAt()} {
		if m.attached && !at.IsZero() && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}

// giveUpAt: nobody waits longer than giveUp for a carrier. The end that
// cannot make one itself also counts an answer that is missing, and a dialler
// that has stopped to ask.
func (m *machine) giveUpAt() time.Time {
	switch {
	case !m.broken.IsZero():
		return m.broken.Add(m.giveUp)
	case m.dialler:
		return time.Time{}
	case !m.waiting.IsZero():
		return m.waiting.Add(max(stall, m.giveUp))
	}
	return m.heard.Add(askMost + max(stall, m.giveUp))
}

// stallAt: only the dialler can do something about a black hole.
func (m *machine) stallAt() time.Time {
	if !m.dialler || m.waiting.IsZero() {
		return time.Time{}
	}
	return m.waiting.Add(stall)
}

func (m *machine) askAt() time.Time {
	if !m.dialler || m.ask || !m.waiting.IsZero() {
		return time.Time{}
	}
	return m.active.Add(m.askEvery)
}
