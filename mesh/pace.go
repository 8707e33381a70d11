package mesh

import "time"

// beatBytes is more than a heartbeat takes on a link, framing included.
const beatBytes = 64

// pace says when a heartbeat is due, looked at once a tick. Ticks come a little
// early or late, and the bytes of a heartbeat are seen a tick after it was asked
// for: neither may stretch the time between two, or the other end gives the
// link up.
type pace struct {
	spoke time.Time // when a heartbeat was asked for, or more than one was seen to leave
	sent  uint64    // bytes that had left at the last tick
}

// due reports whether the link has been quiet for every; it has to be told of all
// ticks, with the number of bytes that have left so far. When it is true a
// heartbeat has to be sent.
func (p *pace) due(now time.Time, sent uint64, every time.Duration) bool {
	more := sent-p.sent > beatBytes
	p.sent = sent
	if !more && now.Sub(p.spoke) < every-heartbeat/2 {
		return false
	}
	p.spoke = now
	return !more
}
