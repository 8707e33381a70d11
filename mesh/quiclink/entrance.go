package quiclink

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/time/rate"

	"github.com/ranvier-mesh/ranvier/internal/admission"
)

// entrance bounds the connections of a listener until they are accepted, which
// is when the peer has proved who it is.
type entrance struct {
	places *admission.Places
	known  *rate.Limiter
	log    *slog.Logger
	told   rate.Sometimes
}

func newEntrance(log *slog.Logger) *entrance {
	return &entrance{
		places: admission.New(maxHandshakes, maxHandshakes), known: rate.NewLimiter(unproven, unproven),
		log: log, told: rate.Sometimes{Interval: time.Minute},
	}
}

// prove tells whether a new connection has to prove its address first.
func (e *entrance) prove(net.Addr) bool { return e.places.Taken() >= proofFrom || !e.known.Allow() }

// placeKey finds the way out of the entrance in a connection's context.
type placeKey struct{}

// enter gives a new connection a place, or refuses it. A connection cannot be
// ended by us before its handshake is over, so none is for a later one.
func (e *entrance) enter(ctx context.Context, peer *quic.ClientInfo) (context.Context, error) {
	place := e.places.Ask(peer.RemoteAddr)
	if place == nil {
		e.told.Do(func() {
			e.log.Warn("too many peers connect at once over QUIC; some are turned away", "from", peer.RemoteAddr)
		})
		return nil, errCrowded
	}
	leave := func() { e.places.Leave(place) }
	context.AfterFunc(ctx, leave) // the handshake failed, or took too long
	return context.WithValue(ctx, placeKey{}, leave), nil
}

// leave gives the place of a connection back that was accepted.
func leave(conn *quic.Conn) {
	if out, ok := conn.Context().Value(placeKey{}).(func()); ok {
		out()
	}
}
