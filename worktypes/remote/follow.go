package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/worktypes"
)

// follow sends a unit's output and states as they come, the terminal state after
// the last byte, and then waits for the client to release the unit or to go.
func (x *exchange) follow(id string, offset int64) error {
	res, err := x.s.m.Results(x.ctx, id, offset)
	if err != nil {
		return x.refuse(err)
	}
	defer res.Close()
	return x.accompany(id, func() error { return x.copy(res) })
}

// watch is follow without the output.
func (x *exchange) watch(id string) error {
	states, err := x.s.m.Watch(x.ctx, id)
	if err != nil {
		return x.refuse(err)
	}
	return x.accompany(id, func() error {
		var last worktypes.Status
		for last = range states {
		}
		if !last.State.Terminal() {
			return worktypes.ErrClosed
		}
		return nil
	})
}

// accompany sends a unit's states while output, which returns nil at the unit's end,
// sends what else there is.
func (x *exchange) accompany(id string, output func() error) error {
	watchCtx, stopWatch := context.WithCancel(x.ctx)
	states, err := x.s.m.Watch(watchCtx, id)
	if err != nil {
		stopWatch()
		return x.refuse(err)
	}
	release, forwarded := make(chan struct{}, 1), make(chan struct{})
	var ended atomic.Bool // the terminal state is on its way
	var helpers sync.WaitGroup
	helpers.Go(func() { x.listen(id, &ended, release) })
	helpers.Go(func() { defer close(forwarded); x.forward(states) })
	defer helpers.Wait()
	defer func() {
		if !x.again {
			x.conn.Close() // ends listen, and forward where it writes
		}
	}()
	defer stopWatch() // ends forward where it waits

	if err := output(); err != nil {
		if x.ctx.Err() != nil {
			return fmt.Errorf("the client of unit %s went away: %w", id, x.ctx.Err())
		}
		stopWatch()
		<-forwarded
		return x.refuseFollowed(err)
	}
	<-forwarded // the end of the output is the unit's: the states have ended
	st, err := x.s.m.Status(id)
	if err != nil { // released meanwhile, by somebody else
		return x.refuseFollowed(err)
	}
	ended.Store(true)
	if err := x.send(typeStatus, statusToWire(st)); err != nil {
		return err
	}
	select {
	case <-release:
		about := x.about(id)
		err := x.s.m.Release(x.ctx, id)
		if errors.Is(err, worktypes.ErrUnknownUnit) {
			err = nil // that is what was wanted
		}
		x.auditAbout("release", about, err)
		if err != nil {
			return x.refuse(err)
		}
		return x.done(nil)
	case <-x.ctx.Done():
		return nil
	}
}

// refuseFollowed is refuse while listen reads the connection: it waits for the
// client to go, who was told.
func (x *exchange) refuseFollowed(err error) error {
	x.log.Info("work results ended", "error", err)
	if err := x.send(typeRefusal, refusalMsg{Code: codeOf(err), Reason: cut(err.Error())}); err != nil {
		return err
	}
	<-x.ctx.Done()
	return err
}

// copy sends the output until it ends.
func (x *exchange) copy(res *worktypes.Results) error {
	for {
		if err := res.Wait(); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		if err := x.copyFrame(res); err != nil && err != io.EOF {
			return err
		}
	}
}

// copyFrame sends one frame of output.
func (x *exchange) copyFrame(res *worktypes.Results) error {
	buf := takeBuffer()
	defer buffers.Put(buf)
	frame := *buf
	n, err := res.Read(frame[wire.HeaderLen:])
	if err != nil {
		return err
	}
	wire.AppendHeader(frame[:0], wire.TypeData, n)
	err = x.writeFrame(frame[:wire.HeaderLen+n])
	if err != nil {
		x.gone()
	}
	return err
}

// forward is the goroutine that sends the states on the way to the last, which
// follow sends after the output.
func (x *exchange) forward(states <-chan worktypes.Status) {
	for st := range states {
		if st.State.Terminal() {
			continue
		}
		if err := x.send(typeStatus, statusToWire(st)); err != nil {
			x.gone()
		}
	}
}

// listen is the goroutine that reads what the client says while it follows, up to
// its Release after the terminal state. When the client goes before, the connection
// is of no use to anybody.
func (x *exchange) listen(id string, ended *atomic.Bool, release chan<- struct{}) {
	var buf []byte
	for {
		t, body, err := readSmall(x.conn, buf)
		if err != nil {
			x.gone()
			return
		}
		buf = body
		switch t {
		case typeCancel:
			x.log.Info("cancel of a work unit", "unit", id)
			err := x.s.m.Cancel(id)
			x.auditAside("cancel", id, err)
			if err != nil {
				x.log.Info("cancel of a work unit refused", "unit", id, "error", err)
			}
		case typeRelease:
			if !ended.Load() {
				x.log.Info("release of a work unit before its end: the client hangs up", "unit", id)
				x.gone()
				return
			}
			release <- struct{}{}
			return
		}
	}
}
