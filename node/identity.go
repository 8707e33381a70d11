package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sync/errgroup"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/mesh"
)

const (
	// renewEvery is how often the node looks whether its certificate is due: by
	// a timer of its whole half-life it would not notice a clock that was set.
	renewEvery = time.Hour
	// After a renewal that failed there is a random pause, which doubles up to
	// renewRetry: a node that starts has no link yet.
	renewFirst, renewRetry = time.Second, 5 * time.Minute
	// renewTime is how long a renewal may take.
	renewTime = 15 * time.Second
	// endsSoon is when a certificate that is not renewed becomes an error in the log.
	endsSoon = 48 * time.Hour
)

// serveIdentity keeps the node's certificate fresh, and on the CA's node serves
// renewals and publishes revocations.
func (n *Node) serveIdentity(ctx context.Context, g *errgroup.Group) error {
	if n.self == nil {
		return nil
	}
	g.Go(func() error { return n.renew(ctx) })
	if n.ca == nil {
		return nil
	}
	l, err := n.mesh.Listen(identity.RenewService)
	if err != nil {
		return fmt.Errorf("the CA's service: %w", err)
	}
	g.Go(func() error {
		return acceptAll(ctx, l, func(_ context.Context, conn *mesh.Conn) {
			n.ca.ServeRenew(conn, n.self.Trust(), n.log)
		})
	})
	n.learn(g)
	return n.publish(ctx, g)
}

// learn has a CA that was restored from a backup know who joined and who was
// revoked since that was made: the members know it.
func (n *Node) learn(g *errgroup.Group) {
	tell := func(what string, news bool, err error) {
		switch {
		case err != nil:
			n.log.Error("the CA cannot keep what it learned from the mesh", "what", what, "err", err)
		case news:
			n.log.Warn("the CA learned from the mesh what it did not know: was it restored from a backup?", "what", what)
		}
	}
	recall := func(r *identity.Revocations) {
		news, err := n.ca.Recall(r)
		tell(fmt.Sprintf("revocations, number %d", r.Number), news, err)
	}
	if own := n.self.Trust().Revocations(); own != nil {
		recall(own)
	}
	n.self.Trust().Watch(func(r *identity.Revocations) {
		g.Go(func() error {
			recall(r)
			return nil
		})
	}, func(m identity.Member) {
		if n.ca.Knows(m) {
			return
		}
		g.Go(func() error {
			news, err := n.ca.Readmit(m)
			tell("member "+string(m.ID), news, err)
			return nil
		})
	})
}

// renew gets a new certificate at half the life of the old one, for as long as
// the node lives.
func (n *Node) renew(ctx context.Context) error {
	for pause := renewFirst; ; {
		wait := renewEvery
		due := n.self.RenewAt().Sub(n.self.Trust().Clock().Now())
		if due <= 0 {
			if err := n.renewNow(ctx); err != nil && ctx.Err() == nil {
				n.tellRenewal(err)
				wait = pause/2 + rand.N(pause)
				pause = min(2*pause, renewRetry)
			} else {
				pause = renewFirst
			}
		} else {
			wait = min(wait, due)
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
			n.keepTime()
		case <-n.renewing:
			t.Stop()
			if err := n.renewNow(ctx); err != nil && ctx.Err() == nil {
				n.tellRenewal(err)
			}
		case <-ctx.Done():
			t.Stop()
			return nil
		}
	}
}

// keepTime has the time on disk where the host's clock cannot tell it after a
// restart.
func (n *Node) keepTime() {
	if !n.self.Trust().Clock().Behind() {
		return
	}
	if err := n.self.Save(); err != nil {
		n.log.Warn("the time is not kept: after a restart this node may take it for earlier", "err", err)
	}
}

func (n *Node) tellRenewal(err error) {
	ends := n.self.Certificate().Leaf.NotAfter
	level := slog.LevelWarn
	if ends.Sub(n.self.Trust().Clock().Now()) < endsSoon {
		level = slog.LevelError
	}
	n.log.Log(context.Background(), level, "the node's certificate was not renewed; trying again", "ends", ends, "ca", n.self.CA, "err", err)
}

func (n *Node) renewNow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, renewTime)
	defer cancel()
	if err := RenewOver(ctx, n.mesh, n.self); err != nil {
		return err
	}
	n.mesh.Renewed()
	n.log.Info("the node's certificate was renewed", "ends", n.self.Certificate().Leaf.NotAfter)
	return nil
}

// RenewOver has an identity renewed over a mesh that its owner is in. Errors
// are those of mesh.Mesh.Dial and identity.Self.Renew.
func RenewOver(ctx context.Context, m *mesh.Mesh, self *identity.Self) error {
	conn, err := m.Dial(ctx, self.CA, identity.RenewService)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	return self.Renew(net.Conn(conn))
}

// publish tells the mesh of revocations that the commands sign on this host,
// and has the node's own certificate made anew when the issuer is a new one.
func (n *Node) publish(ctx context.Context, g *errgroup.Group) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the CA: %w", err)
	}
	if err := w.Add(n.ca.Dir()); err != nil {
		return errors.Join(fmt.Errorf("watch the CA: %w", err), w.Close())
	}
	n.publishNow()
	g.Go(func() error {
		defer w.Close()
		for {
			select {
			case e := <-w.Events:
				switch filepath.Base(e.Name) {
				case identity.RevocationsFile:
					n.publishNow()
				case identity.IssuerFile:
					select {
					case n.renewing <- struct{}{}:
					default:
					}
				}
			case err := <-w.Errors:
				n.log.Error("the CA's directory is not watched any more; revocations are told after a restart", "err", err)
				return nil
			case <-ctx.Done():
				return nil
			}
		}
	})
	return nil
}

func (n *Node) publishNow() {
	list, err := n.ca.Revocations()
	if err == nil && len(list) > 0 {
		_, err = n.mesh.Revoke(list)
	}
	if err != nil {
		n.log.Error("the CA's revocations cannot be published", "err", err)
	}
}

// reloadIdentity takes the certificate and the roots that are on disk now. Links
// stay up; those to come, and streams, show the new certificate.
func (n *Node) reloadIdentity() error {
	if n.self == nil {
		return nil
	}
	before := n.self.Certificate().Leaf.SerialNumber
	if err := n.self.Reload(); err != nil {
		return err
	}
	if leaf := n.self.Certificate().Leaf; leaf.SerialNumber.Cmp(before) != 0 {
		n.mesh.Renewed()
		n.log.Info("the node's certificate was read again", "ends", leaf.NotAfter)
	}
	return nil
}
