package remote

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/worktypes"
)

// Input is what a unit gets to work with.
type Input struct {
	// Tree is files that the unit's process finds, if the node takes them: it
	// then says what it lacks of them, and only that is sent. Nil: there are
	// none.
	Tree Tree
	// Key makes the tree's owner, of 16 to 64 bytes: only who has it can refer
	// to what was sent. It may be left out where the node knows for certain who
	// submits.
	Key []byte
	// Whole has nothing of the tree kept for another unit, and all of it sent.
	Whole bool
	// Unkept, where it is not nil, is told why the node keeps nothing of the tree, so
	// that all of it is sent, and will be the next time.
	Unkept func(why string)
	// Payload returns the standard input. It is called once, if the node wants
	// one. It may return nil for an empty input.
	Payload func(Takes) io.Reader
	// Sent, where it is not nil, hears from another goroutine how many bytes
	// have been sent so far.
	Sent func(bytes int64)

	// Again says that Payload may be called again, for the same bytes from their
	// beginning or for others, when the connection broke before the node had them
	// all.
	Again bool
	// Ref, where it is not nil, is what the payload is; Payload's reader is an
	// io.Seeker then, and the node that has a part already gets the rest only.
	Ref *worktypes.PayloadRef
	// Store is the incarnation of the node's store that the unit is meant for: a
	// node with another one refuses (worktypes.ErrOtherStore). Empty: any.
	Store string
	// Accepted, where it is not nil, is told the incarnation of the node's store
	// before any payload is sent; its error ends the submit.
	Accepted func(store string) error

	// Sign, where it is not nil, signs the work once all of it is known, before it
	// can start: identity.Self's SignWork.
	Sign func(identity.WorkOrder) ([]byte, error)
	// Token is a signature in Receptor's form; empty: none.
	Token string

	binary bool               // the node's word for Takes
	from   int64              // what the node has of the payload
	order  identity.WorkOrder // what is known of it
}

// Takes is what a node takes with a unit.
type Takes struct {
	Tree   bool // Input.Tree, and the payload need not have what is in it
	Binary bool // zips in the payload that are not in base64
}

// Tree is a directory to send: a tree.Snapshot, or one that does more.
type Tree interface {
	// Manifest returns the encoded description.
	Manifest() []byte
	// Send gives what is lacking to emit, in the form that travels. An error
	// that is not emit's fails the unit, and Submit returns it.
	Send(ctx context.Context, lacking func(i int) bool, emit func([]byte) error) error
}

// upload sends pieces and payload while it listens: the node may not want the
// rest.
type upload struct {
	k       *call
	ctx     context.Context
	input   Input
	lacking func(i int) bool // of the tree's pieces; nil: no tree
	over    chan struct{}    // closed when nobody wants more
	failed  chan error       // the input's own error, before the node is told
	hash    io.Writer        // of the payload, while that is sent
	sent    int64
}

// errOver stops sending what nobody wants.
var errOver = errors.New("nobody wants more")

// offer sends the manifest and waits for what the node lacks of it.
func (k *call) offer(ctx context.Context, input Input) (*Job, error) {
	u := k.newUpload(ctx, input)
	manifest := input.Tree.Manifest()
	sum := sha256.Sum256(manifest)
	buf := takeBuffer()
	err := u.data(*buf, bytes.NewReader(manifest))
	buffers.Put(buf)
	if err == nil {
		err = k.send(typeTreeEnd, payloadEndMsg{Size: int64(len(manifest)), SHA256: sum[:]})
	}
	if err != nil {
		return nil, k.fail(ctx, err)
	}
	head, err := k.in.Peek(wire.HeaderLen)
	if err != nil {
		return nil, k.fail(ctx, err)
	}
	if wire.Type(head[wire.HeaderLen-1]) != typeLacking {
		return k.job(ctx, 0) // a refusal, or the unit's end
	}
	_, body, err := k.next(ctx)
	if err != nil {
		return nil, err
	}
	var lacking lackingMsg
	if err := wire.Unmarshal(body, &lacking); err != nil {
		return nil, k.fail(ctx, err)
	}
	if lacking.Unkept != "" && input.Unkept != nil {
		input.Unkept(lacking.Unkept)
	}
	u.input.order.Tree = sum[:]
	return u.run(func(i int) bool {
		return i/8 < len(lacking.Pieces) && lacking.Pieces[i/8]&(1<<(i%8)) != 0
	})
}

