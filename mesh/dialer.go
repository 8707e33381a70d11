package mesh

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/ranvier-mesh/ranvier/mesh/link"
)

// Redial: full jitter below a bound that doubles from redialFirst to redialCap,
// and after redialPatience of failures is redialSlow.
const (
	redialFirst    = 100 * time.Millisecond
	redialCap      = 2 * time.Second
	redialSlow     = 30 * time.Second
	redialPatience = 5 * time.Minute
	dialTime       = 5 * time.Second
)

// dialer keeps a link to one configured peer.
type dialer struct {
	mesh      *Mesh
	peer      PeerConfig
	transport link.Transport
	addr      string
	tried     chan struct{} // closed when the first attempt, or its link, has ended

	mu  sync.Mutex
	err error // of the last attempt
}

// run dials until ctx ends; with Once a single time.
func (d *dialer) run(ctx context.Context) error {
	attempt := 0
	var failing time.Time // since when no attempt has succeeded
	for {
		n, err := d.dial(ctx)
		if n != nil {
			attempt, failing = 0, time.Time{}
			err = n.run(ctx)
		}
		d.note(err)
		if d.peer.Once || ctx.Err() != nil {
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
		if !sleep(ctx, redialDelay(attempt, time.Since(failing))) {
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

func (d *dialer) dial(ctx context.Context) (*neighbour, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	l, err := d.transport.Dial(ctx, d.addr)
	if err != nil {
		return nil, d.failed(ctx, err)
	}
	n, err := d.mesh.greet(ctx, l, d.peer)
	if err != nil {
		l.Close()
		return nil, d.failed(ctx, err)
	}
	return n, nil
}

// failed makes an error that people understand: "connection refused", not
// "dial tcp 127.0.0.1:1: connect: connection refused" behind the same address.
func (d *dialer) failed(ctx context.Context, err error) error {
	var op *net.OpError
	switch {
	case ctx.Err() == context.DeadlineExceeded:
		err = errors.New("no answer in " + dialTime.String())
	case errors.As(err, &op):
		err = op.Err
		if _, text, ok := strings.Cut(err.Error(), "connect: "); ok {
			err = &plainError{text, op}
		}
	}
	return &PeerError{Address: d.peer.Address, Err: err}
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
