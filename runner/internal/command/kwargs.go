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
		"ident": name(&k.Ident), "binary": text(&k.Binary), "playbook": text(&k.Playbook), "module": text(&k.Module),
		"module_args": text(&k.ModuleArgs), "host_pattern": text(&k.HostPattern), "verbosity": whole(&k.Verbosity),
		"quiet": truth(&k.Quiet), "rotate_artifacts": whole(&k.RotateArtifacts), "json_mode": truth(&k.JSONMode),
		"omit_event_data": truth(&k.OmitEventData), "only_failed_event_data": truth(&k.OnlyFailedEventData),
		"inventory": list(&k.Inventory), "forks": forks(&k.Forks), "project_dir": text(&k.ProjectDir),
		"artifact_dir": text(&k.ArtifactDir), "roles_path": list(&k.RolesPath),
		"process_isolation": func(raw []byte) error {
			k.ProcessIsolation = new(bool)
			return truth(k.ProcessIsolation)(raw)
		},
		"process_isolation_executable": text(&k.ProcessIsolationExecutable), "process_isolation_path": text(&k.IsolationPath),
		"process_isolation_hide_paths": list(&k.HidePaths), "process_isolation_show_paths": list(&k.ShowPaths),
		"process_isolation_ro_paths": list(&k.ROPaths), "container_image": text(&k.ContainerImage),
		"container_volume_mounts": list(&k.ContainerVolumeMounts), "container_options": list(&k.ContainerOptions),
		"container_workdir": text(&k.ContainerWorkdir), "container_auth_data": anything(&k.ContainerAuthData, "a map"),
		"directory_isolation_base_path": text(&k.DirectoryIsolationBasePath), "cmdline": text(&k.Cmdline),
		"limit": text(&k.Limit), "tags": text(&k.Tags), "skip_tags": text(&k.SkipTags),
		"suppress_env_files": truth(&k.SuppressEnvFiles), "suppress_output_file": truth(&k.SuppressOutputFile),
		"check_job_event_data": truth(&k.checkData), "envvars": object(&k.EnvVars), "passwords": object(&k.Passwords),
		"settings": object(&k.Settings), "ssh_key": text(&k.SSHKey), "host_cwd": text(&k.HostCWD),
		"timeout": number(&k.Timeout), "fact_cache": text(&k.FactCache), "fact_cache_type": text(&k.FactCacheType),
		"extravars": func(raw []byte) error {
			switch raw[0] {
			case '"':
				return text(&k.ExtraVarsFile)(raw)
			case '{':
				return object(&k.ExtraVars)(raw)
			}
			return kindError(raw, "a map, or the path of a file")
		},
		// The Python tool's interface takes these too; here they mean nothing.
		"suppress_ansible_output": anything(&ignored, ""), "ignore_logging": anything(&ignored, ""), "debug": anything(&ignored, ""),
	}
}

// kindError says what a value has to be and what it is, without the value: it
// may be a secret.
func kindError(raw []byte, want string) error {
	is := "a number"
	switch raw[0] {
	case '"':
		is = "a string"
	case '[':
		is = "a list"
	case '{':
		is = "a map"
	case 't', 'f':
		is = "true or false"
	}
	return fmt.Errorf("has to be %s, and is %s", want, is)
}

func isNumber(raw []byte) bool { return raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9' }

func text(to *string) func([]byte) error {
	return func(raw []byte) (err error) {
		if raw[0] != '"' {
			return kindError(raw, "a string")
		}
		*to, err = pyjson.Unquote(raw)
		return err
	}
}

// name takes a number too: AWX names a job's artifacts by its number.
func name(to *string) func([]byte) error {
	return func(raw []byte) error {
		if isNumber(raw) {
			*to = string(raw)
			return nil
		}
		return text(to)(raw)
	}
}

// forks takes a number, or one in quotes, as the Python command line sends it.
func forks(to *string) func([]byte) error {
	return func(raw []byte) error {
		var s string
		if err := name(&s)(raw); err != nil {
			return kindError(raw, "a whole number from 0")
		}
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil {
			return fmt.Errorf("has to be a whole number from 0, and is %.60q", s)
		}
		if *to = ""; n > 0 {
			*to = s
		}
		return nil
	}
}

func number(to *float64) func([]byte) error {
	return func(raw []byte) error {
		if !isNumber(raw) {
			return kindError(raw, "a number from 0")
		}
		n, err := strconv.ParseFloat(string(raw), 64)
		if err != nil || n < 0 {
			return fmt.Errorf("has to be a number from 0, and is %.60s", raw)
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
			return fmt.Errorf("has to be a whole number, and is %.60s", raw)
		}
		return nil
	}
}

func truth(to *bool) func([]byte) error { return anything(to, "true or false") }

func anything[T any](to *T, want string) func([]byte) error {
	return func(raw []byte) error {
		if err := json.Unmarshal(pyjson.Plain(raw), to); err != nil {
			return kindError(raw, want)
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
		return anything(to, "a string or a list of strings")(raw)
	}
}

func object(to *[]Entry) func([]byte) error {
	return func(raw []byte) error {
		if raw[0] != '{' {
			return kindError(raw, "a map")
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
