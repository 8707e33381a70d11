// Package command turns a job as it arrives at a worker, options and a private
// data directory, into the program to start: arguments, environment, answers
// and limits (docs/runner.md §10).
package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/ranvier-mesh/ranvier/runner/internal/pyjson"
)

// ErrJob is wrapped by the errors for a job that cannot be run as it is
// described; the text names the option, or the file and its line.
var ErrJob = errors.New("invalid job")

// Kwargs are a job's options as they are sent (docs/runner.md §3.1). Null and
// what was not sent are the zero value.
type Kwargs struct {
	Ident, Binary, Playbook, Module, ModuleArgs, HostPattern string
	Verbosity, RotateArtifacts                               int
	Quiet, JSONMode, OmitEventData, OnlyFailedEventData      bool
	Inventory, RolesPath                                     []string
	Forks, Limit, Tags, SkipTags, Cmdline                    string
	ProjectDir, ArtifactDir                                  string

	ProcessIsolation                                *bool
	ProcessIsolationExecutable, IsolationPath       string
	HidePaths, ShowPaths, ROPaths                   []string
	ContainerImage, ContainerWorkdir                string
	ContainerVolumeMounts, ContainerOptions         []string
	ContainerAuthData                               map[string]any
	DirectoryIsolationBasePath                      string
	EnvVars, ExtraVars, Passwords, Settings         []Entry
	ExtraVarsFile                                   string
	SSHKey, HostCWD                                 string
	Timeout                                         float64
	FactCache, FactCacheType                        string
	SuppressEnvFiles, SuppressOutputFile, checkData bool
}

// Entry is a member of a map that keeps its order.
type Entry struct {
	Key   string
	Value any    // string, bool, json.Number, nil, []any, map[string]any
	Raw   []byte // as JSON, where it came as JSON
	Line  int    // of the file, 0 where there is none
}

