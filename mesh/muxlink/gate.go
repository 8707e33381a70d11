package muxlink

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
)

// maxUnknown is how many bytes a peer may send until it is known: a list of
// revocations and a Hello fit.
const maxUnknown = 96 << 10

var (
	errPing    = errors.New("the peer pings with yamux, which no peer does: the mesh has its own heartbeats")
	errEarly   = errors.New("the peer opens a second stream and is not known yet")
	errUnknown = errors.New("the peer sends too much and is not known yet")
)

// gate looks at what comes before yamux does. For each ping yamux starts a
// goroutine that waits until it can answer, and it keeps what comes on streams
// that nobody has accepted: nothing bounds either but the peer's goodwill.
type gate struct {
	known  atomic.Bool
	came   int          // bytes, until the peer is known
	header [header]byte // of the next frame
	got    int          // bytes of it
	data   uint32       // of the last frame, to come
}

// The parts of yamux's header (its specification, "Framing").
const (
	typeData = 0
	typePing = 2
	flagSyn  = 1
)

// pass looks at what was read; an error ends the link.
func (g *gate) pass(p []byte) error {
	if !g.known.Load() {
		if g.came += len(p); g.came > maxUnknown {
			return errUnknown
		}
	}
	for len(p) > 0 {
		if g.data > 0 {
			n := min(uint32(len(p)), g.data)
			p, g.data = p[n:], g.data-n
			continue
		}
		n := copy(g.header[g.got:], p)
		p = p[n:]
		if g.got += n; g.got < header {
			return nil
		}
		g.got = 0
		if err := g.frame(); err != nil {
			return err
		}
	}
	return nil
}

func (g *gate) frame() error {
	flags, id, length := binary.BigEndian.Uint16(g.header[2:]), binary.BigEndian.Uint32(g.header[4:]), binary.BigEndian.Uint32(g.header[8:])
	switch g.header[1] {
	case typePing:
		return errPing
	case typeData:
		g.data = length
	}
	if flags&flagSyn != 0 && id != control && !g.known.Load() {
		return errEarly
	}
	return nil
}
