package node

import (
	"os/exec"
	"path/filepath"
	"time"

	"github.com/ranvier-mesh/ranvier/routing"
	"github.com/ranvier-mesh/ranvier/worktypes"
	"github.com/ranvier-mesh/ranvier/worktypes/ansiblerunner"
	"github.com/ranvier-mesh/ranvier/worktypes/command"
	"github.com/ranvier-mesh/ranvier/worktypes/keeper"
	"github.com/ranvier-mesh/ranvier/worktypes/remote"
)

// parkTime is how long a payload is kept whose submitter's connection broke.
const parkTime = time.Minute

// openWork takes the data directory and registers the work types: those that
// the file names, or ansible-runner's where it names none and one is installed.
func (n *Node) openWork(opt Options) error {
	types, err := n.workTypes()
	if err != nil {
		return err
	}
	if types, err = n.withPolicy(types); err != nil {
		return err
	}
	registry, err := worktypes.NewRegistry(append(types, n.refusedTypes()...)...)
	if err != nil {
		return err
	}
	if err := mkdir(n.cfg.Node.DataDir); err != nil {
		return err
	}
	if n.audit, err = openAudit(n.cfg.Node.DataDir, n.log); err != nil {
		return err
	}
	n.forward = remote.NewForwarder(n.dialWork, n.log)
	n.forward.Away = func(node string) <-chan struct{} { return n.mesh.Away(routing.NodeID(node)) }
	if n.self != nil {
		n.forward.Sign = n.self.SignWork
	}
	if s := n.signing.signer; s != nil {
		n.forward.Token = func(node string) (string, error) { return s.Token(node, time.Now()) }
	}
	w := worktypes.Options{Log: n.log, Agent: n.forward, ContentLimit: n.cfg.Node.ContentLimit,
		TTL: n.cfg.WorkLimits.TTL, Grace: n.cfg.WorkLimits.Grace, Limits: n.concurrent(types), Retention: n.retention()}
	if len(opt.Keeper) > 0 {
		w.Keeper = func() (worktypes.Keeper, error) {
			return keeper.Open(n.cfg.Node.DataDir, keeper.Options{Command: opt.Keeper, Version: opt.Version, Log: n.log})
		}
	}
	n.work, err = worktypes.Open(n.cfg.Node.DataDir, registry, w)
	return err
}

func (n *Node) workTypes() ([]worktypes.Type, error) {
	var types []worktypes.Type
	for _, w := range n.cfg.WorkCommands {
		_, lookErr := exec.LookPath(w.Command)
		runner := filepath.Base(w.Command) == "ansible-runner"
		if lookErr != nil && runner && n.worker != "" {
			n.log.Info("ansible-runner is not installed: this program's own worker takes its place", "worktype", w.WorkType, "item", w.Pos)
			lookErr, w.Command = nil, n.worker
		}
		c := command.Config{WorkType: w.WorkType, Command: w.Command, Params: w.Params, AllowRuntimeParams: w.AllowRuntimeParams}
		if runner {
			c.Grace = ansiblerunner.Grace
		}
		t, err := command.New(c)
		if err != nil {
			return nil, w.Pos.Errorf("", "%w", err)
		}
		if lookErr != nil {
			n.log.Warn("work of this type will fail until its command is there", "worktype", w.WorkType, "item", w.Pos, "err", lookErr)
		}
		types = append(types, t)
		n.types = append(n.types, routing.WorkType{Name: w.WorkType, Secure: n.secure(w.WorkType)})
	}
	if len(types)+len(n.cfg.Kubernetes) > 0 {
		return types, nil
	}
	t, err := ansiblerunner.Find(n.worker, string(n.cfg.Node.ID))
	if err != nil {
		n.log.Info("this node takes no ansible-runner work", "cause", err)
		return nil, nil
	}
	n.types = append(n.types, routing.WorkType{Name: t.Name(), Secure: n.secure(t.Name())})
	return []worktypes.Type{t}, nil
}