func (k *call) newUpload(ctx context.Context, input Input) *upload {
	return &upload{k: k, ctx: ctx, input: input, over: make(chan struct{}), failed: make(chan error, 1)}
}

// run returns when the unit was started or has ended. Without lacking there is
// no tree.
func (u *upload) run(lacking func(i int) bool) (*Job, error) {
	u.lacking = lacking
	defer close(u.over)
	go u.write()
	// The node says nothing before the payload's end unless something is wrong.
	job, err := u.k.job(u.ctx, 0)
	select {
	case perr := <-u.failed:
		if job != nil { // the node has been told, and says that the unit is Failed
			_, _ = io.Copy(io.Discard, job.Results)
			job.Close()
		}
		return nil, fmt.Errorf("unit %s was not started: cannot read its payload: %w", u.k.id, perr)
	default:
		return job, err
	}
}

// write is the goroutine that sends. Each frame is one Write, so that the frames of
// a Job that has begun already do not get into one of its.
func (u *upload) write() {
	buf := takeBuffer()
	defer buffers.Put(buf)
	err := u.pieces(*buf)
	var payload io.Reader
	if err == nil {
		payload = u.input.Payload(Takes{Tree: u.lacking != nil, Binary: u.input.binary})
	}
	if u.input.from > 0 && err == nil {
		_, err = payload.(io.Seeker).Seek(u.input.from, io.SeekStart)
	}
	hash := sha256.New()
	before := u.sent
	if err == nil && payload != nil {
		u.hash = hash
		err = u.data(*buf, payload)
	}
	var broken *writeError
	switch {
	case err == nil && u.input.Ref != nil:
		err = u.end(u.input.Ref.Size, u.input.Ref.SHA256)
	case err == nil:
		err = u.end(u.sent-before, [sha256.Size]byte(hash.Sum(nil)))
	}
	switch {
	case err == nil:
	case errors.Is(err, errOver), errors.As(err, &broken):
		// The reading side finds out why.
	default:
		u.failed <- err
		u.send(typePayloadAbort, payloadAbortMsg{Reason: cut(err.Error())})
	}
}

// end says that the payload is whole, and signs the work.
func (u *upload) end(size int64, sum [sha256.Size]byte) error {
	last := payloadEndMsg{Size: size, SHA256: sum[:]}
	if u.input.Sign != nil {
		o := u.input.order
		o.Size, o.SHA256 = size, sum
		var err error
		if last.Signature, err = u.input.Sign(o); err != nil {
			return fmt.Errorf("sign the work: %w", err)
		}
	}
	u.send(typePayloadEnd, last)
	return nil
}

// pieces sends what is lacking of the tree.
func (u *upload) pieces(buf []byte) error {
	if u.lacking == nil {
		return nil
	}
	var r bytes.Reader
	err := u.input.Tree.Send(u.ctx, u.lacking, func(piece []byte) error {
		r.Reset(piece)
		return u.data(buf, &r)
	})
	if err == nil {
		u.send(typePiecesEnd, struct{}{})
	}
	return err
}

// writeError is an error of the connection and not of what is sent.
type writeError struct{ error }

// data sends what r has in Data frames. Errors are errOver, a *writeError and
// r's.
func (u *upload) data(frame []byte, r io.Reader) error {
	for {
		n, err := r.Read(frame[wire.HeaderLen:])
		select {
		case <-u.over:
			return errOver
		default:
		}
		if n > 0 {
			if u.hash != nil {
				_, _ = u.hash.Write(frame[wire.HeaderLen:][:n])
			}
			wire.AppendHeader(frame[:0], wire.TypeData, n)
			if _, err := u.k.conn.Write(frame[:wire.HeaderLen+n]); err != nil {
				return &writeError{err}
			}
			if u.sent += int64(n); u.input.Sent != nil {
				u.input.Sent(u.sent)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// send writes a last message. When that cannot be done there will be no answer.
func (u *upload) send(t wire.Type, msg any) {
	if err := u.k.send(t, msg); err != nil {
		u.k.conn.Close()
	}
}
