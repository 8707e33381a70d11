package node

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/config"
	"github.com/ranvier-mesh/ranvier/worktypes"
)

// underPolicy is a work type whose jobs have what the work-policy items say: a
// user of their own, another grace.
type underPolicy struct {
	worktypes.Type
	user  *worktypes.User
	grace time.Duration
}

// Plan implements worktypes.Type.
func (t underPolicy) Plan(spec worktypes.Spec, scratch string) (worktypes.Plan, error) {
	plan, err := t.Type.Plan(spec, scratch)
	if t.grace > 0 {
		plan.Grace = t.grace
	}
	plan.User = t.user
	return plan, err
}

// withPolicy gives the types what the file says of their jobs.
func (n *Node) withPolicy(types []worktypes.Type) ([]worktypes.Type, error) {
	for i, t := range types {
		say := n.cfg.ForType(t.Name())
		if say.RunAs == "" && say.Grace == 0 {
			continue
		}
		u, err := n.runAs(say)
		if err != nil {
			return nil, err
		}
		types[i] = underPolicy{t, u, say.Grace}
	}
	return types, nil
}

// runAs finds the user that jobs run as; nil is the node's own.
func (n *Node) runAs(say config.WorkPolicy) (*worktypes.User, error) {
	if say.RunAs == "" {
		return nil, nil
	}
	found, err := user.Lookup(say.RunAs)
	if unknown := (user.UnknownUserError)(""); errors.As(err, &unknown) {
		found, err = user.LookupId(say.RunAs)
	}
	if err != nil {
		return nil, say.Pos.Errorf("runas", "%w: name a user of this host, by name or number", err)
	}
	u, err := identify(found)
	if err != nil {
		return nil, say.Pos.Errorf("runas", "user %s: %w", say.RunAs, err)
	}
	me := os.Geteuid()
	if err := mayRunAs(me, int(u.UID), found.Username); err != nil {
		return nil, say.Pos.Errorf("runas", "%w", err)
	}
	if me == int(u.UID) {
		return nil, nil
	}
	return u, nil
}

// mayRunAs tells whether a node of the user me can run jobs as another one.
func mayRunAs(me, uid int, name string) error {
	if me != 0 && me != uid {
		return fmt.Errorf("only a node that runs as root can run jobs as user %s; this one runs as uid %d", name, me)
	}
	return nil
}

func identify(found *user.User) (*worktypes.User, error) {
	u := &worktypes.User{Name: found.Username, Home: found.HomeDir}
	groups, err := found.GroupIds()
	if err != nil {
		return nil, err
	}
	ids := append([]string{found.Uid, found.Gid}, groups...)
	var numbers []uint32
	for _, id := range ids {
		v, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%q is no number of a user or group: %w", id, err)
		}
		numbers = append(numbers, uint32(v))
	}
	u.UID, u.GID, u.Groups = numbers[0], numbers[1], numbers[2:]
	return u, nil
}

// concurrent is how many jobs of each type run at once.
func (n *Node) concurrent(types []worktypes.Type) map[string]int {
	limits := map[string]int{}
	for _, t := range types {
		limits[t.Name()] = n.cfg.ForType(t.Name()).Concurrent
	}
	return limits
}

func (n *Node) retention() worktypes.Retention {
	l := n.cfg.WorkLimits
	return worktypes.Retention{Age: l.Age, Bytes: l.Size, OwnerBytes: l.OwnerSize}
}
