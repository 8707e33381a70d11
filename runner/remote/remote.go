// Package remote runs ansible-runner jobs on another node of a mesh: it
// attaches an ephemeral node, sends the job any number of hops away, and brings
// events, artifacts and the exit code back.
//
// A job's way: runner.Transmit writes it into a pipe, worktypes/remote carries
// that to the node's work service, the node's ansible-runner work type runs it,
// and runner.Process reads what comes back on the same stream.
package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/session"
	"github.com/ranvier-mesh/ranvier/mesh/tcplink"
	"github.com/ranvier-mesh/ranvier/routing"
	"github.com/ranvier-mesh/ranvier/runner"
	"github.com/ranvier-mesh/ranvier/worktypes"
	work "github.com/ranvier-mesh/ranvier/worktypes/remote"
)

// Options is a job and where it runs.
type Options struct {
	// Options is the job, as for runner.Transmit, but for ArtifactDir: the results
	// are in the run's directory there on this machine, a relative one below
	// PrivateDataDir.
	runner.Options
	// Process says what is done with the results; its PrivateDataDir and Ident
	// are filled in from the job where they are empty.
	Process runner.ProcessOptions

	// ViaReceptor is the id of the node that the job runs on.
	ViaReceptor string
	// Broker, where it is not nil, is a node that the job is handed to: it has it
	// done by ViaReceptor, also when that is away now, or when this process is gone.
	// No ephemeral node is made then.
	Broker *Broker
	// ReceptorPeer are the addresses of nodes to attach to (PeerAddress);
	// DefaultPeer where there are none. All are tried at the same time.
	ReceptorPeer []string
	// ReceptorNodeID is the id of the ephemeral node; empty: one that nobody
	// else has.
	ReceptorNodeID string
	// Identity is the user's; nil: none. Transports have to carry its TLS.
	Identity *identity.Self
	// Sign has Identity sign the job (docs/security.md section 9).
	Sign bool
	// TTL is how long the job may wait for its start; 0: for ever.
	TTL time.Duration
	// Grants are identities that may also see and end the job.
	Grants []string
	// Transports makes links; nil: TCP.
	Transports map[string]link.Transport
	// ConnectTimeout is how long a peer may take to answer; 0: 5 s.
	ConnectTimeout time.Duration
	// CancelTimeout is how long a canceled job may take to end and to send
	// what it has; 0: 20 s.
	CancelTimeout time.Duration
	// Reattach is how long a job is tried to be reached again, each time that the
	// way to it breaks or its node is started anew; 0: 2 minutes; less: not at
	// all.
	Reattach time.Duration

	// WholeJob sends all of the job, whatever the node has of it already, and
	// leaves nothing there for the next one.
	WholeJob bool
	// ContentKey is what this submitter's content is kept under on nodes, 16 to
	// 64 bytes that nobody else has; nil: the user's own (ContentKey).
	ContentKey []byte

	// Detach leaves the job as soon as it has been started; Result has its Path
	// only. Its unit stays on the node until it is released.
	Detach bool

	// Software is told to the peer, for people.
	Software string
	Log      *slog.Logger

	// The functions below, but for Attached, are called from other goroutines than
	// Run's, also while a handler of Process is at work.

	// Attached, where it is not nil, is called once the job's way is known.
	Attached func(Path)
	// Sent, where it is not nil, is called with how many bytes of the job have
	// been sent so far, from another goroutine.
	Sent func(bytes int64)
	// Content, where it is not nil, is called from there too: how many bytes of files,
	// as they are on the disk, have been sent of those that the node lacks. It is not
	// where the job is sent whole: what is packed on the way is counted by nobody before.
	Content func(bytes, total int64)
	// Whole, where it is not nil, is told why all of the job is sent though WholeJob did
	// not ask for that, and will be the next time: the node keeps nothing of it, say.
	Whole func(why string)
	// Waiting, where it is not nil, is told why the job cannot be reached, each time
	// before it is tried again.
	Waiting func(err error)
	// Pending, where it is not nil, is told what a job that has not begun waits
	// for: its turn, or the return of its node.
	Pending func(detail string)
	// Canceling, where it is not nil, is called when ctx has ended and the job
	// over there is being canceled.
	Canceling func()
}

// Broker is a node that passes jobs on (docs/work.md section 7).
type Broker struct {
	Node string // its id
	// Dial reaches its work service, with its own rights.
	Dial func(ctx context.Context) (net.Conn, error)
}

// Path is a job's way through the mesh.
type Path struct {
	Nodes []routing.NodeID // the ephemeral node first; empty behind a Broker
	RTT   time.Duration    // there and back, measured before the job; zero behind a Broker
	Unit  string           // the work unit on the last node, and on the Broker
	// Holder is the node from which the unit's results can be had: the Broker, else
	// the last one.
	Holder string
}

// Result is how a job ended.
type Result struct {
	runner.Result
	Path
}

// WorkError says that the work unit on the node ended badly, beyond what the
// stream of results told.
type WorkError struct {
	Node   string
	Status worktypes.Status
	Stream error // what was wrong with the stream of results; may be nil
}

