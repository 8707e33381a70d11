package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/ranvier-mesh/ranvier/internal/control"
	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/node"
	"github.com/ranvier-mesh/ranvier/routing"
	"github.com/ranvier-mesh/ranvier/runner/remote"
)

// socketEnv names the control socket where --socket is not given.
const socketEnv = "RANVIER_SOCKET"

// access is how a command gets into the mesh: through a running node's control
// socket, or as an ephemeral node.
type access struct {
	socket   string
	peers    []string
	identity userIdentity
}

func (a *access) flags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&a.socket, "socket", "s", os.Getenv(socketEnv), "control socket of a running node (default $"+socketEnv+")")
	cmd.Flags().StringArrayVar(&a.peers, "receptor-peer", nil, "attach to the mesh through this node instead: host:port, receptor://host:port, or a URL of quic, ws or wss; may be repeated")
	a.identity.flag(cmd)
	cmd.MarkFlagsMutuallyExclusive("socket", "receptor-peer")
	cmd.MarkFlagFilename("socket")
}

// asker is what both ways can do.
type asker interface {
	Ping(ctx context.Context, target string) (control.PingResult, error)
	Traceroute(ctx context.Context, target string) ([]control.TraceHop, error)
	Status(ctx context.Context, want ...string) (control.Status, error)
	Close() error
}

// open connects; without any flag to a node on this host that listens on
// ansible-runner's default port.
func (a *access) open(ctx context.Context) (asker, error) {
	if a.socket != "" && len(a.peers) == 0 {
		c, err := control.Dial(ctx, a.socket)
		if err != nil {
			return nil, &codeError{exitUnavailable, err}
		}
		return c, nil
	}
	peers := a.peers
	if len(peers) == 0 {
		peers = []string{remote.DefaultPeer}
	}
	self, err := a.identity.load()
	if err != nil {
		return nil, unavailable(err)
	}
	carriers, err := transports(nil, self, nil)
	if err != nil {
		return nil, err
	}
	m, err := remote.Attach(ctx, 5*time.Second, peers, mesh.Config{Self: self, Transports: carriers, Software: "ranvier " + buildVersion()})
	if err != nil {
		return nil, unavailable(wayTo(err, a.peers))
	}
	a.identity.renew(ctx, m.Mesh, self)
	return ephemeral{m}, nil
}

// ephemeral asks as a node of its own.
type ephemeral struct{ *mesh.Attachment }

func (e ephemeral) Ping(ctx context.Context, target string) (control.PingResult, error) {
	took, _, err := e.Attachment.Ping(ctx, routing.NodeID(target))
	return control.PingResult{From: target, Time: took}, err
}

func (e ephemeral) Traceroute(ctx context.Context, target string) ([]control.TraceHop, error) {
	_, hops, err := e.Attachment.Ping(ctx, routing.NodeID(target))
	return node.TraceHops(hops, err)
}

// Status asks the node that this one is attached to: an ephemeral node knows
// nothing of the mesh.
func (e ephemeral) Status(ctx context.Context, want ...string) (control.Status, error) {
	home := e.Attachment.Status().Links[0].Node
	conn, err := e.Dial(ctx, home, "control")
	if err != nil {
		return control.Status{}, err
	}
	c, err := control.NewClient(ctx, conn)
	if err != nil {
		return control.Status{}, err
	}
	defer c.Close()
	return c.Status(ctx, want...)
}

// wayTo adds to an error of the peer that was tried for want of another how to name one.
func wayTo(err error, peers []string) error {
	if len(peers) == 0 && errors.As(err, new(*mesh.PeerError)) {
		return fmt.Errorf("%w (name a control socket with --socket or a node with --receptor-peer)", err)
	}
	return err
}

// unavailable gives errors of the way to a node their exit code.
func unavailable(err error) error {
	var peer *mesh.PeerError
	var refused *mesh.RefusedError
	if errors.As(err, &peer) || errors.As(err, &refused) || errors.Is(err, identity.ErrRevoked) {
		return &codeError{exitUnavailable, err}
	}
	return err
}
