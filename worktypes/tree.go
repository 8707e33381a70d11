package worktypes

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/ranvier-mesh/ranvier/internal/tree"
	"github.com/ranvier-mesh/ranvier/worktypes/content"
)

func (m *Manager) openContent(opt Options) (err error) {
	m.content, err = content.Open(m.store.content, content.Options{Limit: opt.ContentLimit, Log: m.log, Now: m.now})
	if opt.ContentLimit < 0 {
		m.content = nil // what was kept has been removed
	}
	return err
}

// ContentUsage tells how much of submitted trees is kept.
func (m *Manager) ContentUsage() content.Usage {
	if m.content == nil {
		return content.Usage{}
	}
	return m.content.Usage()
}

// treeUpload is the tree of a payload on its way. Its file has the owner before
// the manifest, so that the next process finds the pieces again.
type treeUpload struct {
	f       *os.File
	lease   *content.Lease // nil: it was not taken
	lacking map[tree.Piece]struct{}
}

// plan is what the unit's type makes of it: nothing where another node knows.
func (p *Payload) plan() (Plan, error) {
	if p.u.spec.Node != "" {
		return Plan{}, nil
	}
	t, err := p.u.m.types.Lookup(p.u.spec.Type)
	if err != nil {
		return Plan{}, err
	}
	return t.Plan(p.u.spec, p.u.file(scratchDir))
}

// TakesTree tells whether Tree is of use: the unit's type takes trees. That of
// a unit for another node is taken here to be passed on.
func (p *Payload) TakesTree() bool {
	plan, err := p.plan()
	return err == nil && (plan.Tree != nil || p.u.spec.Node != "")
}

// TakesBinary is the Binary of the type's Plan.
func (p *Payload) TakesBinary() bool {
	plan, err := p.plan()
	return err == nil && plan.Binary
}

// TreeWants is what a node makes of a tree that was announced.
type TreeWants struct {
	Pieces  []tree.Piece // the tree's
	Lacking []bool       // for each whether it has to be sent
	// Unkept is why nothing of the tree is kept for another unit, and all of it
	// lacks here; nil: it is kept, or nobody wants it to be.
	Unkept error
}

// Tree announces, before the first Write, the tree that the unit's process is to
// find: manifest is read to its end and checked. PutPiece has to bring the pieces
// that are lacking before Commit. The owner is who may refer to the pieces later;
// only what that owner has sent counts as being there. Nil keeps the pieces for this
// unit alone, and so does a node that has no room for more.
//
// An error of manifest itself leaves the payload as it was, without a tree: it may
// be parked or closed then. Any other ends it, and the unit is Failed: it wraps
// ErrBadPayload where the manifest is malformed, ErrNotPending where the unit was
// canceled, or is the disk's.
func (p *Payload) Tree(owner *content.Owner, manifest io.Reader) (wants TreeWants, err error) {
	if p.done || p.tree != nil || p.size > 0 {
		return wants, errPayloadDone
	}
	in := &notedReader{r: manifest}
	var named content.Owner
	if owner != nil {
		named = *owner
	}
	wants.Pieces, err = p.receiveTree(named, in)
	if err == nil {
		size := int64(0)
		for _, piece := range wants.Pieces {
			size += int64(piece.Size)
		}
		if err := p.tooLarge(size); err != nil {
			return wants, err
		}
		p.treeSize = size
		err = p.lease(owner, &wants)
	}
	if in.err != nil && !errors.Is(in.err, ErrBadPayload) {
		p.tree.close()
		p.tree = nil
		p.u.removeFile(treePartFile)
		return wants, fmt.Errorf("unit %s: tree: %w", p.u.spec.ID, err)
	}
	if err != nil {
		err = fmt.Errorf("unit %s: tree: %w", p.u.spec.ID, err)
		_ = p.Abort(err.Error())
		return wants, err
	}
	p.tree.lacking = make(map[tree.Piece]struct{})
	for i, l := range wants.Lacking {
		if l {
			p.tree.lacking[wants.Pieces[i]] = struct{}{}
		}
	}
	return wants, nil
}

// lease pins the tree's pieces, in the store of the node or in the unit's own.
func (p *Payload) lease(owner *content.Owner, wants *TreeWants) (err error) {
	if owner != nil && p.u.m.content != nil {
		p.tree.lease, wants.Lacking, err = p.u.m.content.Lease(*owner, wants.Pieces)
		if !errors.Is(err, content.ErrNoRoom) {
			return err
		}
		wants.Unkept = err
	} else if owner != nil {
		wants.Unkept = fmt.Errorf("%w: it is set up to keep none", content.ErrNoRoom)
	}
	own, err := p.u.ownPieces()
	if err == nil {
		p.tree.lease, wants.Lacking, err = own.Lease(content.Owner{}, wants.Pieces)
	}
	return err
}

