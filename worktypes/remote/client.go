package remote

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/routing"
	"github.com/ranvier-mesh/ranvier/worktypes"
)

// maxList is how many units List takes from a node.
const maxList = 1 << 20

// Client asks the work service of one node. Its methods may be called by any
// goroutine; each request has a connection of its own. Errors are *Refusal where
// the node said no, *BrokenError where the connection ended before the answer,
// or Dial's, wrapped.
type Client struct {
	// Dial opens a connection to the node's work service. JobOf knows of its context what
	// for.
	Dial func(ctx context.Context) (net.Conn, error)
	// Node is what the node is called in errors.
	Node string
	// Keep leaves a unit on the node when its results were read to their end;
	// else it is released then.
	Keep bool
	// Patience is how long a job whose connection breaks is tried to be reached
	// again, each time; 0: not at all.
	Patience time.Duration
	// Waiting, where it is not nil, is told each time why a job cannot be reached,
	// before it is tried again.
	Waiting func(err error)

	// Told, where it is not nil, hears a job's status each time that the node tells
	// it while Results is being read.
	Told func(worktypes.Status)

	// idle, where it is not nil, has connections that wait for the next request.
	idle *idle
}

// readAhead is what a connection's reader takes at once: a whole frame of Data.
const readAhead = wire.HeaderLen + wire.MaxData

// call is one connection.
type call struct {
	c    *Client
	id   string // the unit, for errors
	conn net.Conn
	in   *bufio.Reader
	stop func() bool // ends ctx's hold on the connection
}

// begin opens a connection and sends the request. Until call.stop, the end of
// ctx ends the connection.
func (c *Client) begin(ctx context.Context, id string, t wire.Type, msg any) (*call, error) {
	frame, err := wire.AppendMessage(nil, t, msg)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", worktypes.ErrBadSpec, err)
	}
	conn, err := c.connect(withJob(ctx, id))
	if err != nil {
		return nil, fmt.Errorf("cannot reach the work service of node %s: %w", c.Node, err)
	}
	k := &call{c: c, id: id, conn: conn, in: bufio.NewReaderSize(conn, readAhead)}
	k.stop = context.AfterFunc(ctx, func() { conn.Close() })
	if _, err := conn.Write(frame); err != nil {
		return nil, k.fail(ctx, err)
	}
	return k, nil
}

func (c *Client) connect(ctx context.Context) (net.Conn, error) {
	if c.idle != nil {
		if conn := c.idle.take(c.Node); conn != nil {
			return conn, nil
		}
	}
	return c.Dial(ctx)
}

// fail closes the connection and says what broke it.
func (k *call) fail(ctx context.Context, err error) error {
	k.stop()
	k.conn.Close()
	if k.c.idle != nil {
		k.c.idle.drop(k.c.Node) // the node may be another process now
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF // an end that nobody has announced
	}
	return &BrokenError{Node: k.c.Node, ID: k.id, Err: err}
}

func (k *call) close() {
	k.stop()
	k.conn.Close()
}

// done lets go of a connection whose request was answered.
func (k *call) done() {
	if k.c.idle != nil && k.stop() {
		k.c.idle.put(k.c.Node, k.conn)
		return
	}
	k.close()
}

// next reads a message that is not Data. A Refusal is its error.
func (k *call) next(ctx context.Context) (wire.Type, []byte, error) {
	t, body, err := readSmall(k.in, nil)
	if err != nil {
		return 0, nil, k.fail(ctx, err)
	}
	if t == typeRefusal {
		k.close()
		return 0, nil, k.c.refusal(body)
	}
	return t, body, nil
}

func (c *Client) refusal(body []byte) error {
	var m refusalMsg
	if err := wire.Unmarshal(body, &m); err != nil {
		return &BrokenError{Node: c.Node, Err: err}
	}
	return &Refusal{Node: c.Node, Code: m.Code, Reason: m.Reason}
}

// Status asks for one unit's status.
func (c *Client) Status(ctx context.Context, id string) (worktypes.Status, error) {
	return c.one(ctx, typeQuery, id)
}

// Cancel asks for the end of a unit. It returns at once with the status of that
// moment; Follow tells the end.
func (c *Client) Cancel(ctx context.Context, id string) (worktypes.Status, error) {
	return c.one(ctx, typeCancel, id)
}

func (c *Client) one(ctx context.Context, t wire.Type, id string) (worktypes.Status, error) {
	var st worktypes.Status
	err := c.statuses(ctx, t, id, func(s worktypes.Status) { st = s })
	return st, err
}

// Release removes a unit, and cancels it before where it has not ended. It
// waits for that.
func (c *Client) Release(ctx context.Context, id string) error {
	return c.statuses(ctx, typeRelease, id, func(worktypes.Status) {})
}

// List asks for the status of all units of the node, the oldest first.
func (c *Client) List(ctx context.Context) ([]worktypes.Status, error) {
	var list []worktypes.Status
	err := c.statuses(ctx, typeList, "", func(s worktypes.Status) { list = append(list, s) })
	return list, err
}

