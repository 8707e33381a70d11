package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/tree"
	"github.com/ranvier-mesh/ranvier/runner"
	"github.com/ranvier-mesh/ranvier/worktypes"
	"github.com/ranvier-mesh/ranvier/worktypes/ansiblerunner"
	work "github.com/ranvier-mesh/ranvier/worktypes/remote"
)

const (
	// minContent is how many bytes are worth asking the node what it has of
	// them: less is sent sooner than an answer comes.
	minContent = 64 << 10
	// scans is how often a directory that changes while it is sent is scanned,
	// before all of it goes in the way that does not mind.
	scans = 2
)

// submit sends the job. The end of ctx stops that, and a job that was not sent
// whole is never started.
func (r *run) submit(ctx, streams context.Context, client *work.Client) (*work.Job, error) {
	for try := 0; ; try++ {
		var content *tree.Snapshot
		if try < scans && !r.o.OnlyTransmitKwargs {
			var err error
			if content, err = r.content(ctx); err != nil {
				return nil, err
			}
		} else if try == scans {
			r.whole("the directory does not stop changing")
		}
		job, err := r.submitWith(ctx, streams, client, content)
		if !errors.Is(err, tree.ErrChanged) {
			return job, err
		}
		r.o.Log.Info("sending the job again", "cause", err)
		r.unit = worktypes.NewID() // the other one has failed
		r.path.Unit = r.unit
	}
}

// whole tells why all of the job is sent.
func (r *run) whole(why string) {
	r.o.Log.Info("all of the job is sent", "cause", why)
	if r.o.Whole != nil {
		r.o.Whole(why)
	}
}

func (r *run) unkept(why string) {
	r.whole("node " + r.asked() + " keeps nothing of it for the next one: " + why)
}

// content returns what travels in pieces, nil where there is too little of it to
// ask, or too much.
func (r *run) content(ctx context.Context) (*tree.Snapshot, error) {
	snap, err := runner.Content(ctx, r.o.Options)
	switch {
	case errors.Is(err, tree.ErrTooLarge):
		r.whole(err.Error())
		return nil, nil
	case err != nil:
		return nil, err
	case snap.Bytes() < minContent:
		return nil, nil
	}
	return snap, nil
}

// key is what the content is kept under, nil where nothing of it shall be.
func (r *run) key() []byte {
	if r.o.WholeJob || r.o.ContentKey != nil {
		return r.o.ContentKey
	}
	key, err := ContentKey()
	if err != nil {
		r.whole("what was sent before could not be told apart from what others have sent: " + err.Error())
		return nil
	}
	return key
}

// submitWith sends the job, what of it can be packed while it is being packed.
func (r *run) submitWith(ctx, streams context.Context, client *work.Client, content *tree.Snapshot) (*work.Job, error) {
	var mu sync.Mutex // a connection that broke may ask late
	var packed *io.PipeReader
	input := work.Input{Sent: r.o.Sent, Again: true, Unkept: r.unkept, Payload: func(takes work.Takes) io.Reader {
		mu.Lock()
		defer mu.Unlock()
		if packed != nil {
			packed.Close()
		}
		var pack *io.PipeWriter
		packed, pack = io.Pipe()
		o := r.o.Options
		o.ContentApart, o.RawArchive, o.RawResults = takes.Tree, takes.Binary, true
		go func() { pack.CloseWithError(runner.Transmit(ctx, pack, o)) }()
		return packed
	}}
	if r.o.Sign {
		input.Sign = r.o.Identity.SignWork
	}
	if content != nil {
		input.Tree, input.Key = interruptible{content, ctx, r.o.Content}, r.key()
		input.Whole = input.Key == nil || r.o.WholeJob
	}
	spec := worktypes.Spec{ID: r.unit, Type: ansiblerunner.Name, Grants: r.o.Grants}
	if r.o.TTL > 0 {
		spec.Expires = time.Now().Add(r.o.TTL)
	}
	if r.o.Broker != nil && r.o.Broker.Node != r.o.ViaReceptor {
		spec.Node = r.o.ViaReceptor
	}
	job, err := client.SubmitInput(streams, spec, input)
	mu.Lock()
	defer mu.Unlock()
	if packed != nil {
		packed.Close()
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return job, err
}

// interruptible is content whose sending ends with ctx as well, while the
// connection goes on to say so.
type interruptible struct {
	*tree.Snapshot
	ctx  context.Context
	told func(bytes, total int64) // nil: nobody
}

// Send implements worktypes/remote.Tree.
func (i interruptible) Send(ctx context.Context, lacking func(int) bool, emit func([]byte) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(i.ctx, func() { cancel(context.Cause(i.ctx)) })()
	if i.told != nil {
		emit = i.telling(lacking, emit)
	}
	if err := i.Snapshot.Send(ctx, lacking, emit); err != nil {
		return fmt.Errorf("sending the private data directory: %w", err)
	}
	return nil
}

// telling is emit, which is called for each piece that is lacking in its order.
func (i interruptible) telling(lacking func(int) bool, emit func([]byte) error) func([]byte) error {
	var sizes []int
	var sent, total int64
	for n, p := range i.Pieces() {
		if lacking(n) {
			sizes = append(sizes, p.Size)
			total += int64(p.Size)
		}
	}
	i.told(0, total)
	return func(piece []byte) error {
		if err := emit(piece); err != nil {
			return err
		}
		if len(sizes) > 0 {
			sent += int64(sizes[0])
			sizes = sizes[1:]
		}
		i.told(sent, total)
		return nil
	}
}
