package worktypes

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Type is a kind of job. Implementations are values without state; their
// methods are called by many goroutines at once.
type Type interface {
	// Name is what submitters call the type.
	Name() string
	// Plan turns a spec into what to run. scratch is a directory that is
	// there, empty and private to the unit, when Plan.Scratch is set, while the
	// job runs; it is removed with all that is in it when the job has ended.
	// Plan is also called to check a spec before it is accepted: it has no
	// effects. An error wraps ErrForbiddenParams when the params are not
	// allowed, and names the key.
	Plan(spec Spec, scratch string) (Plan, error)
}

// Plan is what to run for a unit.
type Plan struct {
	// Name is what the process is called in a unit's Detail; empty is the
	// base name of Argv[0].
	Name string
	// Argv is the program and its arguments.
	Argv []string
	// Env is added to the node's environment, as KEY=value; later entries win.
	Env []string
	// Dir is the working directory; empty is the node's.
	Dir string
	// Scratch asks for the scratch directory.
	Scratch bool
	// Tree says what to do with a tree that was submitted with the unit; nil:
	// the type takes none. It needs Scratch.
	Tree *TreePlan
	// Binary tells that the process reads zips in its payload that are not in
	// base64 (docs/runner.md §1.2): it is of this program.
	Binary bool
	// Grace is how long a canceled job has between SIGINT and SIGKILL; 0 is
	// the Manager's default.
	Grace time.Duration
	// User is who the process runs as; nil: who the node runs as. Only root can
	// run jobs as somebody else.
	User *User
	// SeparateStderr keeps standard error out of the results, in a file of its
	// own whose last lines go into Detail when the job fails. Without it
	// stdout and stderr are one file in the order in which they were written.
	SeparateStderr bool
}

// TreePlan is the part of a Plan for a unit that has a tree (docs/work.md §6).
type TreePlan struct {
	// Dir is where the tree is built before the process starts: in the scratch
	// directory, one level deep.
	Dir string
	// Argv takes the place of Plan.Argv.
	Argv []string
}

// Registry is the types of a node. It does not change; the zero value has none.
type Registry struct {
	types map[string]Type
}

// NewRegistry returns a registry of the types. It is an error when two have one
// name or one has none.
func NewRegistry(types ...Type) (*Registry, error) {
	r := &Registry{types: make(map[string]Type, len(types))}
	for _, t := range types {
		name := t.Name()
		if name == "" {
			return nil, fmt.Errorf("a work type of %T has no name", t)
		}
		if r.types[name] != nil {
			return nil, fmt.Errorf("work type %q is there twice: give one of them another name", name)
		}
		r.types[name] = t
	}
	return r, nil
}

// Lookup returns the type of that name, else an *UnknownTypeError.
func (r *Registry) Lookup(name string) (Type, error) {
	if t := r.types[name]; t != nil {
		return t, nil
	}
	return nil, &UnknownTypeError{Type: name, Have: r.Names()}
}

// Names returns the types' names, sorted.
func (r *Registry) Names() []string { return slices.Sorted(maps.Keys(r.types)) }
