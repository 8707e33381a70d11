package mesh

import (
	"net"
	"sync"

	"github.com/ranvier-mesh/ranvier/internal/wire"
)

// The first words of the two ends travel within Open and Answer (early, in
// docs/protocol.md section 6.1): the handshake inside a stream costs no round
// trip of its own. Both types below are net.Conns that do so for crypto/tls.

// opening opens its stream with the first Write.
type opening struct {
	net.Conn // nil until then
	open     func(early []byte) (net.Conn, wire.Answer, error)
	answer   wire.Answer
	err      error // of open
	early    []byte

	mu     sync.Mutex
	closed bool
}

func (o *opening) Write(p []byte) (int, error) {
	if o.Conn != nil {
		return o.Conn.Write(p)
	}
	n := min(len(p), wire.MaxEarly)
	conn, answer, err := o.open(p[:n])
	if err != nil {
		o.err = err
		return 0, err
	}
	o.mu.Lock()
	o.Conn, o.answer, o.early = conn, answer, answer.Early
	if o.closed {
		end(conn)
	}
	o.mu.Unlock()
	if n < len(p) {
		_, err = conn.Write(p[n:])
	}
	return len(p), err
}

func (o *opening) Read(p []byte) (int, error) {
	if len(o.early) > 0 {
		n := copy(p, o.early)
		o.early = o.early[n:]
		return n, nil
	}
	return o.Conn.Read(p)
}

// Close may be called while open is waiting; whoever calls it ends that too.
func (o *opening) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	if o.Conn != nil {
		end(o.Conn)
	}
	return nil
}

// answering accepts its stream with the first Write, or when there is nothing
// more to read before that.
type answering struct {
	net.Conn
	early    []byte // of the Open
	answer   func(early []byte) error
	answered bool
}

func (a *answering) Write(p []byte) (int, error) {
	if a.answered {
		return a.Conn.Write(p)
	}
	n := min(len(p), wire.MaxEarly)
	a.answered = true
	err := a.answer(p[:n])
	if err == nil && n < len(p) {
		_, err = a.Conn.Write(p[n:])
	}
	return len(p), err
}

func (a *answering) Read(p []byte) (int, error) {
	if len(a.early) > 0 {
		n := copy(p, a.early)
		a.early = a.early[n:]
		return n, nil
	}
	if !a.answered {
		a.answered = true
		if err := a.answer(nil); err != nil {
			return 0, err
		}
	}
	return a.Conn.Read(p)
}

// Close ends who waits in Read too.
func (a *answering) Close() error {
	end(a.Conn)
	return nil
}