// ownPieces is a store that goes with the unit.
func (u *unit) ownPieces() (*content.Store, error) {
	return content.Open(u.file(piecesDir), content.Options{Limit: math.MaxInt64, Log: u.log, Now: u.m.now})
}

// notedReader remembers the error that reading ended with, other than io.EOF.
type notedReader struct {
	r   io.Reader
	err error
}

func (n *notedReader) Read(b []byte) (int, error) {
	c, err := n.r.Read(b)
	if err != nil && err != io.EOF {
		n.err = err
	}
	return c, err
}

// receiveTree writes the manifest down and reads it back.
func (p *Payload) receiveTree(owner content.Owner, manifest io.Reader) ([]tree.Piece, error) {
	if err := p.u.makeDir(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(p.u.file(treePartFile), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	p.tree = &treeUpload{f: f}
	out := bufio.NewWriterSize(f, 64<<10)
	_, _ = out.Write(owner[:]) // Flush tells
	n, err := io.Copy(out, io.LimitReader(manifest, tree.MaxManifest+1))
	if err == nil && n > tree.MaxManifest {
		err = fmt.Errorf("%w: a manifest of more than %d bytes", ErrBadPayload, tree.MaxManifest)
	}
	if err := errors.Join(err, out.Flush()); err != nil {
		return nil, err
	}
	if _, err := f.Seek(int64(len(owner)), io.SeekStart); err != nil {
		return nil, err
	}
	m, err := tree.Open(f)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadPayload, err)
	}
	defer m.Close()
	for {
		if _, err := m.Next(); err == io.EOF {
			return m.Pieces, nil
		} else if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBadPayload, err)
		}
	}
}

// PutPiece stores a piece that Tree has told to be lacking. An error that wraps
// ErrNotPending means that the unit was canceled meanwhile; after any other the
// unit is Failed: it wraps ErrBadPayload where the bytes are not the piece.
func (p *Payload) PutPiece(piece tree.Piece, data []byte) error {
	select {
	case <-p.u.ended:
		return p.over()
	default:
	}
	if p.done || p.tree == nil {
		return errPayloadDone
	}
	err := p.tree.lease.Put(piece, data)
	if errors.Is(err, tree.ErrMalformed) || errors.Is(err, content.ErrNotAnnounced) {
		err = fmt.Errorf("%w: %w", ErrBadPayload, err)
	}
	if err != nil {
		err = fmt.Errorf("unit %s: tree: %w", p.u.spec.ID, err)
		_ = p.Abort(err.Error())
		return err
	}
	delete(p.tree.lacking, piece)
	return nil
}

// complete makes the manifest durable. The pieces are not synced: what a loss of
// power takes of them is found when they are read.
func (t *treeUpload) complete() error {
	if t == nil {
		return nil
	}
	if n := len(t.lacking); n > 0 {
		return fmt.Errorf("%w: %d pieces of the tree did not come", ErrBadPayload, n)
	}
	return t.f.Sync()
}

// commitTree is called with u.op held.
func (p *Payload) commitTree() error {
	if p.tree == nil {
		return nil
	}
	if err := os.Rename(p.u.file(treePartFile), p.u.file(treeFile)); err != nil {
		return err
	}
	p.u.lease, p.tree.lease = p.tree.lease, nil
	return nil
}

func (t *treeUpload) close() {
	if t == nil {
		return
	}
	t.f.Close()
	if t.lease != nil {
		t.lease.Release()
	}
}

// dropTree forgets the unit's tree. It is called with u.op held.
func (u *unit) dropTree() {
	u.removeFile(treeFile)
	u.removeFile(treePartFile)
	if u.lease != nil {
		u.lease.Release()
		u.lease = nil
	}
	u.removeFile(piecesDir)
}

// reopenTree pins the pieces of a unit that an earlier process has not started.
// If they are not there any more, the start will tell.
func (u *unit) reopenTree() {
	f, owner, err := u.openTree()
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	kept := u.m.content
	if err == nil && u.hasOwnPieces() {
		owner = content.Owner{}
		kept, err = u.ownPieces()
	}
	if err == nil {
		defer f.Close()
		var m *tree.Manifest
		if m, err = tree.Open(f); err == nil {
			m.Close()
		}
		if err == nil && kept != nil {
			u.lease, _, err = kept.Lease(owner, m.Pieces)
		}
	}
	if err != nil {
		u.log.Warn("the tree of a work unit cannot be kept", "error", err)
	}
}

func (u *unit) hasOwnPieces() bool {
	_, err := os.Lstat(u.file(piecesDir))
	return err == nil
}

