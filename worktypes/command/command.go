// Package command is the work type that runs a command of the site's choice:
// Receptor's work-command.
package command

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/shlex"

	"github.com/ranvier-mesh/ranvier/worktypes"
)

// ParamsKey is the one runtime parameter: words that are added to the command.
const ParamsKey = "params"

// Config is a work-command item of the configuration file.
type Config struct {
	WorkType           string        // what submitters call it
	Command            string        // the program
	Params             string        // its arguments, in shell words
	AllowRuntimeParams bool          // whether a submit may add arguments (ParamsKey)
	Grace              time.Duration // of a canceled job; 0: the node's
}

// New returns the type. The error names the item's key that is wrong.
func New(c Config) (worktypes.Type, error) {
	if c.WorkType == "" {
		return nil, fmt.Errorf("work-command %q: worktype is missing", c.Command)
	}
	if c.Command == "" {
		return nil, fmt.Errorf("work-command %q: command is missing", c.WorkType)
	}
	words, err := shlex.Split(c.Params)
	if err != nil {
		return nil, fmt.Errorf("work-command %q: params %q: %w", c.WorkType, c.Params, err)
	}
	return &command{name: c.WorkType, argv: append([]string{c.Command}, words...), runtime: c.AllowRuntimeParams, grace: c.Grace}, nil
}

type command struct {
	name    string
	argv    []string
	runtime bool
	grace   time.Duration
}

// Name implements worktypes.Type.
func (c *command) Name() string { return c.name }

// Plan implements worktypes.Type. The job's stdout and stderr are one file:
// those who use such types look for tracebacks in the results.
func (c *command) Plan(spec worktypes.Spec, _ string) (worktypes.Plan, error) {
	for _, key := range slices.Sorted(maps.Keys(spec.Params)) {
		if key != ParamsKey {
			return worktypes.Plan{}, fmt.Errorf("%w: work type %q takes no %q", worktypes.ErrForbiddenParams, c.name, key)
		}
	}
	extra := spec.Params[ParamsKey]
	if extra == "" {
		return worktypes.Plan{Argv: c.argv, Grace: c.grace}, nil
	}
	if !c.runtime {
		return worktypes.Plan{}, fmt.Errorf("%w: work type %q takes no %q: its allowruntimeparams is false", worktypes.ErrForbiddenParams, c.name, ParamsKey)
	}
	words, err := shlex.Split(extra)
	if err != nil {
		return worktypes.Plan{}, fmt.Errorf("%w: %q: %v", worktypes.ErrBadSpec, ParamsKey, err)
	}
	return worktypes.Plan{Argv: slices.Concat(c.argv, words), Grace: c.grace}, nil
}
