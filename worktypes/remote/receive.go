package remote

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/internal/tree"
	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/worktypes"
	"github.com/ranvier-mesh/ranvier/worktypes/content"
)

// minKey and maxKey bound the key of a content's owner in bytes: a shorter one
// could be guessed.
const (
	minKey = 16
	maxKey = 64
)

// errNoPayload is the end of a payload whose unit ended before it.
var errNoPayload = errors.New("the unit ended before its payload")

// receptions are the connections over which payloads come, by unit.
type receptions struct {
	mu sync.Mutex // guards all
	by map[string]*receiving
}

type receiving struct {
	end  context.CancelFunc // closes the connection
	over chan struct{}      // closed when the payload is not the connection's any more
}

func (u *receptions) begin(id string, end context.CancelFunc) (over func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	up := &receiving{end, make(chan struct{})}
	if u.by == nil {
		u.by = map[string]*receiving{}
	}
	u.by[id] = up
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.by[id] == up {
			delete(u.by, id)
		}
		close(up.over)
	}
}

// supersede ends the connection that has a unit's payload.
func (u *receptions) supersede(ctx context.Context, id string) {
	u.mu.Lock()
	up := u.by[id]
	u.mu.Unlock()
	if up == nil {
		return
	}
	up.end()
	select {
	case <-up.over:
	case <-ctx.Done():
	}
}

// payload takes the unit's payload for this connection. Who goes on with one may
// have been killed and started again, and its former connection does not know
// that yet: the newer one has it.
func (x *exchange) payload(m submitMsg) (*worktypes.Payload, error) {
	if !m.Resume {
		return x.s.m.Payload(m.ID)
	}
	p, err := x.s.m.ResumePayload(m.ID)
	if errors.Is(err, worktypes.ErrBusy) {
		x.log.Info("a newer connection goes on with the payload of a work unit", "unit", m.ID)
		x.s.receptions.supersede(x.ctx, m.ID)
		p, err = x.s.m.ResumePayload(m.ID)
	}
	return p, err
}

// takeIn takes what the submitter sends. What has come of it when the connection
// breaks is kept for a while.
func (x *exchange) takeIn(m submitMsg, p *worktypes.Payload) error {
	defer x.s.receptions.begin(m.ID, x.gone)()
	defer func() {
		x.came(p) // from here on it may be another connection's
		if x.s.Park > 0 {
			p.Park(x.s.Park)
		} else {
			p.Close()
		}
	}()
	withTree := m.Tree && p.Size() == 0 && p.TakesTree()
	err := x.send(typeAccepted, acceptedMsg{WantPayload: true, WantTree: withTree, Offset: p.Size(), Store: x.s.m.Store(), Binary: p.TakesBinary()})
	if err == nil && withTree {
		err = x.receiveTree(p, m)
	}
	if err != nil {
		return err
	}
	return x.receive(p, m)
}

// input reads what a submitter sends in Data frames up to a message of type
// end, which has their size and hash where hash is set. It belongs to the
// goroutine that serves the connection.
type input struct {
	x    *exchange
	p    *worktypes.Payload
	end  wire.Type
	hash hash.Hash
	buf  []byte // for frames
	rest []byte // of a frame
	size int64
	last payloadEndMsg // the message that ended it
	err  error         // what Read returns from now on
}

func (x *exchange) input(p *worktypes.Payload, end wire.Type, buf []byte, hash hash.Hash) *input {
	return &input{x: x, p: p, end: end, buf: buf, hash: hash}
}

// Read implements io.Reader. io.EOF is the message at the end, and nothing else.
func (in *input) Read(b []byte) (int, error) {
	for len(in.rest) == 0 {
		if in.err == nil {
			in.err = in.frame()
		}
		if in.err != nil {
			return 0, in.err
		}
	}
	n := copy(b, in.rest)
	in.rest = in.rest[n:]
	return n, nil
}

// frame reads one frame: Data into rest, and io.EOF for the end. A connection that
// ends before is no end.
func (in *input) frame() error {
	h, err := wire.ReadHeader(in.x.conn, wire.MaxFrame)
	if err == nil {
		var body []byte
		if body, err = readBody(in.x.conn, h, in.buf[:0]); err == nil {
			return in.take(h.Type, body)
		}
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("payload: %w", err)
}

func (in *input) take(t wire.Type, body []byte) error {
	switch t {
	case wire.TypeData:
		in.rest = body
		in.size += int64(len(body))
		if in.hash != nil {
			in.hash.Write(body)
		}
	case in.end:
		if err := wire.Unmarshal(body, &in.last); err != nil {
			return err
		}
		if t == typePiecesEnd {
			return io.EOF
		}
		if len(in.last.SHA256) != sha256.Size {
			return fmt.Errorf("%w: a SHA-256 of %d bytes", wire.ErrMalformed, len(in.last.SHA256))
		}
		if in.hash != nil && (in.last.Size != in.size || [sha256.Size]byte(in.last.SHA256) != [sha256.Size]byte(in.hash.Sum(nil))) {
			return fmt.Errorf("%w: %d bytes of a manifest came, and %d or others were sent", worktypes.ErrBadPayload, in.size, in.last.Size)
		}
		return io.EOF
	case typePayloadAbort:
		var abort payloadAbortMsg
		if err := wire.Unmarshal(body, &abort); err != nil {
			return err
		}
		_ = in.p.Abort("the submitter gave up: " + cut(abort.Reason))
		return errNoPayload
	case typeCancel:
		in.x.auditAside("cancel", in.p.Unit(), in.x.s.m.Cancel(in.p.Unit()))
		return errNoPayload
	}
	return nil
}

// outcome turns the error that taking the input ended with into what submit
// makes of it: errNoPayload, or an error that the client was told where
// it can be.
func (in *input) outcome(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errNoPayload), errors.Is(err, worktypes.ErrNotPending):
		return errNoPayload
	case in.err != nil && in.err != io.EOF && !errors.Is(err, wire.ErrMalformed) && !errors.Is(err, worktypes.ErrBadPayload):
		return err // the connection is gone
	}
	in.x.came(in.p)
	return in.x.refuse(err)
}

