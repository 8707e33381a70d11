package main

import (
	"cmp"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ranvier-mesh/ranvier/runner"
)

// jobFlags adds the flags that describe a job, as ansible-runner has them.
func jobFlags(cmd *cobra.Command, o *runner.Options) {
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVarP(&o.Playbook, "playbook", "p", os.Getenv("RUNNER_PLAYBOOK"), "playbook to run, below project/")
	f.StringVarP(&o.Module, "module", "m", os.Getenv("RUNNER_MODULE"), "module to run ad hoc")
	f.StringVarP(&o.Role, "role", "r", os.Getenv("RUNNER_ROLE"), "role to run")
	f.StringVarP(&o.ModuleArgs, "args", "a", "", "arguments of the module")
	f.StringVar(&o.HostPattern, "hosts", "", "hosts for the module or role")
	f.StringVar(&o.RoleVars, "role-vars", "", `variables of the role: "k=v k2=v2"`)
	f.BoolVar(&o.RoleSkipFacts, "role-skip-facts", false, "gather no facts before the role")
	f.Var(pathList{&o.RolesPath}, "roles-path", "where roles are, separated by colons")
	f.StringVarP(&o.Ident, "ident", "i", "", "name of this run and of its artifact directory (default: a new uuid)")
	f.StringVar(&o.Inventory, "inventory", "", "inventory to use instead of inventory/")
	f.StringVar(&o.Limit, "limit", "", "hosts to limit the play to")
	f.StringVar(&o.Cmdline, "cmdline", "", "further arguments for ansible-playbook")
	f.IntVar(&o.Forks, "forks", 0, "how many hosts at the same time")
	f.CountVarP(&o.Verbosity, "verbose", "v", "more output from Ansible; may be repeated")
	f.BoolVarP(&o.Quiet, "quiet", "q", false, "no output of the play")
	f.BoolVarP(&o.JSONMode, "json", "j", false, "the play's events as JSON, one a line, instead of its output")
	f.IntVar(&o.RotateArtifacts, "rotate-artifacts", 0, "how many runs' artifacts to keep; 0 keeps all")
	f.StringVar(&o.ArtifactDir, "artifact-dir", "", "artifact directory on the worker")
	f.StringVar(&o.ProjectDir, "project-dir", "", "project directory on the worker")
	f.BoolVar(&o.OmitEventData, "omit-event-data", false, "events without event_data")
	f.BoolVar(&o.OnlyFailedEventData, "only-failed-event-data", false, "event_data in events of failure only")
	f.BoolVar(&o.SuppressEnvFiles, "omit-env-files", false, "write no env files on the worker")
	f.StringVarP(&o.Binary, "binary", "b", os.Getenv("RUNNER_BINARY"), "program to start instead of ansible-playbook or ansible")
	isolationFlags(cmd, o)
	cmd.MarkFlagsMutuallyExclusive("playbook", "module", "role")
}

func isolationFlags(cmd *cobra.Command, o *runner.Options) {
	f := cmd.Flags()
	f.BoolVar(&o.ProcessIsolation, "process-isolation", false, "run in a container or a sandbox")
	f.StringVar(&o.ProcessIsolationExecutable, "process-isolation-executable", "podman", "what isolates")
	f.StringVar(&o.ProcessIsolationPath, "process-isolation-path", "/tmp", "where the sandbox keeps its files")
	f.StringArrayVar(&o.ProcessIsolationHidePaths, "process-isolation-hide-paths", nil, "path that the play shall not see; may be repeated")
	f.StringArrayVar(&o.ProcessIsolationShowPaths, "process-isolation-show-paths", nil, "path that the play shall see; may be repeated")
	f.StringArrayVar(&o.ProcessIsolationROPaths, "process-isolation-ro-paths", nil, "path that the play shall only read; may be repeated")
	f.StringVar(&o.ContainerImage, "container-image", "", "image of the container")
	f.StringArrayVar(&o.ContainerVolumeMounts, "container-volume-mount", nil, "host:container[:options]; may be repeated")
	f.StringArrayVar(&o.ContainerOptions, "container-option", nil, "option for the container's engine; may be repeated")
	f.StringVar(&o.DirectoryIsolationBasePath, "directory-isolation-base-path", "", "copy the project below this path and run there")
}

// pathList is a flag whose value is separated by colons, as ANSIBLE_ROLES_PATH.
type pathList struct{ list *[]string }

func (p pathList) String() string { return strings.Join(*p.list, ":") }
func (p pathList) Type() string   { return "paths" }
func (p pathList) Set(s string) error {
	*p.list = strings.Split(s, ":")
	return nil
}

// complete checks the job as it stands on the command line.
func completeJob(cmd *cobra.Command, o *runner.Options, dir string) error {
	o.PrivateDataDir = dir
	if env := os.Getenv("ANSIBLE_ROLES_PATH"); env != "" && len(o.RolesPath) == 0 {
		o.RolesPath = strings.Split(env, ":")
	}
	if given := cmp.Or(o.Playbook, o.Module, o.Role); given == "" {
		if err := o.Check(); err != nil {
			return err
		}
	}
	o.Warn = func(text string) { fmt.Fprintf(os.Stderr, "ranvier: %s\n", text) }
	return nil
}
