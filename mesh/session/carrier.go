package session

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/wire"
)

// carrier is a Carrier in use. Its fields are guarded by the Conn's mutex.
type carrier struct {
	conn    io.ReadWriteCloser
	first   []byte      // to be written before all else
	reset   *wire.Reset // to be written as the last thing
	said    bool        // and it was
	sending bool        // the goroutine send runs
	mute    bool        // nothing more can be written
}

// close does not wait: a carrier that is a black hole may take its time.
func (k *carrier) close() { go k.conn.Close() }

// attach begins with a carrier. Callers hold mu.
func (c *Conn) attach(k Carrier, first []byte) {
	c.way = k.Way
	c.now = &carrier{conn: k.Conn, first: first}
	c.m.attach(time.Now(), k.RTT, c.number == 0)
	c.number++
	go c.receive(c.now)
	c.startSending()
	c.setTimer()
}

// Resume goes on over another carrier, which the peer has opened and begun
// with a Resume of this number, and owns it. false means that the session does
// not want it: it is over, or has had a later one.
func (c *Conn) Resume(k Carrier, number uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isGone() || c.err != nil || number < c.number || number == 0 {
		return false
	}
	if c.now != nil {
		c.now.close()
	}
	c.m.detach(time.Now())
	c.number = number
	c.attach(k, nil)
	return true
}

// Replace goes on over a carrier that the dialling end has made while the one
// before still works, and owns it if it returns true. What was on its way on the
// old one is sent again. false means that the session does not want it: it is over or
// about to be, or has no carrier and looks for one by itself.
func (c *Conn) Replace(k Carrier) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isGone() || c.err != nil || c.now == nil || c.now.reset != nil || c.m.overSent {
		return false
	}
	first, err := wire.Resume{Token: c.cfg.Token[:], Number: c.number}.Append(nil)
	if err != nil {
		return false
	}
	c.now.close()
	c.m.change(time.Now())
	c.attach(k, first)
	return true
}

// Detach gives up the carrier that the session has: the dialling end makes another one.
func (c *Conn) Detach(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now != nil {
		c.lost(c.now, cause)
	}
}

// lost ends a carrier; the session waits for another one. Callers hold mu.
func (c *Conn) lost(k *carrier, cause error) {
	if c.now != k {
		return
	}
	k.close()
	c.now = nil
	if c.m.over() {
		c.finish()
		return
	}
	c.cause = cause
	if c.m.detach(time.Now()) {
		c.attempt = 0
	}
	if c.m.giveUp == 0 {
		c.fail(&BrokenError{Name: c.name(), Cause: cause}, nil)
		return
	}
	c.setTimer()
	if c.cfg.Redial != nil {
		go c.redial()
	}
}

// fail ends the session with an error, and where it can says reset to the peer.
// Callers hold mu.
func (c *Conn) fail(err error, reset *wire.Reset) {
	if c.isGone() || c.err != nil {
		return
	}
	if !c.m.complete() {
		c.err = err
	}
	c.m.out.clear()
	c.canRead.Broadcast()
	c.canWrite.Broadcast()
	k := c.now
	if k == nil || reset == nil {
		c.finish()
		return
	}
	k.reset = reset
	if !k.sending {
		k.sending = true
		go c.send(k)
	}
	time.AfterFunc(resetTime, func() { k.conn.Close() }) // the peer may not read
}

// finish is the end of the session. Callers hold mu.
func (c *Conn) finish() {
	if c.isGone() {
		return
	}
	if c.now != nil {
		c.now.close()
		c.now = nil
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	c.m.out.clear()
	c.m.in.clear()
	c.stop()
	close(c.gone)
	if c.cfg.Done != nil {
		go c.cfg.Done() // not under mu
	}
}

// setTimer makes sure that the timer runs out when the machine has to look at
// the time. It may run out earlier: moving it for every frame would cost more. Callers hold mu.
func (c *Conn) setTimer() {
	at := c.m.wake()
	if at.IsZero() || c.isGone() || !c.timerAt.IsZero() && !at.Before(c.timerAt) {
		return
	}
	c.timerAt = at
	if c.timer == nil {
		c.timer = time.AfterFunc(time.Until(at), c.tick)
	} else {
		c.timer.Reset(time.Until(at))
	}
}

func (c *Conn) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isGone() || c.err != nil || c.now != nil && c.now.reset != nil {
		return
	}
	c.timerAt = time.Time{}
	switch c.m.tick(time.Now()) {
	case hopeless:
		c.fail(&BrokenError{Name: c.name(), After: c.cfg.GiveUp, Cause: c.cause}, nil)
	case stalled:
		c.lost(c.now, ErrStalled)
	}
	c.startSending()
	c.setTimer()
}

// startSending makes sure that send runs. Callers hold mu.
func (c *Conn) startSending() {
	if k := c.now; k != nil && !k.sending && (c.m.hasOutput() || k.first != nil) && c.err == nil {
		k.sending = true
		go c.send(k)
	}
}

