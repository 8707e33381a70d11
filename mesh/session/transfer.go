package session

import (
	"fmt"
	"io"

	"github.com/ranvier-mesh/ranvier/internal/wire"
)

// startSending makes sure that send runs. Callers hold mu.
func (c *Conn) startSending() {
	if !c.sending && (len(c.out) > 0 || c.finOwed) {
		c.sending = true
		go c.send()
	}
}

// send writes to the carrier what is there to write, then ends.
func (c *Conn) send() {
	var small []byte
	for {
		chunk, fin, ok := c.nextOut()
		switch {
		case !ok:
			return
		case chunk != nil:
			_, err := c.carrier.Write(chunk.frame())
			chunk.free()
			if err != nil {
				c.fail(&BrokenError{c.name, err})
				return
			}
		default:
			frame, err := fin.Append(small[:0])
			if err == nil {
				_, err = c.carrier.Write(frame)
			}
			if err != nil {
				c.fail(&BrokenError{c.name, err})
				return
			}
			small = frame
			c.finWritten()
		}
	}
}

// nextOut takes the next chunk or Fin to write; ok is false when there is
// nothing, and then another send may be started.
func (c *Conn) nextOut() (chunk *chunk, fin wire.Fin, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil || c.peerGone:
		return nil, fin, false
	case len(c.out) > 0:
		chunk = c.out[0]
		c.out[0] = nil
		c.out = c.out[1:]
		c.canWrite.Broadcast()
		return chunk, fin, true
	case c.finOwed:
		c.finOwed = false
		return nil, wire.Fin{Offset: c.written, Closed: c.closed}, true
	}
	c.sending = false
	return nil, fin, false
}

func (c *Conn) finWritten() {
	c.mu.Lock()
	c.finSent = true
	over := c.finGot
	c.mu.Unlock()
	if over {
		c.closeCarrier()
	}
}

// receive reads the carrier to its end.
func (c *Conn) receive() {
	var got uint64
	buf := make([]byte, 0, 64)
	for {
		h, err := wire.ReadHeader(c.carrier, wire.MaxData)
		if err != nil {
			c.carrierEnded(err)
			return
		}
		if h.Type == wire.TypeData {
			if err := c.receiveData(h.Len); err != nil {
				c.fail(&BrokenError{c.name, err})
				return
			}
			got += uint64(h.Len)
			continue
		}
		if h.Len > wire.MaxHelloFrame {
			c.fail(&BrokenError{c.name, fmt.Errorf("%w: type %#x with %d bytes", wire.ErrMalformed, h.Type, h.Len)})
			return
		}
		if cap(buf) < h.Len {
			buf = make([]byte, h.Len)
		}
		if _, err := io.ReadFull(c.carrier, buf[:h.Len]); err != nil {
			c.fail(&BrokenError{c.name, err})
			return
		}
		if over := c.receiveControl(h.Type, buf[:h.Len], got); over {
			return
		}
	}
}

// carrierEnded is where a carrier's end is judged: it is clean only when both
// directions have ended before.
func (c *Conn) carrierEnded(err error) {
	c.mu.Lock()
	clean := c.finGot && (c.finSent || c.peerGone)
	c.mu.Unlock()
	if clean {
		c.closeCarrier()
		return
	}
	c.fail(&BrokenError{c.name, err})
}

// receiveData reads n bytes of payload. The buffer is taken only once there is
// room, so that a stream whose reader is slow holds at most maxChunks.
func (c *Conn) receiveData(n int) error {
	c.mu.Lock()
	for len(c.in) == maxChunks && !c.closed && c.err == nil {
		c.canRead.Wait()
	}
	fin, err := c.finGot, c.err
	c.mu.Unlock()
	if err != nil {
		return err
	}
	if fin {
		return fmt.Errorf("%w: data after FIN", wire.ErrMalformed)
	}
	chunk := newChunk()
	if err := chunk.readFrom(c.carrier, n); err != nil {
		chunk.free()
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || n == 0 {
		chunk.free()
		return nil
	}
	c.in = append(c.in, chunk)
	c.canRead.Broadcast()
	return nil
}

// receiveControl handles Fin and Reset; it tells whether the Conn is over.
// Types that it does not know are skipped.
func (c *Conn) receiveControl(t wire.Type, body []byte, got uint64) (over bool) {
	switch t {
	case wire.TypeFin:
		fin, err := wire.ParseFin(body)
		if err == nil && fin.Offset != got {
			err = fmt.Errorf("%w: FIN at %d after %d bytes", wire.ErrMalformed, fin.Offset, got)
		}
		if err != nil {
			c.fail(&BrokenError{c.name, err})
			return true
		}
		return c.finReceived(fin)
	case wire.TypeReset:
		reset, err := wire.ParseReset(body)
		if err != nil {
			c.fail(&BrokenError{c.name, err})
		} else {
			c.fail(&ResetError{c.name, reset})
		}
		return true
	}
	return false
}

func (c *Conn) finReceived(fin wire.Fin) (over bool) {
	c.mu.Lock()
	c.finGot = true
	if fin.Closed && !c.peerGone {
		c.peerGone = true
		for _, k := range c.out {
			k.free()
		}
		c.out, c.finOwed = nil, false
	}
	over = c.finSent || c.peerGone
	c.canRead.Broadcast()
	c.canWrite.Broadcast()
	c.mu.Unlock()
	if over {
		c.closeCarrier()
	}
	return over
}
