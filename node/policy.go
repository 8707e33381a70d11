package node

import (
	"fmt"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/worktypes"
)

// mayWork returns whose work a stream's other end does, and what it may
// submit: the work types that its certificate names. All nodes of one member,
// "<id>/<random>", are one owner of units. Without identities anybody may submit
// anything.
func (n *Node) mayWork(conn *mesh.Conn) (owner string, permit func(worktypes.Spec) error) {
	member, ok := conn.Member()
	if !ok {
		return string(conn.PeerIdentity()), nil
	}
	return string(member.ID), func(s worktypes.Spec) error { return workPolicy(member, s) }
}

func workPolicy(member identity.Member, s worktypes.Spec) error {
	if !member.MayWork(s.Type) {
		return fmt.Errorf("the certificate of %s is for work of the types %q, not %q (ranvier ca token --work)", member.ID, member.Work, s.Type)
	}
	return nil
}

// mayControl returns what a stream's other end may ask of the control service:
// to look. To change the node, or to go on from here under its name, one has to be
// on its host.
func (n *Node) mayControl(conn *mesh.Conn) func(command string) error {
	member, ok := conn.Member()
	if !ok {
		return nil
	}
	return func(command string) error {
		switch command {
		case "status", "ping", "traceroute":
			return nil
		}
		n.log.Warn("control command refused", "command", command, "peer", member.ID, "why", "it came over the mesh")
		return fmt.Errorf("%s is not allowed over the mesh: use the control socket on the node's host", command)
	}
}
