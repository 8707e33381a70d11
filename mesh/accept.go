package mesh

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/admission"
	"github.com/ranvier-mesh/ranvier/mesh/link"
)

// boundListener is a listener and its settings.
type boundListener struct {
	part
	link.Listener
	mesh   *Mesh
	cfg    atomic.Pointer[ListenerConfig]
	scheme string
}

func (m *Mesh) bind(ctx context.Context, cfg ListenerConfig) (*boundListener, error) {
	transport, addr, err := m.transport(cfg.Address, cfg.Options)
	if err != nil {
		return nil, err
	}
	l, err := transport.Listen(ctx, addr)
	if err != nil {
		return nil, &ListenError{cfg.Address, err}
	}
	scheme, _, _ := strings.Cut(cfg.Address, "://")
	b := &boundListener{part: newPart(cfg.Address), Listener: l, mesh: m, scheme: scheme}
	b.cfg.Store(&cfg)
	return b, nil
}

// bound is where the listener really is.
func (l *boundListener) bound() string { return l.scheme + "://" + l.Addr().String() }

// run takes links until the listener is closed, and returns when all of them
// have ended. Each is greeted and lives in a goroutine of its own, so that a slow
// peer holds up nobody.
func (l *boundListener) run(ctx context.Context) error {
	var links sync.WaitGroup
	defer links.Wait()
	m := l.mesh
	m.log.Info("listening", "address", l.bound())
	unknown, strangers := admission.New(maxHandshakes, maxHandshakes), newBounded(m.log, strangerLines, strangerBurst)
	for {
		k, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			// Out of descriptors, most likely: the node goes on with the links it has.
			m.log.Error("accept failed", "address", l.Addr(), "err", err)
			if !sleep(ctx, time.Second) {
				return nil
			}
			continue
		}
		place := unknown.Enter(k.RemoteAddr(), func() {
			strangers.warn("too many peers connect at once; one is turned away", "from", k.RemoteAddr())
			go k.Close() // its goroutine below ends with it
		})
		links.Go(func() {
			defer k.Close()
			n, err := m.welcomed(ctx, k, *l.cfg.Load())
			unknown.Leave(place)
			if errors.Is(err, link.ErrOther) {
				return
			}
			if err != nil {
				strangers.warn("a peer was not let in", "from", k.RemoteAddr(), "err", err)
				return
			}
			n.part = &l.part
			n.run(ctx) // its end is logged there
		})
	}
}

func (m *Mesh) welcomed(ctx context.Context, k link.Link, cfg ListenerConfig) (*neighbour, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	return m.welcome(ctx, k, cfg)
}

// sleep waits for d; it returns false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
