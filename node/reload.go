package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ranvier-mesh/ranvier/internal/config"
	"github.com/ranvier-mesh/ranvier/mesh"
)

// The codes of a ReloadError, which are Receptor's.
const (
	ReloadFixed   = 3 // an item changed that a running node cannot change
	ReloadInvalid = 4 // the file cannot be read or has mistakes
)

// ReloadError tells why a file was not applied; nothing has changed then.
type ReloadError struct {
	Code int // ReloadFixed or ReloadInvalid
	Err  error
}

// Error ends as Receptor's clients know it.
func (e *ReloadError) Error() string { return fmt.Sprintf("%v ERRORCODE %d", e.Err, e.Code) }

// Unwrap returns the cause.
func (e *ReloadError) Unwrap() error { return e.Err }

// ReloadFile reads the node's configuration file again and applies it; see
// Reload.
func (n *Node) ReloadFile(ctx context.Context) error {
	cfg, err := n.load()
	if err != nil {
		err = &ReloadError{ReloadInvalid, err}
		n.log.Error("the configuration was not reloaded", "err", err)
		return err
	}
	return n.Reload(ctx, cfg)
}

// Reload applies what differs in a configuration: listeners and peers that are
// new, gone or different (other costs and allowed peers leave their links up), and the log level; and the node's certificate and the
// mesh's roots as they are on disk. All other links stay up. A
// *ReloadError says why nothing was changed. Any other error names a listener
// that could not be bound; if that was a new one nothing has changed either,
// else the rest of the file is in effect. One Reload runs at a time.
func (n *Node) Reload(ctx context.Context, cfg *config.Config) (err error) {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	defer func() {
		if err != nil {
			n.log.Error("the configuration was not reloaded", "err", err)
		}
	}()
	if items := config.Fixed(n.cfg, cfg); len(items) > 0 {
		return &ReloadError{ReloadFixed, fmt.Errorf("%s: what the file says of %s has changed, which needs a restart", cfg.File, strings.Join(items, ", "))}
	}
	if err := n.checkOpen(cfg); err != nil {
		return &ReloadError{ReloadInvalid, err}
	}
	if err := n.reloadIdentity(); err != nil {
		return &ReloadError{ReloadInvalid, err}
	}
	rules, err := firewallRules(cfg)
	if err != nil {
		return &ReloadError{ReloadInvalid, err}
	}
	gone, added, changed := compare(n.current.Listeners, cfg.Listeners, sameListener)
	goneWays, addedWays, changedWays := compare(n.current.Peers, cfg.Peers, samePeer)
	peers := make([]mesh.PeerConfig, len(addedWays))
	for i, p := range addedWays {
		if peers[i], err = n.peerConfig(p); err != nil {
			return &ReloadError{ReloadInvalid, err}
		}
	}
	for _, l := range added {
		if _, err := n.listenerConfig(l); err != nil {
			return &ReloadError{ReloadInvalid, err}
		}
	}
	exchanged, err := n.beginServices(cfg)
	if err != nil {
		return err
	}
	unbound, err := n.replaceListeners(ctx, gone, added)
	if err != nil && len(unbound) == 0 {
		exchanged.undo()
		return err
	}
	n.mesh.SetFirewall(rules)
	for _, p := range goneWays {
		n.mesh.RemovePeer(ctx, p.Addresses[0])
	}
	for i, p := range peers {
		if bad := n.mesh.AddPeer(p); bad != nil { // the mesh has stopped
			return addedWays[i].Pos.Errorf("address", "%w", bad)
		}
	}
	for _, l := range changed {
		n.mesh.ChangeListener(mesh.ListenerConfig{Address: l.URL(), Cost: l.Cost, NodeCost: l.NodeCost, AllowedPeers: l.AllowedPeers})
	}
	for _, p := range changedWays {
		n.mesh.ChangePeer(mesh.PeerConfig{Address: p.Addresses[0], Cost: p.Cost, AllowedPeers: p.AllowedPeers})
	}
	n.tellTLS(cfg)
	for _, w := range cfg.Warnings {
		n.log.Warn(w)
	}
	if n.level != nil {
		n.level.Set(cfg.LogLevel)
	}
	now := *cfg
	now.Listeners, _ = difference(cfg.Listeners, unbound) // the next reload tries those again
	err = errors.Join(err, n.finishServices(exchanged, &now))
	n.current = &now
	n.log.Info("configuration reloaded", "file", cfg.File,
		"listeners added", len(added), "listeners removed", len(gone),
		"listeners changed", len(changed), "peers changed", len(changedWays), "peers added", len(addedWays), "peers removed", len(goneWays))
	return err
}

