package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Inbound leads the connections of a listener to a service of the mesh. Its
// fields are not changed once it serves.
type Inbound struct {
	Dial Dial
	// Server is the TLS of the listener's connections, Client that within the
	// stream; nil: none.
	Server, Client *tls.Config
	Log            *slog.Logger // with the node and service, and the address
}

// Serve takes connections until ctx ends, then closes the listener, cuts what
// goes on and returns when all is over. It returns nil, or why the listener is of
// no use any more.
func (in *Inbound) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	room, rarely := make(slots, maxConns), sparingly()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			// Out of descriptors, most likely: the node goes on with what it has.
			in.Log.Error("accept failed", "err", err)
			if !sleep(ctx, time.Second) {
				return nil
			}
			continue
		}
		if !room.take() {
			rarely.Do(func() { in.Log.Warn("a connection is turned away", "from", conn.RemoteAddr(), "err", errBusy) })
			conn.Close()
			continue
		}
		all.Go(func() {
			defer room.give()
			err := in.serve(ctx, conn)
			if refused := (*unopened)(nil); errors.As(err, &refused) {
				rarely.Do(func() { in.Log.Warn("a connection cannot be led on", "from", conn.RemoteAddr(), "err", err) })
				return
			}
			tellEnd(in.Log, err)
		})
	}
}

// unopened says that a bridge did not come about.
type unopened struct{ error }

func (u *unopened) Unwrap() error { return u.error }

func (in *Inbound) serve(ctx context.Context, conn net.Conn) error {
	local, err := server(ctx, conn, in.Server)
	if err != nil {
		conn.Close()
		return fmt.Errorf("from this host: %w", err)
	}
	host := hostSide(conn, local)
	stream, err := in.Dial(ctx)
	if err != nil {
		host.abort(err)
		return &unopened{err}
	}
	within, err := client(ctx, stream, in.Client)
	if err != nil {
		host.abort(err)
		stream.Reset(resetCode, err.Error())
		return &unopened{err}
	}
	return bridge(ctx, host, meshSide(stream, within))
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