// statuses makes a request whose answer is statuses and a Done.
func (c *Client) statuses(ctx context.Context, t wire.Type, id string, each func(worktypes.Status)) error {
	k, err := c.begin(ctx, id, t, unitMsg{ID: id})
	if err != nil {
		return err
	}
	for range maxList {
		t, body, err := k.next(ctx)
		if err != nil {
			return err
		}
		switch t {
		case typeDone:
			k.done()
			return nil
		case typeStatus:
			st, err := parseStatus(body)
			if err != nil {
				return k.fail(ctx, err)
			}
			each(st)
		}
	}
	return k.fail(ctx, fmt.Errorf("%w: an answer of more than %d messages", wire.ErrMalformed, maxList))
}

// Follow reads a unit's results from offset on.
func (c *Client) Follow(ctx context.Context, id string, offset int64) (*Job, error) {
	k, err := c.begin(ctx, id, typeFollow, unitMsg{ID: id, Offset: offset})
	if err != nil {
		return nil, err
	}
	return k.job(ctx, offset)
}

// watch follows a unit's states alone: the Job's Results are empty, and end with it.
func (c *Client) watch(ctx context.Context, id string) (*Job, error) {
	k, err := c.begin(ctx, id, typeFollow, unitMsg{ID: id, Blind: true})
	if err != nil {
		return nil, err
	}
	job, err := k.job(ctx, 0)
	if err == nil {
		job.blind = true
	}
	return job, err
}

// Submit runs a unit on the node: it sends the spec and, where the node does not
// have it already, the payload (nil is an empty one), and returns when the unit
// was started or has ended. Spec.Owner is not sent: the node knows who asks. An
// empty Spec.ID is filled in. The same spec may be submitted again when the
// outcome is not known: the unit is started once.
//
// ctx counts until Submit returns. When it returns an error, payload may still
// be in one last Read; its bytes go nowhere.
func (c *Client) Submit(ctx context.Context, spec worktypes.Spec, payload io.Reader) (*Job, error) {
	return c.SubmitInput(ctx, spec, Input{Payload: func(Takes) io.Reader { return payload }})
}

// SubmitInput is Submit with more than a payload, if the node takes it.
func (c *Client) SubmitInput(ctx context.Context, spec worktypes.Spec, input Input) (*Job, error) {
	if spec.ID == "" {
		spec.ID = worktypes.NewID()
	}
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if c.Patience == 0 || !input.Again {
		return c.submitOnce(ctx, spec, input)
	}
	job, err := c.submitOnce(ctx, spec, input)
	var broken *BrokenError
	if err != nil && (errors.As(err, &broken) || errors.Is(err, worktypes.ErrClosed)) && passing(err) && ctx.Err() == nil {
		err = c.retry(ctx, func(context.Context) (err error) {
			job, err = c.submitOnce(ctx, spec, input)
			return err
		})
	}
	return job, err
}

func (c *Client) submitOnce(ctx context.Context, spec worktypes.Spec, input Input) (*Job, error) {
	m := submitMsg{
		ID: spec.ID, Type: spec.Type, Params: spec.Params, Job: spec.Job, Tree: input.Tree != nil, Key: input.Key, Whole: input.Whole,
		Store: input.Store, Grants: spec.Grants, TTL: ttl(spec.Expires), Node: spec.Node, Signed: input.Sign != nil, Token: input.Token,
	}
	if ref := input.Ref; ref != nil {
		m.Resume, m.Size, m.SHA256 = true, ref.Size, ref.SHA256[:]
	}
	k, err := c.begin(withJob(ctx, spec.Job), spec.ID, typeSubmit, m)
	if err != nil {
		return nil, err
	}
	t, body, err := k.next(ctx)
	if err != nil {
		return nil, err
	}
	var accepted acceptedMsg
	if t != typeAccepted {
		return nil, k.fail(ctx, fmt.Errorf("%w: frame type %#x in answer to a submit", wire.ErrMalformed, uint8(t)))
	}
	if err := wire.Unmarshal(body, &accepted); err != nil {
		return nil, k.fail(ctx, err)
	}
	if input.Accepted != nil {
		if err := input.Accepted(accepted.Store); err != nil {
			k.close()
			return nil, err
		}
	}
	if !accepted.WantPayload {
		return k.job(ctx, 0)
	}
	if accepted.Offset > 0 && (input.Ref == nil || accepted.Offset > input.Ref.Size) {
		return nil, k.fail(ctx, fmt.Errorf("%w: %d bytes of the payload are there that nobody has sent", wire.ErrMalformed, accepted.Offset))
	}
	input.from, input.binary = accepted.Offset, accepted.Binary
	input.order = identity.WorkOrder{Unit: spec.ID, Node: routing.NodeID(c.Node), Store: accepted.Store, Type: spec.Type, Params: spec.Params}
	if input.Tree == nil || !accepted.WantTree {
		return k.newUpload(ctx, input).run(nil)
	}
	return k.offer(ctx, input)
}

func (k *call) send(t wire.Type, msg any) error {
	frame, err := wire.AppendMessage(nil, t, msg)
	if err != nil {
		return err
	}
	_, err = k.conn.Write(frame)
	return err
}