// Error names the node, the unit's end and what was wrong with the stream.
func (e *WorkError) Error() string {
	if e.Stream == nil {
		return fmt.Sprintf("the job on node %s ended as %v: %s", e.Node, e.Status.State, e.Status.Detail)
	}
	return fmt.Sprintf("the job on node %s ended as %v: %s (%v)", e.Node, e.Status.State, e.Status.Detail, e.Stream)
}

// Unwrap returns what was wrong with the stream.
func (e *WorkError) Unwrap() error { return e.Stream }

// Run does the job and returns when its results are here. A play that failed is
// no error: Result tells. When ctx ends, the job is canceled over there, and
// Run returns what came back, with ctx's cause as the error unless the job had
// ended by itself.
//
// Errors, told apart with errors.As and errors.Is: *mesh.PeerError where no peer
// could be reached, *mesh.RefusedError where the target is not known or a node
// on the way refused, *worktypes/remote.Refusal where the target did not take
// the job, *worktypes/remote.BrokenError where the way broke, *WorkError where
// the job's process died, and those of runner.Transmit and runner.Process.
func Run(ctx context.Context, o Options) (Result, error) {
	if err := o.complete(); err != nil {
		return Result{}, err
	}
	r := &run{o: o, target: routing.NodeID(o.ViaReceptor), unit: worktypes.NewID()}
	if o.Broker == nil {
		node, err := o.attach(ctx)
		if err != nil {
			return Result{}, err
		}
		defer node.Close()
		r.node = node
	}
	return r.do(ctx)
}

// Async is Run in the background. The job's Cancel is the end of ctx; its Status
// follows the events as they arrive here.
func Async(ctx context.Context, o Options) *runner.Job[Result] {
	return runner.Background(ctx, o.Process, func(ctx context.Context, p runner.ProcessOptions) (Result, error) {
		o.Process = p
		return Run(ctx, o)
	})
}

// complete fills in the defaults and checks what can be checked before anything
// is connected.
func (o *Options) complete() error {
	if err := routing.NodeID(o.ViaReceptor).Validate(); err != nil {
		return fmt.Errorf("the node to run on: %w", err)
	}
	if o.ViaReceptor == o.ReceptorNodeID {
		return fmt.Errorf("the short-lived node cannot have the id %s of the node to run on", o.ViaReceptor)
	}
	if o.Sign && o.Identity == nil {
		return errors.New("the job cannot be signed without an identity")
	}
	if o.TTL < 0 {
		return fmt.Errorf("the time to wait for a start is %v: give one above zero, or 0 for no limit", o.TTL)
	}
	if o.Ident == "" {
		o.Ident = runner.NewIdent()
	}
	if err := o.Options.Check(); err != nil {
		return err
	}
	o.artifactsHere()
	if o.Process.PrivateDataDir == "" {
		o.Process.PrivateDataDir = o.PrivateDataDir
	}
	if o.Process.Ident == "" {
		o.Process.Ident = o.Ident
	}
	if o.Process.RotateArtifacts == 0 {
		o.Process.RotateArtifacts = o.RotateArtifacts
	}
	if o.ConnectTimeout == 0 {
		o.ConnectTimeout = 5 * time.Second
	}
	if o.CancelTimeout == 0 {
		o.CancelTimeout = 20 * time.Second
	}
	if o.Reattach == 0 {
		o.Reattach = 2 * time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if len(o.ReceptorPeer) == 0 {
		o.ReceptorPeer = []string{DefaultPeer}
	}
	return nil
}

// artifactsHere has the artifacts of a job where ArtifactDir says on this machine.
// On the node they are in the unit's directory, and go with it.
func (o *Options) artifactsHere() {
	dir := o.ArtifactDir
	o.ArtifactDir = ""
	if dir == "" || o.Process.ArtifactDir != "" {
		return
	}
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(o.PrivateDataDir, dir)
	}
	o.Process.ArtifactDir = filepath.Join(dir, o.Ident)
}

func (o *Options) attach(ctx context.Context) (*mesh.Attachment, error) {
	return Attach(ctx, o.ConnectTimeout, o.ReceptorPeer, mesh.Config{
		ID: routing.NodeID(o.ReceptorNodeID), Self: o.Identity, Transports: o.Transports, Software: o.Software, Log: o.Log,
		// Whoever does not want to look for the job does not want to wait for its streams.
		ResumeTime: min(o.Reattach, session.GiveUp),
	})
}

