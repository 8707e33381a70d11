package mesh

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ranvier-mesh/ranvier/mesh/link"
)

// maxHandshakes is how many peers of one listener may be unknown at a time;
// what comes beyond is closed at once.
const maxHandshakes = 256

// boundListener is a listener and its settings.
type boundListener struct {
	link.Listener
	mesh   *Mesh
	cfg    ListenerConfig
	scheme string
}

func (m *Mesh) bind(ctx context.Context, cfg ListenerConfig) error {
	transport, addr, err := m.transport(cfg.Address)
	if err != nil {
		return err
	}
	l, err := transport.Listen(ctx, addr)
	if err != nil {
		return &ListenError{cfg.Address, err}
	}
	scheme, _, _ := strings.Cut(cfg.Address, "://")
	m.listeners = append(m.listeners, &boundListener{Listener: l, mesh: m, cfg: cfg, scheme: scheme})
	return nil
}

// accept takes links until ctx ends; each is greeted and lives in a goroutine
// of g, so that a slow peer holds up nobody.
func (l *boundListener) accept(ctx context.Context, g *errgroup.Group) error {
	m := l.mesh
	m.log.Info("listening", "address", l.scheme+"://"+l.Addr().String())
	handshakes := make(chan struct{}, maxHandshakes)
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
		select {
		case handshakes <- struct{}{}:
		default:
			m.log.Warn("too many peers connect at once; one is turned away", "from", k.RemoteAddr())
			k.Close()
			continue
		}
		g.Go(func() error {
			defer k.Close()
			n, err := m.welcomed(ctx, k, l.cfg)
			<-handshakes
			if err != nil {
				m.log.Warn("a peer was not let in", "from", k.RemoteAddr(), "err", err)
				return nil
			}
			n.run(ctx) // its end is logged there
			return nil
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