// replaceListeners binds new addresses first, so that one that is in use
// changes nothing; those that a listener has to give up first come last, and are
// returned where that fails.
func (n *Node) replaceListeners(ctx context.Context, gone, added []config.Listener) (unbound []config.Listener, err error) {
	taken := map[string]bool{}
	for _, l := range gone {
		taken[l.Network()+l.Address()] = true
	}
	var bound, later []config.Listener
	for _, l := range added {
		if taken[l.Network()+l.Address()] {
			later = append(later, l)
			continue
		}
		if err := n.addListener(ctx, l); err != nil {
			for _, b := range bound {
				n.mesh.RemoveListener(ctx, b.URL())
			}
			return nil, blame(err, added)
		}
		bound = append(bound, l)
	}
	for _, l := range gone {
		n.mesh.RemoveListener(ctx, l.URL())
	}
	var errs []error
	for _, l := range later {
		if err := n.addListener(ctx, l); err != nil {
			errs, unbound = append(errs, blame(err, added)), append(unbound, l)
		}
	}
	return unbound, errors.Join(errs...)
}

func (n *Node) addListener(ctx context.Context, l config.Listener) error {
	c, err := n.listenerConfig(l)
	if err != nil {
		return err
	}
	return n.mesh.AddListener(ctx, c)
}

// blame puts the item of the file to an error of a listener.
func blame(err error, listeners []config.Listener) error {
	if bad := (*mesh.ListenError)(nil); errors.As(err, &bad) {
		for _, l := range listeners {
			if l.URL() == bad.Address {
				return l.Pos.Errorf("", "%w", err)
			}
		}
	}
	return err
}

// difference returns what is in one list of items alone. Of items that say the
// same, as many stay as both lists have.
func difference[T any](before, after []T) (gone, added []T) {
	kept := make([]bool, len(before))
next:
	for _, a := range after {
		for i, b := range before {
			if !kept[i] && config.Equal(a, b) {
				kept[i] = true
				continue next
			}
		}
		added = append(added, a)
	}
	for i, b := range before {
		if !kept[i] {
			gone = append(gone, b)
		}
	}
	return gone, added
}

// compare is difference, with what is the same by same, if not equal, apart: as
// it is after.
func compare[T any](before, after []T, same func(a, b T) bool) (gone, added, changed []T) {
	gone, added = difference(before, after)
	added = slices.DeleteFunc(added, func(a T) bool {
		i := slices.IndexFunc(gone, func(b T) bool { return same(a, b) })
		if i >= 0 {
			gone = slices.Delete(gone, i, i+1)
			changed = append(changed, a)
		}
		return i >= 0
	})
	return gone, added, changed
}

// sameListener tells whether two items differ at most in what a running listener
// can change.
func sameListener(a, b config.Listener) bool {
	a.Cost, a.NodeCost, a.AllowedPeers = b.Cost, b.NodeCost, b.AllowedPeers
	return config.Equal(a, b)
}

// samePeer is sameListener for peers.
func samePeer(a, b config.Peer) bool {
	a.Cost, a.AllowedPeers = b.Cost, b.AllowedPeers
	return config.Equal(a, b)
}