// Attach joins the mesh as an ephemeral node through peers, written as for
// PeerAddress; cfg.Transports is TCP where it is nil. Errors are those of
// PeerAddress and mesh.Attach.
func Attach(ctx context.Context, timeout time.Duration, peers []string, cfg mesh.Config) (*mesh.Attachment, error) {
	if cfg.Transports == nil {
		tcp := tcplink.Transport{}
		if cfg.Self != nil {
			tcp.ServerTLS, tcp.ClientTLS = cfg.Self.ServerTLS(), cfg.Self.ClientTLS()
		}
		cfg.Transports = map[string]link.Transport{"tcp": tcp}
	}
	for _, p := range peers {
		address, err := PeerAddress(p)
		if err != nil {
			return nil, err
		}
		cfg.Peers = append(cfg.Peers, mesh.PeerConfig{Address: address})
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer in %v", timeout))
	defer cancel()
	return mesh.Attach(ctx, cfg)
}

// run is one job on its way.
type run struct {
	o      Options
	node   *mesh.Attachment // nil: there is a Broker
	target routing.NodeID
	unit   string
	path   Path
}

func (r *run) do(ctx context.Context) (Result, error) {
	if err := r.findPath(ctx); err != nil {
		return Result{}, err
	}
	// The streams outlive ctx: a canceled job still has results to bring.
	streams, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	defer r.cutAfter(ctx, cut)()

	client := &work.Client{Dial: r.dial, Node: r.asked(), Patience: max(0, r.o.Reattach), Waiting: r.o.Waiting, Told: r.told}
	say := sync.OnceFunc(r.canceling)
	untold := context.AfterFunc(ctx, say)
	job, err := r.submit(ctx, streams, client)
	untold()
	if err != nil {
		return Result{Path: r.path}, err
	}
	defer job.Close()
	if r.o.Detach {
		return Result{Path: r.path}, nil
	}
	defer context.AfterFunc(ctx, func() { cancelJob(streams, job, say) })()
	defer context.AfterFunc(streams, func() { job.Close() })()

	result, err := runner.Process(streams, job.Results, r.o.Process)
	return r.judge(ctx, streams, job, result, err)
}

// findPath asks the target whether it is there, and so learns the way.
func (r *run) findPath(ctx context.Context) error {
	r.path = Path{Unit: r.unit, Holder: r.asked()}
	if r.node != nil {
		rtt, hops, err := r.node.Ping(ctx, r.target)
		if err != nil {
			return err
		}
		r.path.RTT = rtt
		for _, h := range hops {
			r.path.Nodes = append(r.path.Nodes, h.Node)
		}
	}
	if r.o.Attached != nil {
		r.o.Attached(r.path)
	}
	return nil
}

func (r *run) told(st worktypes.Status) {
	if r.o.Pending != nil && st.State == worktypes.Pending && st.Detail != "" {
		r.o.Pending(st.Detail)
	}
}

// asked is the node whose work service is asked.
func (r *run) asked() string {
	if r.o.Broker != nil {
		return r.o.Broker.Node
	}
	return r.o.ViaReceptor
}

func (r *run) dial(ctx context.Context) (net.Conn, error) {
	if r.o.Broker != nil {
		return r.o.Broker.Dial(ctx)
	}
	conn, err := r.node.Dial(mesh.WithJob(ctx, work.JobOf(ctx)), r.target, work.ServiceName)
	if err != nil {
		return nil, err // not conn: a nil *mesh.Conn is no nil net.Conn
	}
	return conn, nil
}

func (r *run) canceling() {
	if r.o.Canceling != nil {
		r.o.Canceling()
	}
}

// cancelJob tells the node, then the user: who is told that he may leave now
// leaves nothing running. But he shall not wait for a way that is congested.
func cancelJob(streams context.Context, job *work.Job, say func()) {
	defer time.AfterFunc(200*time.Millisecond, say).Stop()
	job.Cancel(streams)
	say()
}

// cutAfter cuts the streams some time after ctx has ended, so that nothing
// waits for ever for a node that does not answer.
func (r *run) cutAfter(ctx context.Context, cut context.CancelCauseFunc) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		time.AfterFunc(r.o.CancelTimeout, func() {
			cut(fmt.Errorf("node %s did not end the job in %v after it was canceled", r.target, r.o.CancelTimeout))
		})
	})
}

// judge puts together what the stream of results and the unit's end tell.
func (r *run) judge(ctx, streams context.Context, job *work.Job, result runner.Result, stream error) (Result, error) {
	out := Result{result, r.path}
	if lost := (*runner.LinkError)(nil); errors.As(stream, &lost) {
		return out, stream // nothing more comes
	}
	if stream != nil {
		job.Cancel(streams) // whatever it still does is of no use any more
	}
	// The unit's end is behind what the stream's last message said.
	if _, err := io.Copy(io.Discard, job.Results); err != nil && stream == nil {
		r.o.Log.Warn("the job is done, but its end was not heard; its unit may stay on the node", "node", r.target, "unit", r.unit, "err", err)
	}
	status := job.Status()
	canceled := status.State == worktypes.Canceled || result.Status == "canceled"
	switch {
	case ctx.Err() != nil && canceled:
		out.Status, out.RC = "canceled", canceledRC
		return out, context.Cause(ctx)
	case status.State == worktypes.Failed && (stream != nil || result.Status == "canceled"):
		// A worker that is interrupted calls that canceled; the unit knows
		// whether anybody wanted it.
		return out, &WorkError{Node: r.o.ViaReceptor, Status: status, Stream: stream}
	}
	return out, stream
}

// canceledRC is ansible-runner's exit code of a canceled job.
const canceledRC = 254
