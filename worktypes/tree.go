package worktypes

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
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

// TakesTree tells whether Tree is of use: the unit's type takes trees, and the
// node keeps content.
func (p *Payload) TakesTree() bool {
	t, err := p.u.m.types.Lookup(p.u.spec.Type)
	if err != nil || p.u.m.content == nil {
		return false
	}
	plan, err := t.Plan(p.u.spec, p.u.file(scratchDir))
	return err == nil && plan.Tree != nil
}

// Tree announces, before the first Write, the tree that the unit's process is to
// find: manifest is read to its end and checked. It returns the tree's pieces,
// and for each whether it is lacking: PutPiece has to bring those before Commit.
// The owner is who may refer to the pieces later; only what that owner has sent
// counts as being there.
//
// An error that wraps content.ErrNoRoom leaves the payload as it was, without a
// tree, and so does one of manifest itself: the payload may be parked or closed
// then. Any other ends it, and the unit is Failed: it wraps ErrBadPayload where
// the manifest is malformed, ErrNotPending where the unit was canceled, or is the
// disk's.
func (p *Payload) Tree(owner content.Owner, manifest io.Reader) (pieces []tree.Piece, lacking []bool, err error) {
	if p.done || p.tree != nil || p.size > 0 {
		return nil, nil, errPayloadDone
	}
	if p.u.m.content == nil {
		return nil, nil, fmt.Errorf("unit %s: %w: this node keeps none", p.u.spec.ID, content.ErrNoRoom)
	}
	in := &notedReader{r: manifest}
	pieces, err = p.receiveTree(owner, in)
	if err == nil {
		size := int64(0)
		for _, piece := range pieces {
			size += int64(piece.Size)
		}
		if err := p.tooLarge(size); err != nil {
			return nil, nil, err
		}
		p.treeSize = size
		p.tree.lease, lacking, err = p.u.m.content.Lease(owner, pieces)
	}
	if errors.Is(err, content.ErrNoRoom) || in.err != nil && !errors.Is(in.err, ErrBadPayload) {
		p.tree.close()
		p.tree = nil
		p.u.removeFile(treePartFile)
		return nil, nil, fmt.Errorf("unit %s: tree: %w", p.u.spec.ID, err)
	}
	if err != nil {
		err = fmt.Errorf("unit %s: tree: %w", p.u.spec.ID, err)
		_ = p.Abort(err.Error())
		return nil, nil, err
	}
	p.tree.lacking = make(map[tree.Piece]struct{})
	for i, l := range lacking {
		if l {
			p.tree.lacking[pieces[i]] = struct{}{}
		}
	}
	return pieces, lacking, nil
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
}

// reopenTree pins the pieces of a unit that an earlier process has not started.
// If they are not there any more, the start will tell.
func (u *unit) reopenTree() {
	if u.m.content == nil {
		return
	}
	f, owner, err := u.openTree()
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err == nil {
		defer f.Close()
		var m *tree.Manifest
		if m, err = tree.Open(f); err == nil {
			m.Close()
			u.lease, _, err = u.m.content.Lease(owner, m.Pieces)
		}
	}
	if err != nil {
		u.log.Warn("the tree of a work unit cannot be kept", "error", err)
	}
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

// buildAndStart is start with the unit's tree in place.
func (u *unit) buildAndStart() (Task, error) {
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