// send writes to a carrier what is there to write, then ends.
func (c *Conn) send(k *carrier) {
	var small []byte
	for {
		b, frames, err := c.output(k, small)
		if err == nil && frames == nil {
			return
		}
		if err == nil {
			_, err = k.conn.Write(frames)
		}
		c.mu.Lock()
		if b != nil {
			b.release()
		} else {
			small = frames[:0]
		}
		if err != nil && c.m.complete() && k.reset == nil {
			// The peer has closed the carrier, most likely, and its last
			// word is still to be read: receive decides.
			k.mute = true
			c.mu.Unlock()
			return
		}
		if err != nil {
			k.sending = false
			c.lostOrFailed(k, err)
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
	}
}

// output returns what to write next, and the block that it is in; nil when
// there is nothing, and then another send may be started.
func (c *Conn) output(k *carrier, small []byte) (*block, []byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.now != k:
		return nil, nil, nil
	case k.reset != nil:
		return c.lastWords(k)
	case c.m.over():
		c.finish()
		return nil, nil, nil
	}
	if first := k.first; first != nil {
		k.first = nil
		small = append(small, first...)
	}
	if c.m.hasOutput() {
		b, frames, err := c.m.next(time.Now(), small)
		if b != nil {
			b.refs++
		}
		c.setTimer()
		if len(frames) > 0 || err != nil {
			return b, frames, err
		}
	} else if len(small) > 0 {
		return nil, small, nil
	}
	k.sending = false
	return nil, nil, nil
}

// lastWords returns the Reset, then ends the session.
func (c *Conn) lastWords(k *carrier) (*block, []byte, error) {
	if k.said {
		c.finish()
		return nil, nil, nil
	}
	k.said = true
	frame, err := k.reset.Append(nil)
	return nil, frame, err
}

// lostOrFailed is what happens to a session whose carrier gave an error.
// Callers hold mu.
func (c *Conn) lostOrFailed(k *carrier, err error) {
	switch {
	case c.now != k:
	case c.err != nil || k.reset != nil:
		c.finish()
	case errors.Is(err, wire.ErrMalformed):
		// Another carrier would bring the same.
		c.fail(&BrokenError{Name: c.name(), Cause: err}, &wire.Reset{Code: wire.CodeMalformed, Reason: err.Error()})
	default:
		c.lost(k, err)
	}
}

// receive reads a carrier to its end.
func (c *Conn) receive(k *carrier) {
	var buf []byte
	for {
		h, err := wire.ReadHeader(k.conn, maxFrame)
		switch {
		case err != nil:
		case h.Type == wire.TypeData:
			err = c.receiveData(k, h.Len)
		case h.Len > wire.MaxHelloFrame:
			err = fmt.Errorf("%w: %v with %d bytes", wire.ErrMalformed, h.Type, h.Len)
		default:
			if cap(buf) < h.Len {
				buf = make([]byte, h.Len)
			}
			if _, err = io.ReadFull(k.conn, buf[:h.Len]); err == nil {
				err = c.receiveControl(k, h.Type, buf[:h.Len])
			}
		}
		if err != nil {
			c.mu.Lock()
			c.lostOrFailed(k, err)
			c.mu.Unlock()
			return
		}
	}
}

// maxFrame is the largest body that is taken.
const maxFrame = wire.MaxData

// errStale ends the goroutine of a carrier that was given up.
var errStale = errors.New("another carrier took over")

// receiveData reads n bytes of payload to where the user finds them.
func (c *Conn) receiveData(k *carrier, n int) error {
	c.mu.Lock()
	err := c.m.in.expect(n)
	switch {
	case c.now != k:
		err = errStale
	case err == nil && c.m.finGot && n > 0:
		err = fmt.Errorf("%w: data after a Fin", wire.ErrMalformed)
	}
	var room [2]span
	spans := room[:0]
	if err == nil && n > 0 {
		spans = c.m.in.reserve(spans, n)
	}
	c.mu.Unlock()
	for _, s := range spans {
		if err == nil {
			_, err = io.ReadFull(k.conn, s.b.buf[s.at:s.at+s.n])
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && c.now != k {
		err = errStale
	}
	if err != nil {
		c.m.in.abandon(spans)
		return err
	}
	c.m.data(time.Now(), spans)
	c.canRead.Broadcast()
	c.startSending()
	c.setTimer()
	return nil
}

// receiveControl handles all other frames. Types that it does not know are skipped.
func (c *Conn) receiveControl(k *carrier, t wire.Type, body []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now != k {
		return errStale
	}
	switch t {
	case wire.TypeFin:
		fin, err := wire.ParseFin(body)
		if err == nil {
			err = c.m.receiveFin(time.Now(), fin)
		}
		if err != nil {
			return err
		}
	case wire.TypeProgress:
		p, err := wire.ParseProgress(body)
		if err == nil {
			err = c.m.receiveProgress(time.Now(), p)
		}
		if err != nil {
			return err
		}
	case wire.TypeReset:
		reset, err := wire.ParseReset(body)
		if err != nil {
			return err
		}
		return c.wasReset(reset)
	default:
		return nil
	}
	if c.m.over() && (!k.sending || k.mute) {
		c.finish()
		return errStale
	}
	c.canRead.Broadcast()
	c.canWrite.Broadcast()
	c.startSending()
	c.setTimer()
	return nil
}

// wasReset ends the session as the peer said. Callers hold mu.
func (c *Conn) wasReset(reset wire.Reset) error {
	var err error = &ResetError{c.name(), reset}
	if reset.Code == wire.CodeBrokenStream {
		err = &BrokenError{Name: c.name(), Cause: errors.Join(c.cause, ErrLost)}
	}
	c.fail(err, nil)
	return errStale
}
