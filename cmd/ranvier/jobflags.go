package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ranvier-mesh/ranvier/runner"
)

// jobFlags are the flags that describe a job, as the Python tool has them.
type jobFlags struct {
	o         *runner.Options
	rolesPath string
	strategy  string
}

// kinds are the flags of which one says what to run; the environment can say it too.
var kinds = []string{"playbook", "module", "role"}

// add defines the flags. Their defaults in Options stay empty, so that what is
// not said is not sent, and the worker's settings hold.
func (j *jobFlags) add(cmd *cobra.Command) {
	o, f := j.o, cmd.Flags()
	f.SortFlags = false
	f.StringVarP(&o.Playbook, "playbook", "p", os.Getenv("RUNNER_PLAYBOOK"), "playbook to run, below project/ (default $RUNNER_PLAYBOOK)")
	f.StringVarP(&o.Module, "module", "m", os.Getenv("RUNNER_MODULE"), "module to run ad hoc (default $RUNNER_MODULE)")
	f.StringVarP(&o.Role, "role", "r", os.Getenv("RUNNER_ROLE"), "role to run (default $RUNNER_ROLE)")
	f.StringVarP(&o.ModuleArgs, "args", "a", "", "arguments of the module")
	f.StringVar(&o.HostPattern, "hosts", "", "hosts for the module or role")
	f.StringVar(&o.RoleVars, "role-vars", "", `variables of the role: "k=v k2=v2"`)
	f.BoolVar(&o.RoleSkipFacts, "role-skip-facts", false, "gather no facts before the role")
	f.StringVar(&j.rolesPath, "roles-path", os.Getenv("ANSIBLE_ROLES_PATH"), "where roles are, separated by colons (default $ANSIBLE_ROLES_PATH)")
	f.StringVarP(&o.Ident, "ident", "i", "", "name of this run and of its artifact directory (default: a new uuid)")
	f.StringVar(&o.Inventory, "inventory", "", "inventory to use instead of inventory/")
	f.StringVar(&o.Limit, "limit", "", "hosts to limit the play to")
	f.StringVar(&o.Cmdline, "cmdline", "", "further arguments for ansible-playbook")
	f.IntVar(&o.Forks, "forks", 0, "how many hosts at the same time")
	f.StringVar(&j.strategy, "strategy", "", "Ansible's strategy for plays that name none: linear, free, ..., or one of Mitogen's: mitogen, mitogen_linear, mitogen_free, mitogen_host_pinned")
	f.CountVarP(&o.Verbosity, "verbose", "v", "more output from Ansible; may be repeated")
	f.BoolVarP(&o.Quiet, "quiet", "q", false, "no output of the play")
	f.BoolVarP(&o.JSONMode, "json", "j", false, "the play's events as JSON, one a line, instead of its output")
	f.IntVar(&o.RotateArtifacts, "rotate-artifacts", 0, "how many runs' artifacts to keep, this one included; 0 keeps all")
	f.StringVar(&o.ArtifactDir, "artifact-dir", "", "directory for the artifacts of runs (default DIR/artifacts)")
	f.StringVar(&o.ProjectDir, "project-dir", "", "directory with the playbooks (default DIR/project)")
	f.BoolVar(&o.OmitEventData, "omit-event-data", false, "events without event_data")
	f.BoolVar(&o.OnlyFailedEventData, "only-failed-event-data", false, "event_data in events of failure only")
	f.BoolVar(&o.SuppressEnvFiles, "omit-env-files", false, "write no env files on the worker")
	f.StringVarP(&o.Binary, "binary", "b", os.Getenv("RUNNER_BINARY"), "program to start instead of ansible-playbook or ansible (default $RUNNER_BINARY)")
	isolationFlags(cmd, o)
	// The defaults are named in the texts: what they hold here is somebody's
	// environment, which a help page should not show.
	for _, name := range append([]string{"roles-path", "binary"}, kinds...) {
		f.Lookup(name).DefValue = ""
	}
}