// dropOwnPieces removes what is kept for this unit alone, once its tree was built.
// It is called with u.op held.
func (u *unit) dropOwnPieces() {
	if u.lease == nil || !u.hasOwnPieces() {
		return
	}
	u.lease.Release()
	u.lease = nil
	u.removeFile(piecesDir)
}

// Tree is the tree that the unit was submitted with, to be passed on, and its
// owner; nil: there is none. The zero owner is that of a tree which is not to be
// kept. Reading it ends with an error that wraps content.ErrGone where a piece is
// not there any more.
func (e *Errand) Tree() (*tree.Stored, content.Owner, error) {
	u := e.u
	f, owner, err := u.openTree()
	if errors.Is(err, os.ErrNotExist) {
		return nil, owner, nil
	}
	if err != nil {
		return nil, owner, err
	}
	defer f.Close()
	u.op.Lock()
	lease := u.lease
	u.op.Unlock()
	if lease == nil {
		return nil, owner, content.ErrGone
	}
	manifest, err := io.ReadAll(f)
	if err != nil {
		return nil, owner, err
	}
	stored, err := tree.NewStored(manifest, lease.Read)
	return stored, owner, err
}

// openTree returns the unit's manifest.
func (u *unit) openTree() (_ *os.File, owner content.Owner, err error) {
	f, err := os.Open(u.file(treeFile))
	if err != nil {
		return nil, owner, err
	}
	if _, err := io.ReadFull(f, owner[:]); err != nil {
		f.Close()
		return nil, owner, fmt.Errorf("%s: %w", treeFile, err)
	}
	return f, owner, nil
}

// buildAndStart is start with the unit's tree in place, where it is done here.
func (u *unit) buildAndStart() (Task, error) {
	if u.spec.Node != "" {
		return u.start()
	}
	u.building.Lock()
	defer u.building.Unlock()
	if err := u.build(u.checkPending); err != nil {
		return nil, err
	}
	return u.start()
}

// build makes the tree of a Pending unit that has one. It runs without u.op: a
// large tree takes seconds, in which the unit can be canceled. check is called
// with u.op held and says whether there is still a use for it.
func (u *unit) build(check func() error) error {
	u.op.Lock()
	err, lease := check(), u.lease
	u.op.Unlock()
	if err != nil {
		return err
	}
	if lease == nil && !u.hasTree() {
		return nil
	}
	err = u.buildFrom(lease)
	if err == nil {
		return nil
	}
	u.removeFile(scratchDir)
	u.op.Lock()
	defer u.op.Unlock()
	if perr := check(); perr != nil {
		return perr
	}
	if errors.Is(err, ErrClosed) {
		return err // it stays Pending
	}
	err = fmt.Errorf("unit %s could not be started: its tree: %w", u.spec.ID, err)
	_ = u.end(func(s *Status) { s.State, s.Detail = Failed, err.Error() })
	return err
}

// rebuild builds the tree of a unit that has waited for its turn, if a restart
// has taken it away.
func (u *unit) rebuild() error {
	u.building.Lock()
	defer u.building.Unlock()
	if _, err := os.Stat(u.file(scratchDir)); err == nil || !u.hasTree() {
		return nil
	}
	return u.build(func() error {
		if u.gone == nil && u.state().State != Pending {
			return ErrNotPending
		}
		return u.gone
	})
}

// hasTree reports whether a tree was submitted with the unit.
func (u *unit) hasTree() bool {
	if !u.hasDir.Load() {
		return false
	}
	_, err := os.Lstat(u.file(treeFile))
	return err == nil
}

func (u *unit) buildFrom(lease *content.Lease) error {
	if lease == nil {
		return content.ErrGone // there was no room for it when the node started
	}
	t, err := u.m.types.Lookup(u.spec.Type)
	if err != nil {
		return err
	}
	scratch := u.file(scratchDir)
	plan, err := t.Plan(u.spec, scratch)
	if err != nil {
		return err
	}
	if plan.Tree == nil {
		return fmt.Errorf("work type %s takes no tree", u.spec.Type)
	}
	u.removeFile(scratchDir)
	for _, dir := range []string{scratch, plan.Tree.Dir} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	manifest, _, err := u.openTree()
	if err != nil {
		return err
	}
	defer manifest.Close()
	ctx, cancel := u.whilePending()
	defer cancel()
	return tree.Build(ctx, manifest, plan.Tree.Dir, lease.Read)
}

// whilePending returns a context that ends with the unit, or with the Manager
// and then with ErrClosed as its cause.
func (u *unit) whilePending() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan struct{})
	go func() {
		select {
		case <-u.ended:
			cancel(ErrNotPending)
		case <-u.m.closing:
			cancel(ErrClosed)
		case <-done:
		}
	}()
	return ctx, func() { close(done); cancel(nil) }
}
