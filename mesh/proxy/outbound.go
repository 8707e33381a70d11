package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"time"

	"golang.org/x/time/rate"
)

// Outbound leads the streams of a service to an address. Make it with
// NewOutbound; its methods may be called from several goroutines.
type Outbound struct {
	cfg    OutboundConfig
	room   slots
	rarely *rate.Sometimes
}

// OutboundConfig says where streams are led.
type OutboundConfig struct {
	// Network and Address are those of net.Dial: tcp or unix.
	Network, Address string
	// Server is the TLS within the stream, Client that of the address; nil: none.
	Server, Client *tls.Config
	Log            *slog.Logger // with the service and the address
}

// NewOutbound makes an Outbound. Addresses are looked up with each stream.
func NewOutbound(cfg OutboundConfig) *Outbound {
	return &Outbound{cfg: cfg, room: make(slots, maxConns), rarely: sparingly()}
}

// Handle connects a stream and returns when it is over, or ctx has ended. The
// other end is told where the address does not answer.
func (o *Outbound) Handle(ctx context.Context, stream Stream) {
	log := o.cfg.Log.With("from", stream.RemoteAddr())
	if !o.room.take() {
		o.refuse(log, stream, errBusy)
		return
	}
	defer o.room.give()
	within, err := server(ctx, stream, o.cfg.Server)
	if err != nil {
		o.refuse(log, stream, err)
		return
	}
	conn, local, err := o.dial(ctx)
	if err != nil {
		o.refuse(log, stream, err)
		return
	}
	tellEnd(log, bridge(ctx, meshSide(stream, within), hostSide(conn, local)))
}

func (o *Outbound) refuse(log *slog.Logger, stream Stream, err error) {
	o.rarely.Do(func() { log.Warn("a stream cannot be led on", "err", err) })
	stream.Reset(resetCode, err.Error())
}

func (o *Outbound) dial(ctx context.Context) (net.Conn, *tls.Conn, error) {
	d := net.Dialer{Timeout: dialTime, KeepAlive: 15 * time.Second}
	conn, err := d.DialContext(ctx, o.cfg.Network, o.cfg.Address)
	if err != nil {
		return nil, nil, err
	}
	local, err := client(ctx, conn, o.cfg.Client)
	if err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("%s: %w", o.cfg.Address, err)
	}
	return conn, local, nil
}
