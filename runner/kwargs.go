package runner

import (
	"strconv"

	"github.com/ranvier-mesh/ranvier/runner/internal/stream"
)

// kwargs returns the job's description as it goes over the wire: first what
// ansible-runner's command line always sends, in its order and with null for
// what is not set, then what only its library sends, and only where it is set,
// because an older worker ends with a traceback at a name it does not know
// (docs/runner.md §3.1).
func (in *inputs) kwargs() []stream.Field {
	fields := []stream.Field{
		{Key: "ident", Value: in.Ident},
		{Key: "binary", Value: orNull(in.Binary)},
		{Key: "playbook", Value: orNull(in.Playbook)},
		{Key: "module", Value: orNull(in.Module)},
		{Key: "module_args", Value: orNull(in.ModuleArgs)},
		{Key: "host_pattern", Value: orNull(in.HostPattern)},
		{Key: "verbosity", Value: orNull(in.Verbosity)},
		{Key: "quiet", Value: in.Quiet},
		{Key: "rotate_artifacts", Value: in.RotateArtifacts},
		{Key: "json_mode", Value: in.JSONMode},
		{Key: "omit_event_data", Value: in.OmitEventData},
		{Key: "only_failed_event_data", Value: in.OnlyFailedEventData},
		{Key: "inventory", Value: in.inventory},
		{Key: "forks", Value: forks(in.Forks)},
		{Key: "project_dir", Value: orNull(in.ProjectDir)},
		{Key: "artifact_dir", Value: orNull(in.ArtifactDir)},
		{Key: "roles_path", Value: listOrNull(in.RolesPath)},
		{Key: "process_isolation", Value: orNull(in.ProcessIsolation)},
		{Key: "process_isolation_executable", Value: in.executable()},
		{Key: "process_isolation_path", Value: orNull(in.ProcessIsolationPath)},
		{Key: "process_isolation_hide_paths", Value: listOrNull(in.ProcessIsolationHidePaths)},
		{Key: "process_isolation_show_paths", Value: listOrNull(in.ProcessIsolationShowPaths)},
		{Key: "process_isolation_ro_paths", Value: listOrNull(in.ProcessIsolationROPaths)},
		{Key: "container_image", Value: orNull(in.ContainerImage)},
		{Key: "container_volume_mounts", Value: listOrNull(in.ContainerVolumeMounts)},
		{Key: "container_options", Value: listOrNull(in.ContainerOptions)},
		{Key: "directory_isolation_base_path", Value: orNull(in.DirectoryIsolationBasePath)},
	}
	// A command line that travels as a file is not there at all.
	if cmdline, stays := in.env["cmdline"]; stays || in.Cmdline == "" {
		fields = append(fields, stream.Field{Key: "cmdline", Value: cmdline})
	}
	fields = append(fields,
		stream.Field{Key: "limit", Value: orNull(in.Limit)},
		stream.Field{Key: "suppress_env_files", Value: in.SuppressEnvFiles})
	for _, f := range in.libraryKwargs() {
		if f.Value != nil {
			fields = append(fields, f)
		}
	}
	return fields
}

// executable is named where isolation is asked for: the Python worker has no
// default of its own.
func (in *inputs) executable() any {
	if in.ProcessIsolation && in.ProcessIsolationExecutable == "" {
		return "podman"
	}
	return orNull(in.ProcessIsolationExecutable)
}

// libraryKwargs returns what the command line has no flag for; nil where unset.
func (in *inputs) libraryKwargs() []stream.Field {
	fields := []stream.Field{
		{Key: "envvars", Value: in.env["envvars"]},
		{Key: "extravars", Value: in.env["extravars"]},
		{Key: "passwords", Value: in.env["passwords"]},
		{Key: "settings", Value: in.env["settings"]},
		{Key: "ssh_key", Value: in.env["ssh_key"]},
		{Key: "tags", Value: orNull(in.Tags)},
		{Key: "skip_tags", Value: orNull(in.SkipTags)},
		{Key: "timeout", Value: orNull(in.Timeout)},
		{Key: "host_cwd", Value: orNull(in.HostCWD)},
		{Key: "fact_cache", Value: orNull(in.FactCache)},
		{Key: "fact_cache_type", Value: orNull(in.FactCacheType)},
		{Key: "container_workdir", Value: orNull(in.ContainerWorkdir)},
		{Key: "check_job_event_data", Value: orNull(in.CheckJobEventData)},
		{Key: "suppress_output_file", Value: orNull(in.SuppressOutputFile)},
	}
	if len(in.ContainerAuthData) > 0 {
		fields = append(fields, stream.Field{Key: "container_auth_data", Value: in.ContainerAuthData})
	}
	return fields
}

// orNull returns nil, which is null on the wire, for what is not set.
func orNull[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}

func listOrNull(list []string) any {
	if len(list) == 0 {
		return nil
	}
	return list
}

// forks is a string on the wire: the Python command line does not parse it.
func forks(n int) any {
	if n == 0 {
		return nil
	}
	return strconv.Itoa(n)
}
