package mesh

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/mesh/link"
)

// Redial: full jitter below a bound that doubles from redialFirst to redialCap,
// and after redialPatience of failures is redialSlow. A link that did not last
// for steadyTime is a failure too: its peer may accept it and end it for ever.
const (
	redialFirst    = 100 * time.Millisecond
	redialCap      = 2 * time.Second
	redialSlow     = 30 * time.Second
	redialPatience = 5 * time.Minute
	steadyTime     = 10 * time.Second
	dialTime       = 5 * time.Second
)

// dialer keeps a link to one configured peer.
type dialer struct {
	part
	mesh  *Mesh
	peer  atomic.Pointer[PeerConfig]
	ways  []way         // the best first
	tried chan struct{} // closed when the first attempt, or its link, has ended

	worked string    // the address that led to the peer the last time; owned by run
	at     time.Time // when it did

	mu  sync.Mutex
	err error // of the last attempt
}

// way is one address of a peer.
type way struct {
	address   string // scheme://addr
	transport link.Transport
	addr      string
}

func (m *Mesh) newDialer(p PeerConfig) (*dialer, error) {
	d := &dialer{part: newPart(p.Address), mesh: m, tried: make(chan struct{})}
	d.peer.Store(&p)
	for _, address := range p.all() {
		transport, addr, err := m.transport(address, p.Options)
		if err != nil {
			return nil, err
		}
		d.ways = append(d.ways, way{address, transport, addr})
	}
	slices.SortStableFunc(d.ways, func(a, b way) int { return cmp.Compare(preference(a.address), preference(b.address)) })
	return d, nil
}

// all returns every address of the peer.
func (p PeerConfig) all() []string {
	return append([]string{p.Address}, p.Addresses...)
}

// preference orders addresses: QUIC does best where UDP passes, and a
// WebSocket is for where nothing else does.
func preference(address string) int {
	switch scheme, _, _ := strings.Cut(address, "://"); scheme {
	case "quic":
		return 0
	case "ws", "wss":
		return 2
	}
	return 1
}

// run dials until ctx ends; with Once a single time.
func (d *dialer) run(ctx context.Context) error {
	attempt, brief := 0, 0 // brief: links in a row that did not last
	var failing time.Time  // since when no link has lasted
	for {
		n, err := d.dial(ctx)
		if n != nil {
			start := time.Now()
			err = n.run(ctx)
			if time.Since(start) >= steadyTime {
				brief, failing = 0, time.Time{}
			}
			attempt = brief
			brief++
		}
		d.note(err)
		if d.peer.Load().Once || ctx.Err() != nil {
			return nil
		}
		if superseded(err) {
			d.waitForOther(ctx, err)
		} else if n == nil {
			d.log(attempt, err)
		}
		if failing.IsZero() {
			failing = time.Now()
		}
		delay := redialDelay(attempt, time.Since(failing))
		if d.mesh.cutOff() != nil { // until it has joined anew
			delay = redialSlow
		}
		if !sleep(ctx, delay) {
			return nil
		}
		attempt++
	}
}

func redialDelay(attempt int, failing time.Duration) time.Duration {
	bound := redialCap
	if attempt < 5 {
		bound = min(bound, redialFirst<<attempt)
	}
	if failing > redialPatience {
		bound = redialSlow
	}
	return rand.N(bound)
}

// dial makes a link over the first of the ways that leads to the peer. The one
// that did is tried first the next time. An error joins a *PeerError for each way.
func (d *dialer) dial(ctx context.Context) (*neighbour, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	r := startRace(ctx, d.order(time.Now()))
	defer r.end()
	var errs []error
	for {
		a, ok := r.next()
		if !ok {
			return nil, errors.Join(errs...)
		}
		n, err := d.greet(ctx, a, r.more())
		if err == nil {
			d.worked, d.at = a.way.address, time.Now()
			return n, nil
		}
		errs = append(errs, d.failed(ctx, a.way, err))
		if refused := (*RefusedError)(nil); errors.As(err, &refused) || errors.Is(err, identity.ErrRevoked) {
			return nil, errs[len(errs)-1] // by the peer itself: another way would not do better
		}
	}
}

// greetTime is what a peer gets to say Hello where there are other ways: a
// middlebox may accept a connection and then let nothing through.
const greetTime = 2 * time.Second

func (d *dialer) greet(ctx context.Context, a attempt, more bool) (*neighbour, error) {
	if a.err != nil {
		return nil, a.err
	}
	if more {
		short, cancel := context.WithTimeout(ctx, greetTime)
		defer cancel()
		ctx = short
	}
	n, err := d.mesh.greet(ctx, a.link, *d.peer.Load())
	if err != nil {
		a.link.Close()
		return nil, err
	}
	n.part = &d.part
	return n, nil
}

// memory is for how long a way that worked is tried before better ones: what
// kept those from working is over some day.
const memory = 10 * time.Minute

// order lists the ways as they are to be tried.
func (d *dialer) order(now time.Time) []way {
	i := slices.IndexFunc(d.ways, func(w way) bool { return w.address == d.worked })
	if i < 1 || now.Sub(d.at) > memory {
		return d.ways
	}
	return slices.Concat(d.ways[i:i+1], d.ways[:i], d.ways[i+1:])
}

// failed makes an error that people understand: "connection refused", not
// "dial tcp 127.0.0.1:1: connect: connection refused" behind the same address.
func (d *dialer) failed(ctx context.Context, w way, err error) error {
	var op *net.OpError
	switch {
	case ctx.Err() == context.DeadlineExceeded:
		err = errors.New("no answer in " + dialTime.String())
	case errors.As(err, &op):
		err = op.Err
		for _, call := range []string{"connect: ", "sendmsg: ", "recvmsg: "} {
			if _, text, ok := strings.Cut(err.Error(), call); ok {
				err = &plainError{text, op}
			}
		}
	}
	return &PeerError{Address: w.address, Err: err}
}

// plainError says err in fewer words.
type plainError struct {
	text string
	err  error
}

func (e *plainError) Error() string { return e.text }
func (e *plainError) Unwrap() error { return e.err }

// waitForOther waits while another link to the same node is up.
func (d *dialer) waitForOther(ctx context.Context, err error) {
	var refused *RefusedError
	if !errors.As(err, &refused) {
		return
	}
	if other := d.mesh.neighbour(cmp.Or(refused.peer, refused.Node)); other != nil {
		select {
		case <-other.gone:
		case <-ctx.Done():
		}
	}
}

// log tells the first failure loudly and the following ones for who debugs.
func (d *dialer) log(attempt int, err error) {
	if attempt == 0 {
		d.mesh.log.Warn("peer not reached; trying again and again", "err", err)
	} else {
		d.mesh.log.Debug("peer not reached", "attempt", attempt+1, "err", err)
	}
}

// note remembers how the last attempt ended.
func (d *dialer) note(err error) {
	d.mu.Lock()
	d.err = err
	d.mu.Unlock()
	select {
	case <-d.tried:
	default:
		close(d.tried)
	}
}

func (d *dialer) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}
