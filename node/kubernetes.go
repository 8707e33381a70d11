package node

import (
	"fmt"

	"github.com/ranvier-mesh/ranvier/internal/config"
	"github.com/ranvier-mesh/ranvier/worktypes"
)

// kubernetes is a work type that the file names and this version does not run.
// It is not advertised; who submits it all the same is told why.
type kubernetes struct{ item config.Kubernetes }

// Name implements worktypes.Type.
func (k kubernetes) Name() string { return k.item.WorkType }

// Plan implements worktypes.Type: it refuses.
func (k kubernetes) Plan(worktypes.Spec, string) (worktypes.Plan, error) {
	return worktypes.Plan{}, fmt.Errorf("%w %q: it is work in Kubernetes (%s), which this version of Ranvier does not run: use a work-command, or keep Receptor on this node",
		worktypes.ErrUnknownType, k.item.WorkType, k.item.Pos)
}

// refusedTypes are the work types that are only there to be refused.
func (n *Node) refusedTypes() []worktypes.Type {
	var types []worktypes.Type
	for _, k := range n.cfg.Kubernetes {
		types = append(types, kubernetes{k})
	}
	return types
}