func isolationFlags(cmd *cobra.Command, o *runner.Options) {
	f := cmd.Flags()
	f.BoolVar(&o.ProcessIsolation, "process-isolation", false, "run in a container (podman, docker) or a sandbox (bwrap)")
	f.StringVar(&o.ProcessIsolationExecutable, "process-isolation-executable", "", "what isolates (default podman)")
	f.StringVar(&o.ProcessIsolationPath, "process-isolation-path", "", "where the sandbox keeps its files (default /tmp)")
	f.Var((*wordList)(&o.ProcessIsolationHidePaths), "process-isolation-hide-paths", "paths that the play shall not see: all words up to the next flag")
	f.Var((*wordList)(&o.ProcessIsolationShowPaths), "process-isolation-show-paths", "paths that the play shall see")
	f.Var((*wordList)(&o.ProcessIsolationROPaths), "process-isolation-ro-paths", "paths that the play shall only read")
	f.StringVar(&o.ContainerImage, "container-image", runner.DefaultContainerImage, "image of the container")
	f.StringArrayVar(&o.ContainerVolumeMounts, "container-volume-mount", nil, "host:container[:options]; may be repeated")
	f.StringArrayVar(&o.ContainerOptions, "container-option", nil, "option for the container's engine; may be repeated")
	f.StringVar(&o.DirectoryIsolationBasePath, "directory-isolation-base-path", "", "copy the project below this path and run there")
}

// complete takes the job as it stands on the command line, and checks it as far
// as the words go.
func (j *jobFlags) complete(cmd *cobra.Command, dir string) error {
	o := j.o
	o.PrivateDataDir = dir
	var given []string
	for _, name := range kinds {
		if cmd.Flags().Changed(name) {
			given = append(given, name)
		}
	}
	switch len(given) {
	case 0: // what the environment says
	case 1: // and what the environment says of another kind is not meant
		for name, value := range map[string]*string{"playbook": &o.Playbook, "module": &o.Module, "role": &o.Role} {
			if name != given[0] {
				*value = ""
			}
		}
	default:
		a, b := cmd.Flags().Lookup(given[0]), cmd.Flags().Lookup(given[1])
		return &usageError{fmt.Errorf("argument -%s/--%s: not allowed with argument -%s/--%s", b.Shorthand, b.Name, a.Shorthand, a.Name)}
	}
	if j.rolesPath != "" {
		o.RolesPath = []string{j.rolesPath}
	}
	if j.strategy != "" {
		o.EnvVars = map[string]string{"ANSIBLE_STRATEGY": j.strategy}
	}
	if err := j.here(cmd.Name() == "transmit"); err != nil {
		return err
	}
	name := cmd.Root().Name()
	o.Warn = func(text string) { fmt.Fprintf(os.Stderr, "%s: %s\n", name, text) }
	if standsIn(cmd) && o.Role == "" {
		o.RoleVars = "" // which the Python tool then does not look at
	}
	if standsIn(cmd) && o.Forks < 0 { // Ansible's own answer
		return &usageError{fmt.Errorf("argument --forks: %d is no number of processes", o.Forks)}
	}
	err := o.Check()
	if errors.Is(err, runner.ErrOptions) && !standsIn(cmd) { // to the Python tool it is a failure
		return &usageError{err}
	}
	return err
}

// here is what means this machine where the job is run from here, and only then:
// as with the Python tool transmit sends directories as they are written.
func (j *jobFlags) here(elsewhere bool) error {
	o := j.o
	if elsewhere {
		o.Ident = cmp.Or(o.Ident, runner.NewIdent())
		return nil
	}
	o.Ident = cmp.Or(o.Ident, uuid.NewString())
	for _, dir := range []*string{&o.ArtifactDir, &o.ProjectDir} {
		if *dir == "" {
			continue
		}
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return err
		}
		*dir = abs
	}
	return nil
}

// hideFlags keeps the flags of cmd out of its help: they are taken, since the
// Python tool takes them, and mean nothing.
func hideFlags(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) { f.Hidden = true })
}
