package remote

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/worktypes"
)

const (
	// firstRetry and lastRetry bound the pause before a connection is tried
	// again; half of it is chance, so that many do not come at once.
	firstRetry = 50 * time.Millisecond
	lastRetry  = 2 * time.Second
)

// passing reports whether an error is one of the way, or of a node that is about
// to be started again: what will be different later.
func passing(err error) bool {
	for _, lasting := range []error{wire.ErrMalformed, worktypes.ErrBadPayload, worktypes.ErrUnknownUnit, worktypes.ErrForbidden, identity.ErrRevoked} {
		if errors.Is(err, lasting) {
			return false
		}
	}
	var refused *Refusal
	if errors.As(err, &refused) {
		return refused.Code == CodeClosed || refused.Code == CodeBusy
	}
	return true
}

// retry calls try until it succeeds, its error does not pass, the client's
// Patience is over or ctx is. It returns the last error of try.
func (c *Client) retry(ctx context.Context, try func(context.Context) error) error {
	whole := ctx
	if c.Patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Patience)
		defer cancel()
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
		err := try(ctx)
		if err == nil || !passing(err) {
			return err
		}
		if whole.Err() != nil {
			return context.Cause(whole)
		}
		if c.Waiting != nil {
			c.Waiting(err)
		}
		timer.Reset(pause/2 + rand.N(pause/2))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return err
		}
	}
}

// reattach goes on with a job whose connection broke. It returns broken when
// that is given up.
func (j *Job) reattach(broken error) error {
	if j.c.Patience == 0 || !passing(broken) {
		return broken
	}
	j.call().close()
	if j.c.Waiting != nil {
		j.c.Waiting(broken)
	}
	var k *call
	err := j.c.retry(j.ctx, func(ctx context.Context) (err error) {
		if k, err = j.c.begin(ctx, j.ID, typeFollow, unitMsg{ID: j.ID, Offset: j.Offset()}); err != nil {
			return err
		}
		head, err := k.in.Peek(wire.HeaderLen)
		if err != nil {
			return k.fail(ctx, err)
		}
		if wire.Type(head[wire.HeaderLen-1]) == typeRefusal {
			_, _, err := k.next(ctx)
			return err
		}
		if !k.stop() {
			return k.fail(ctx, context.Cause(ctx))
		}
		return nil
	})
	if j.ctx.Err() != nil {
		if err == nil {
			k.close()
		}
		return broken
	}
	if err != nil {
		if passing(err) {
			return broken
		}
		return err
	}
	j.mu.Lock()
	j.k, j.rest = k, 0
	canceled := j.canceled
	j.mu.Unlock()
	if j.ctx.Err() != nil { // closed just now
		k.close()
		return broken
	}
	if canceled {
		_ = k.send(typeCancel, unitMsg{}) // the reader finds out
	}
	return nil
}
