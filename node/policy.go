package node

import (
	"fmt"
	"sync/atomic"

	"github.com/ranvier-mesh/ranvier/internal/control"
	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/internal/policy"
	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/worktypes"
	"github.com/ranvier-mesh/ranvier/worktypes/remote"
)

// newPolicy makes the node's policy of the file's items. It is open where the
// node has no identity, and so can know nobody, and where it stands in for
// Receptor.
func (n *Node) newPolicy(opt Options) {
	n.policy = policy.New(n.cfg.Rules(), n.self == nil || opt.Open)
	if n.policy.Open() && opt.Open {
		n.log.Warn("anybody who reaches this node may use its work types and services, as with Receptor: what no work-policy item names is open")
	}
	if n.self == nil && len(n.cfg.Rules()) > 0 {
		n.log.Warn("this node has no identity: the ids that its work-policy items name are what others call themselves", "item", n.cfg.WorkPolicies[0].Pos)
	}
}

// refusals counts what the policy has refused, by kind.
type refusals struct{ work, services, commands, units atomic.Uint64 }

func (r *refusals) count(k policy.Kind) {
	switch k {
	case policy.Work:
		r.work.Add(1)
	case policy.Service:
		r.services.Add(1)
	case policy.Command:
		r.commands.Add(1)
	}
}

func (r *refusals) status() control.Refused {
	return control.Refused{Work: r.work.Load(), Services: r.services.Load(), Commands: r.commands.Load(), Units: r.units.Load()}
}

// who is at the other end of a stream. All nodes of one member, "<id>/<random>",
// are one.
func who(conn *mesh.Conn) policy.Who {
	member, ok := conn.Member()
	if !ok {
		return policy.Who{ID: worktypes.Base(string(conn.PeerIdentity()))}
	}
	return policy.Who{ID: string(member.ID), Proved: true, Role: string(member.Role), Work: member.Work}
}

// Decide tells whether the other end of a stream may do something here. It is the
// one place where that is decided: what it refuses is a *policy.Refused, logged
// with who, what and why, and counted.
func (n *Node) Decide(conn *mesh.Conn, a policy.Ask) (policy.Grant, error) {
	grant, err := n.policy.Decide(who(conn), a)
	if err != nil {
		n.refused.count(a.Kind)
		n.log.Warn("refused by the policy", "peer", conn.PeerIdentity(), "what", a.Kind, "name", fmt.Sprintf("%.200s", a.Name), "why", err)
	}
	return grant, err
}

// MayOpen is Decide for a service that leads out of the mesh: what a
// command-service, tcp-client or unix-socket-client asks before it serves a
// stream.
func (n *Node) MayOpen(conn *mesh.Conn) error {
	addr, _ := conn.LocalAddr().(mesh.Addr)
	_, err := n.Decide(conn, policy.Ask{Kind: policy.Service, Name: addr.Service})
	return err
}

// mayWork returns whose work a stream's other end does, and what it may submit.
func (n *Node) mayWork(conn *mesh.Conn) (owner string, permit func(remote.Offer) (remote.Terms, error)) {
	owner = string(conn.PeerIdentity())
	if member, ok := conn.Member(); ok {
		owner = string(member.ID)
	}
	return owner, func(o remote.Offer) (remote.Terms, error) {
		grant, err := n.Decide(conn, policy.Ask{Kind: policy.Work, Name: o.Spec.Type, Params: o.Spec.Params})
		if err != nil {
			return remote.Terms{}, err
		}
		terms, err := n.signing.terms(who(conn), o, grant)
		if err != nil {
			n.refused.count(policy.Work)
		}
		if verify := terms.Verify; verify != nil {
			terms.Verify = func(order identity.WorkOrder, signature []byte) error {
				err := verify(order, signature)
				if err != nil {
					n.refused.count(policy.Work)
					n.log.Warn("refused by the policy", "peer", conn.PeerIdentity(), "what", policy.Work, "name", order.Type, "unit", order.Unit, "why", err)
				}
				return err
			}
		}
		return terms, err
	}
}

// mayControl returns what a stream's other end may ask of a control service. To
// change the node, or to go on from here under its name, one has to be on its
// host, or be named in a work-policy item for the service.
func (n *Node) mayControl(conn *mesh.Conn, service string) func(command string) error {
	return func(command string) error {
		_, err := n.Decide(conn, policy.Ask{Kind: policy.Command, Name: command, Service: service})
		return err
	}
}

// maySubmit asks for a unit that comes over a control connection. What goes on to
// another node does so under this node's name, so it is for those who may
// everything here; whether it is signed, that node asks.
func (w workRequest) maySubmit(spec worktypes.Spec) (remote.Terms, error) {
	conn, remotely := overMesh(w.s.Conn())
	onHost := !remotely && w.s.Conn().LocalAddr().Network() == "unix"
	grant := policy.Grant{Payload: w.n.cfg.ForType(spec.Type).Payload} // this host's socket
	if !remotely && !onHost {                                          // over TCP, from whom no item can be chosen by
		grant.NeedSignature = w.n.needSignature(spec.Type)
	}
	var by policy.Who
	var err error
	if remotely {
		by = who(conn)
		ask := policy.Ask{Kind: policy.Work, Name: spec.Type, Params: spec.Params}
		if spec.Node != "" {
			addr, _ := conn.LocalAddr().(mesh.Addr)
			ask = policy.Ask{Kind: policy.Command, Name: "work submit to another node", Service: addr.Service}
		}
		if grant, err = w.n.Decide(conn, ask); err != nil {
			return remote.Terms{}, err
		}
	}
	switch {
	case spec.Node != "":
		return remote.Terms{Payload: grant.Payload}, nil
	case onHost && !w.n.secure(spec.Type) && spec.Token != "":
		return remote.Terms{}, errUnexpected
	case onHost:
		return remote.Terms{Payload: grant.Payload}, nil
	}
	terms, err := w.n.signing.terms(by, remote.Offer{Spec: spec, Token: spec.Token}, grant)
	if err != nil {
		w.n.refused.count(policy.Work)
	}
	return terms, err
}