// ParseKwargs reads the value of the message kwargs. Errors wrap ErrJob.
func ParseKwargs(raw []byte) (*Kwargs, error) {
	k := new(Kwargs)
	fields := k.fields()
	var problem error
	err := pyjson.Object(raw, func(key, value []byte) {
		if problem != nil {
			return
		}
		name := string(key)
		set, known := fields[name]
		if !known {
			problem = fmt.Errorf("%w: kwargs: %q is not known here: the sender may be newer than this worker", ErrJob, name)
			return
		}
		if string(value) == "null" {
			return
		}
		if err := set(value); err != nil {
			problem = fmt.Errorf("%w: kwargs: %s: %w", ErrJob, name, err)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("%w: kwargs: %w", ErrJob, err)
	}
	return k, problem
}

// fields returns how each option is read.
func (k *Kwargs) fields() map[string]func([]byte) error {
	var ignored any
	return map[string]func([]byte) error{
		"ident": text(&k.Ident), "binary": text(&k.Binary), "playbook": text(&k.Playbook), "module": text(&k.Module),
		"module_args": text(&k.ModuleArgs), "host_pattern": text(&k.HostPattern), "verbosity": whole(&k.Verbosity),
		"quiet": truth(&k.Quiet), "rotate_artifacts": whole(&k.RotateArtifacts), "json_mode": truth(&k.JSONMode),
		"omit_event_data": truth(&k.OmitEventData), "only_failed_event_data": truth(&k.OnlyFailedEventData),
		"inventory": list(&k.Inventory), "forks": text(&k.Forks), "project_dir": text(&k.ProjectDir),
		"artifact_dir": text(&k.ArtifactDir), "roles_path": list(&k.RolesPath),
		"process_isolation": func(raw []byte) error {
			k.ProcessIsolation = new(bool)
			return truth(k.ProcessIsolation)(raw)
		},
		"process_isolation_executable": text(&k.ProcessIsolationExecutable), "process_isolation_path": text(&k.IsolationPath),
		"process_isolation_hide_paths": list(&k.HidePaths), "process_isolation_show_paths": list(&k.ShowPaths),
		"process_isolation_ro_paths": list(&k.ROPaths), "container_image": text(&k.ContainerImage),
		"container_volume_mounts": list(&k.ContainerVolumeMounts), "container_options": list(&k.ContainerOptions),
		"container_workdir": text(&k.ContainerWorkdir), "container_auth_data": anything(&k.ContainerAuthData, "an object"),
		"directory_isolation_base_path": text(&k.DirectoryIsolationBasePath), "cmdline": text(&k.Cmdline),
		"limit": text(&k.Limit), "tags": text(&k.Tags), "skip_tags": text(&k.SkipTags),
		"suppress_env_files": truth(&k.SuppressEnvFiles), "suppress_output_file": truth(&k.SuppressOutputFile),
		"check_job_event_data": truth(&k.checkData), "envvars": object(&k.EnvVars), "passwords": object(&k.Passwords),
		"settings": object(&k.Settings), "ssh_key": text(&k.SSHKey), "host_cwd": text(&k.HostCWD),
		"timeout": number(&k.Timeout), "fact_cache": text(&k.FactCache), "fact_cache_type": text(&k.FactCacheType),
		"extravars": func(raw []byte) error {
			if raw[0] == '"' {
				return text(&k.ExtraVarsFile)(raw)
			}
			return object(&k.ExtraVars)(raw)
		},
		// The Python tool's interface takes these too; here they mean nothing.
		"suppress_ansible_output": anything(&ignored, ""), "ignore_logging": anything(&ignored, ""), "debug": anything(&ignored, ""),
	}
}

var errKind = errors.New("has another type than it should")

func text(to *string) func([]byte) error {
	return func(raw []byte) error {
		switch {
		case raw[0] == '"':
			s, err := pyjson.Unquote(raw)
			*to = s
			return err
		case raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9':
			*to = string(raw)
			return nil
		}
		return fmt.Errorf("%.60s: %w: a string", raw, errKind)
	}
}

func number(to *float64) func([]byte) error {
	return func(raw []byte) error {
		var s string
		if err := text(&s)(raw); err != nil {
			return fmt.Errorf("%.60s: %w: a number", raw, errKind)
		}
		n, err := strconv.ParseFloat(s, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("%.60s: %w: a number from 0", raw, errKind)
		}
		*to = n
		return nil
	}
}

func whole(to *int) func([]byte) error {
	return func(raw []byte) error {
		var n float64
		if err := number(&n)(raw); err != nil {
			return err
		}
		*to = int(n)
		if float64(*to) != n {
			return fmt.Errorf("%.60s: %w: a whole number", raw, errKind)
		}
		return nil
	}
}

func truth(to *bool) func([]byte) error { return anything(to, "true or false") }

func anything[T any](to *T, what string) func([]byte) error {
	return func(raw []byte) error {
		if err := json.Unmarshal(pyjson.Plain(raw), to); err != nil {
			return fmt.Errorf("%.60s: %w: %s", raw, errKind, what)
		}
		return nil
	}
}

// list takes a string for a list of one.
func list(to *[]string) func([]byte) error {
	return func(raw []byte) error {
		if raw[0] == '"' {
			s, err := pyjson.Unquote(raw)
			if *to = nil; s != "" {
				*to = []string{s}
			}
			return err
		}
		return anything(to, "a list of strings")(raw)
	}
}

func object(to *[]Entry) func([]byte) error {
	return func(raw []byte) error {
		if raw[0] != '{' {
			return fmt.Errorf("%.60s: %w: an object", raw, errKind)
		}
		return parseObject(raw, to)
	}
}

func parseObject(raw []byte, to *[]Entry) error {
	var problem error
	err := pyjson.Object(raw, func(key, value []byte) {
		v, err := anyValue(value)
		problem = errors.Join(problem, err)
		*to = append(*to, Entry{Key: string(key), Value: v, Raw: value})
	})
	return errors.Join(err, problem)
}
