package remote

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/worktypes"
)

// Forwarder is the worktypes.Agent of a node: it stores and forwards. A unit for
// a node that is away waits here, and starts when that is back; its output is
// brought here while it comes. It is safe for use by many goroutines.
type Forwarder struct {
	// Sign and Token sign units with Spec.SignWork, as Input's; nil: not in that way.
	// They are set before the first unit.
	Sign  func(identity.WorkOrder) ([]byte, error)
	Token func(node string) (string, error)

	// Away returns nil where there is a way to a node, else what is closed when it is worth
	// another look; nil: there always is. It is set before the first unit.
	Away func(node string) <-chan struct{}

	dial DialFunc
	log  *slog.Logger

	up     chan struct{} // closed by Start
	ctx    context.Context
	cancel context.CancelFunc
	debts  sync.WaitGroup
	idle   idle

	mu     sync.Mutex
	stores map[string]string // the incarnations of nodes' stores, by node
	ended  map[string]*Job   // whose end is being written down, by unit
	closed bool
}

// DialFunc opens a stream to the work service of a node; tlsClient is what a
// unit's Spec.TLSClient says, empty for none.
type DialFunc func(ctx context.Context, node, tlsClient string) (net.Conn, error)

// NewForwarder returns a Forwarder that dials the work service of nodes. It
// begins with Start.
func NewForwarder(dial DialFunc, log *slog.Logger) *Forwarder {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	f := &Forwarder{dial: dial, log: log, up: make(chan struct{}), stores: map[string]string{}, ended: map[string]*Job{}}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

// Start says that nodes can be dialled. It is called once.
func (f *Forwarder) Start() { close(f.up) }

// Close ends what is owed; it is taken up by the next process. The Manager is
// closed before.
func (f *Forwarder) Close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.cancel()
	f.debts.Wait()
	f.idle.close()
}

// Check implements worktypes.Agent. Whether the node has the work type only the
// node knows.
func (f *Forwarder) Check(spec worktypes.Spec) error {
	if len(spec.Node) > 255 {
		return fmt.Errorf("%w: a node id of %d bytes", worktypes.ErrBadSpec, len(spec.Node))
	}
	return nil
}

// Store implements worktypes.Agent. A node that is away may come back with another
// store, and a unit is not taken for one that was sent to the store of before.
func (f *Forwarder) Store(node string) string {
	if f.away(node) != nil {
		return ""
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stores[node]
}

func (f *Forwarder) learn(node, store string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stores[node] = store
}

func (f *Forwarder) client(node, tlsClient string) *Client {
	c := &Client{
		Node: node, Keep: true, idle: &f.idle,
		Dial: func(ctx context.Context) (net.Conn, error) { return f.dial(ctx, node, tlsClient) },
	}
	if tlsClient != "" {
		c.idle = nil // they are connections of another kind
	}
	return c
}

// wait waits for Start.
func (f *Forwarder) wait(ctx context.Context) bool {
	select {
	case <-f.up:
		return true
	case <-ctx.Done():
		return false
	}
}

// pause waits before another try, longer each time, half of it by chance, and then
// until there is a way to the node. What wakes ends it early.
func (f *Forwarder) pause(ctx context.Context, node string, tries int, wake, wakeToo <-chan struct{}) bool {
	d := min(firstRetry<<min(tries, 10), lastRetry)
	timer := time.NewTimer(d/2 + rand.N(d/2))
	defer timer.Stop()
	waited := timer.C
	for {
		var back <-chan struct{}
		if waited == nil {
			if back = f.away(node); back == nil {
				return true
			}
		}
		select {
		case <-waited:
			waited = nil
		case <-back:
		case <-wake:
			return true
		case <-wakeToo:
			return true
		case <-ctx.Done():
			return false
		}
	}
}

func (f *Forwarder) away(node string) <-chan struct{} {
	if f.Away == nil {
		return nil
	}
	return f.Away(node)
}

// Owes implements worktypes.Agent.
func (f *Forwarder) Owes(o worktypes.Owed, paid func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	job := f.ended[o.ID]
	delete(f.ended, o.ID)
	f.debts.Go(func() {
		if job != nil && job.dismiss(f.ctx) == nil {
			paid()
			return
		}
		if !f.wait(f.ctx) {
			return
		}
		ctx, cancel := context.WithDeadline(f.ctx, o.Until)
		defer cancel()
		for tries := 0; ; tries++ {
			err := f.client(o.Node, "").Release(ctx, o.ID)
			if err == nil || !passing(err) { // there is no such unit, or it is not ours
				paid()
				return
			}
			if f.pause(ctx, o.Node, tries, nil, nil) {
				continue
			}
			if f.ctx.Err() == nil {
				f.log.Warn("a node was away too long to be told of the release of a work unit", "unit", o.ID, "node", o.Node, "error", err)
				paid()
			}
			return
		}
	})
}