// receive takes the payload up to its explicit end. When the connection ends
// first, the caller's Close of the payload fails the unit.
func (x *exchange) receive(p *worktypes.Payload, m submitMsg) error {
	buf := takeBuffer()
	defer buffers.Put(buf)
	in := x.input(p, typePayloadEnd, *buf, nil) // p hashes
	for {
		var err error
		if in.err = in.frame(); in.err == nil {
			_, err = p.Write(in.rest)
			in.rest = nil
		} else if err = in.err; err == io.EOF {
			if err := x.verify(m, in.last); err != nil {
				_ = p.Abort(err.Error())
				x.came(p)
				return x.refuse(err)
			}
			return in.outcome(p.Commit(in.last.Size, [sha256.Size]byte(in.last.SHA256)))
		}
		if err != nil {
			return in.outcome(err)
		}
	}
}

// verify has the submit's signature judged, where one is needed. It is of what the
// submitter says to have sent; that this has come is Commit's to find out.
func (x *exchange) verify(m submitMsg, end payloadEndMsg) error {
	if x.terms.Verify == nil {
		return nil
	}
	err := x.terms.Verify(identity.WorkOrder{
		Unit: m.ID, Store: x.s.m.Store(), Type: m.Type, Params: m.Params,
		Size: end.Size, SHA256: [sha256.Size]byte(end.SHA256), Tree: x.tree,
	}, end.Signature)
	if err != nil {
		return fmt.Errorf("%w: unit %s: %w", worktypes.ErrForbidden, m.ID, err)
	}
	return nil
}

// contentOwner tells whose content the tree of a submit is: nil where nobody wants
// it to be kept, and nil with the reason where nothing says for certain who submits.
func (x *exchange) contentOwner(m submitMsg) (*content.Owner, error) {
	if m.Whole {
		return nil, nil
	}
	lasting := x.peer
	if x.s.Lasting != nil {
		lasting = x.s.Lasting(x.peer)
	}
	if len(m.Key) > maxKey || len(m.Key) > 0 && len(m.Key) < minKey || lasting == "" && len(m.Key) == 0 {
		return nil, errNobody
	}
	owner := content.OwnerOf(lasting, m.Key)
	return &owner, nil
}

// errNobody is why a tree cannot be kept: nobody could be told to have sent it.
var errNobody = errors.New("it came with neither an identity nor a key by which it could be found again")

// receiveTree takes the manifest, tells what of it is lacking, and takes that.
func (x *exchange) receiveTree(p *worktypes.Payload, m submitMsg) error {
	buf := takeBuffer()
	defer buffers.Put(buf)
	in := x.input(p, typeTreeEnd, *buf, sha256.New())
	owner, unkept := x.contentOwner(m)
	wants, err := p.Tree(owner, in)
	if err != nil {
		return in.outcome(err)
	}
	x.tree = in.last.SHA256
	lacking := lackingMsg{Pieces: toBits(wants.Lacking)}
	if unkept = cmp.Or(wants.Unkept, unkept); unkept != nil {
		x.log.Info("nothing of the tree of a work unit is kept", "unit", p.Unit(), "cause", unkept)
		lacking.Unkept = cut(unkept.Error())
	}
	if err := x.send(typeLacking, lacking); err != nil {
		return err
	}
	in = x.input(p, typePiecesEnd, *buf, nil)
	return in.outcome(x.receivePieces(in, p, wants.Pieces, wants.Lacking))
}

func (x *exchange) receivePieces(in *input, p *worktypes.Payload, pieces []tree.Piece, lacking []bool) error {
	buffered := bufio.NewReaderSize(in, 4<<10) // for the pieces' heads
	r, err := tree.NewPieceReader(buffered)
	if err != nil {
		return err
	}
	defer r.Close()
	n, size := 0, int64(0)
	for i, piece := range pieces {
		if !lacking[i] {
			continue
		}
		data, err := r.Next(piece)
		if errors.Is(err, tree.ErrMalformed) {
			err = fmt.Errorf("%w: %w", worktypes.ErrBadPayload, err)
			_ = p.Abort(err.Error())
		}
		if err == nil {
			err = p.PutPiece(piece, data)
		}
		if err != nil {
			return err
		}
		n++
		size += int64(piece.Size)
	}
	if _, err := buffered.ReadByte(); err != io.EOF {
		if err == nil {
			err = fmt.Errorf("%w: more bytes than the pieces that are lacking", wire.ErrMalformed)
		}
		return err
	}
	x.log.Info("the tree of a work unit is here", "unit", p.Unit(), "pieces", len(pieces), "sent", n, "bytes", size, "on the way", in.size)
	return nil
}

// toBits packs flags, the first into the lowest bit of the first byte.
func toBits(flags []bool) []byte {
	bits := make([]byte, (len(flags)+7)/8)
	for i, f := range flags {
		if f {
			bits[i/8] |= 1 << (i % 8)
		}
	}
	return bits
}
