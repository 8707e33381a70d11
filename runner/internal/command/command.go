package command

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"time"

	"github.com/ranvier-mesh/ranvier/runner/internal/callback"
	"github.com/ranvier-mesh/ranvier/runner/internal/mitogen"
	"github.com/ranvier-mesh/ranvier/runner/internal/terminal"
)

// Job is what to run, and all that has to be known about it.
type Job struct {
	Ident       string
	Argv        []string
	Env         map[string]string // of the program, in a container: of what runs there
	Dir         string            // as it is told; in a container it is one there
	StartDir    string            // where the program is started
	ArtifactDir string
	FactCache   string // empty for none

	Prompts                 []terminal.Prompt
	IdleTimeout, JobTimeout time.Duration
	SuppressOutputFile      bool
	Quiet                   *bool // what the settings say of it, if they do
	JSONMode                bool
	Rotate                  int
	Warnings                []string // what of the job's files is not understood, and does no harm

	ExtraVars  []byte // what a file among the artifacts has to say; nil for none
	SSHKey     string // what the pipe SSHKeyPipe has to say
	SSHKeyPipe string
	Engine     string   // podman or docker, where the job runs in a container
	Container  string   // its name
	EngineEnv  []string // for the engine, not for the job
	Remove     []string // what the job leaves behind

	callbackDir string // where the job sees it
	sentTo      string // the private data directory, where it came from somebody else
}

const (
	localTempVariable = "ANSIBLE_LOCAL_TEMP"
	tempName          = "tmp"       // in the artifact directory, while the job runs,
	extraVarsName     = "extravars" // and so this
)

// Input is what a Job is made of.
type Input struct {
	*Kwargs
	Dir     string   // the private data directory, absolute
	Sent    bool     // it came from somebody else, and so did the links in it
	Environ []string // what the job's environment begins with, as os.Environ
}

// builder makes a Job.
type builder struct {
	Input
	job      *Job
	settings settings
	project  string
	told     string // the artifact directory, where the job sees it
	adHoc    bool
	raw      bool // the command line is given as a whole
}

// Prepare makes the job; it writes nothing but what has to be there for its
// isolation, which Job.Remove tells of, also where there is an error. Errors
// wrap ErrJob.
func Prepare(ctx context.Context, in Input) (*Job, error) {
	b := &builder{Input: in, job: &Job{Ident: in.Ident, Rotate: in.RotateArtifacts, JSONMode: in.JSONMode}}
	if in.Sent {
		b.job.sentTo = filepath.Clean(in.Dir)
	}
	for _, step := range []func() error{
		b.readSettings, b.paths, b.environment, b.answers, b.sshKey, b.isolateDir, b.command,
		b.localTemp, func() error { return b.mitogen(ctx) }, b.wrap,
	} {
		if err := step(); err != nil {
			return b.job, err
		}
	}
	return b.job, nil
}

func (b *builder) paths() error {
	if b.Ident == "" || b.Ident == "." || b.Ident == ".." || strings.ContainsAny(b.Ident, "/\x00") {
		return fmt.Errorf("%w: kwargs: ident: %q cannot be the name of a directory", ErrJob, b.Ident)
	}
	artifacts := cmp.Or(b.ArtifactDir, "artifacts")
	b.job.ArtifactDir = filepath.Join(b.below(artifacts), b.Ident)
	b.project = b.below(cmp.Or(b.ProjectDir, "project"))
	b.adHoc = b.Binary == "" && b.Module != ""
	if b.Module != "" && b.Playbook != "" {
		return fmt.Errorf("%w: kwargs: playbook and module exclude each other", ErrJob)
	}
	return nil
}

func (b *builder) below(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(b.Dir, path)
}

func (b *builder) exists(path string) bool {
	_, err := os.Stat(b.below(path))
	return err == nil
}

// environment: what the process has < what the options say < env/envvars < what
// the job needs.
func (b *builder) environment() error {
	env := make(map[string]string)
	if b.containerized() {
		if b.settings.executable == "podman" {
			env["ANSIBLE_UNSAFE_WRITES"] = "1"
		}
	} else {
		for _, entry := range b.Environ {
			if key, value, ok := strings.Cut(entry, "="); ok && key != "" && key != callback.KeyVariable {
				env[key] = value
			}
		}
	}
	for i, e := range b.EnvVars {
		if s, ok := e.Value.(string); ok && e.Key == "ANSIBLE_ROLES_PATH" {
			b.EnvVars[i].Value = b.rolesPath(filepath.SplitList(s))
		}
	}
	file, err := readMap(b.Dir, "env/envvars")
	if err != nil {
		return err
	}
	for _, e := range append(slices.Clone(b.EnvVars), file...) {
		value, ok := pyString(e.Value)
		if !ok || e.Key == "" || strings.ContainsAny(e.Key, "=\x00") || strings.Contains(value, "\x00") {
			return fmt.Errorf("%w: %s: not a name and a text for the environment", ErrJob, e.where("env/envvars"))
		}
		env[e.Key] = value
	}
	b.job.Env = env
	b.ansibleEnvironment(env)
	return nil
}

// ansibleEnvironment is what makes Ansible tell of itself.
func (b *builder) ansibleEnvironment(env map[string]string) {
	told := b.job.ArtifactDir // where the job sees it
	if b.containerized() {
		told = "/runner/artifacts/" + b.Ident
	}
	b.told = told
	b.job.callbackDir = told + "/callback"
	plugins := []string{b.job.callbackDir}
	if given := env["ANSIBLE_CALLBACK_PLUGINS"]; given != "" {
		plugins = []string{given, b.job.callbackDir}
	}
	env["ANSIBLE_CALLBACK_PLUGINS"] = strings.Join(plugins, ":")
	if given := env["ANSIBLE_STDOUT_CALLBACK"]; given != "" {
		env["ORIGINAL_STDOUT_CALLBACK"] = given
	}
	env["ANSIBLE_STDOUT_CALLBACK"] = callback.Name
	if b.adHoc {
		env["ANSIBLE_LOAD_CALLBACK_PLUGINS"] = "1"
		env["AD_HOC_COMMAND_ID"] = cmp.Or(env["AD_HOC_COMMAND_ID"], "1")
	}
	env["ANSIBLE_RETRY_FILES_ENABLED"] = "False"
	if _, given := env["ANSIBLE_HOST_KEY_CHECKING"]; !given {
		env["ANSIBLE_HOST_KEY_CHECKING"] = "False"
	}
	env["AWX_ISOLATED_DATA_DIR"] = told
	if b.settings.factCacheType == "jsonfile" {
		env["ANSIBLE_CACHE_PLUGIN"] = "jsonfile"
		b.job.FactCache, env["ANSIBLE_CACHE_PLUGIN_CONNECTION"] = b.factCache(told)
	}
	if len(b.RolesPath) > 0 {
		env["ANSIBLE_ROLES_PATH"] = strings.Join(b.RolesPath, ":")
	}
	env["RUNNER_OMIT_EVENTS"], _ = pyString(b.OmitEventData)
	env["RUNNER_ONLY_FAILED_EVENTS"], _ = pyString(b.OnlyFailedEventData)
	if term := env["TERM"]; term == "" || term == "dumb" {
		env["TERM"] = "xterm-256color" // below a service there is none, and no colours then
	}
}

// factCache is where facts are kept, for this process and for the job. An absolute
// path is shared by several runs; a container does not see it.
func (b *builder) factCache(told string) (here, there string) {
	name := b.settings.factCache
	switch {
	case filepath.IsAbs(name) && !b.containerized():
		return name, name
	case filepath.IsAbs(name):
		name = "fact_cache"
	}
	return filepath.Join(b.job.ArtifactDir, name), told + "/" + name
}

// rolesPath finds what a path among the options is relative to: the senders do
// not agree.
func (b *builder) rolesPath(list []string) string {
	for i, path := range list {
		if filepath.IsAbs(path) {
			continue
		}
		for _, base := range []string{b.project, filepath.Join(b.Dir, "roles"), b.Dir} {
			if full := filepath.Join(base, path); b.exists(full) {
				list[i] = full
				break
			}
		}
	}
	return strings.Join(list, ":")
}

// answers compiles the patterns of questions.
func (b *builder) answers() error {
	file, err := readMap(b.Dir, "env/passwords")
	if err != nil {
		return err
	}
	for _, e := range merge(b.Passwords, file) {
		answer, ok := pyString(e.Value)
		if !ok {
			return fmt.Errorf("%w: %s: the answer is no text", ErrJob, e.where("env/passwords"))
		}
		pattern, err := regexp.Compile("(?m)" + fromPython(e.Key))
		if err != nil {
			return fmt.Errorf("%w: %s: %w%s", ErrJob, e.where("env/passwords"), err, notRE2(err))
		}
		b.job.Prompts = append(b.job.Prompts, terminal.Prompt{Pattern: pattern, Answer: answer})
	}
	return nil
}

// notRE2 says what to do about a pattern that Python's re would take. What
// matches while a play runs takes a time that the output's length bounds: that
// is why there is no second engine for it.
func notRE2(err error) string {
	var fault *syntax.Error
	if !errors.As(err, &fault) || !slices.Contains([]syntax.ErrorCode{syntax.ErrInvalidPerlOp, syntax.ErrInvalidEscape, syntax.ErrInvalidNamedCapture}, fault.Code) {
		return ""
	}
	return " (patterns have RE2's syntax, without lookahead, lookbehind and back references: write the question's text instead, see docs/runner.md, section 9)"
}

func (b *builder) sshKey() error {
	if b.SSHKey == "" {
		key, _, err := readText(b.Dir, "env/ssh_key")
		if err != nil {
			return err
		}
		b.SSHKey = key
	}
	if b.SSHKey != "" {
		b.job.SSHKey = strings.TrimRight(b.SSHKey, "\r\n") + "\n" // ssh-add insists on the line end
		b.job.SSHKeyPipe = filepath.Join(b.job.ArtifactDir, "ssh_key_data")
	}
	return nil
}

// command is the command line without what it is wrapped in.
func (b *builder) command() error {
	b.job.Dir = b.project
	if b.settings.isolatedDir != "" {
		b.job.Dir = b.settings.isolatedDir
	}
	if _, adHoc := b.job.Env["AD_HOC_COMMAND_ID"]; adHoc || !b.exists(b.project) {
		b.job.Dir = b.Dir
	}
	b.job.StartDir = b.job.Dir
	line, there, err := readText(b.Dir, "args")
	if err != nil {
		return err
	}
	if there {
		b.raw = true
		if b.job.Argv, err = words(line); err != nil {
			return fmt.Errorf("%w: args: %w", ErrJob, err)
		}
		if len(b.job.Argv) == 0 {
			return fmt.Errorf("%w: args: there is nothing in it", ErrJob)
		}
		return nil
	}
	return b.ansible()
}

// localTemp has Ansible's temporary files among those of the job, so that they
// go with it also where Ansible is killed; unless they have a place already.
func (b *builder) localTemp() error {
	dir := filepath.Join(b.job.ArtifactDir, tempName)
	if b.containerized() || b.job.Env[localTempVariable] != "" || strings.Contains(dir, "$") { // which Ansible would expand
		return nil
	}
	given, err := mitogen.Play{Dir: b.job.StartDir, Env: b.job.Env}.Default("local_tmp")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrJob, err)
	}
	if given == "" {
		b.job.Env[localTempVariable] = dir
	}
	return nil
}

// mitogen lets Ansible find Mitogen where its strategies are asked for. What is
// in a container's image cannot be seen from here.
func (b *builder) mitogen(ctx context.Context) error {
	if b.containerized() {
		return nil
	}
	found, err := mitogen.Prepare(ctx, mitogen.Play{Program: b.job.Argv[0], Dir: b.job.StartDir, Env: b.job.Env})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrJob, err)
	}
	maps.Copy(b.job.Env, found)
	return nil
}

func (b *builder) ansible() error {
	b.raw = b.Binary != ""
	program := "ansible-playbook"
	if b.Module != "" {
		program = "ansible"
	}
	argv := []string{cmp.Or(b.Binary, program)}
	further, file := b.Cmdline, "kwargs: cmdline"
	if further == "" {
		var err error
		if further, _, err = readText(b.Dir, "env/cmdline"); err != nil {
			return err
		}
		file = "env/cmdline"
	}
	more, err := words(further)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrJob, file, err)
	}
	argv = append(argv, more...)
	for _, source := range b.inventory() {
		argv = append(argv, "-i", source)
	}
	if b.Limit != "" {
		argv = append(argv, "--limit", b.Limit)
	}
	if argv, err = b.extraVars(argv); err != nil {
		return err
	}
	if b.Verbosity > 0 {
		argv = append(argv, "-"+strings.Repeat("v", min(b.Verbosity, 20)))
	}
	for _, option := range [][2]string{{"--tags", b.Tags}, {"--skip-tags", b.SkipTags}, {"--forks", b.Forks}} {
		if option[1] != "" {
			argv = append(argv, option[0], option[1])
		}
	}
	if b.Binary == "" {
		argv, err = b.what(argv)
	}
	b.job.Argv = argv
	return err
}

// what appends the playbook, or the module and the hosts.
func (b *builder) what(argv []string) ([]string, error) {
	if b.Module == "" {
		if b.Playbook == "" {
			return nil, fmt.Errorf("%w: kwargs: neither a playbook nor a module is named, and there is no file args", ErrJob)
		}
		return append(argv, b.Playbook), nil
	}
	argv = append(argv, "-m", b.Module)
	if b.ModuleArgs != "" {
		argv = append(argv, "-a", b.ModuleArgs)
	}
	if b.HostPattern != "" {
		argv = append(argv, b.HostPattern)
	}
	return argv, nil
}

// inventory finds the sources where they are on this machine.
func (b *builder) inventory() []string {
	if b.containerized() {
		if b.exists("inventory/hosts") || !b.exists("inventory") {
			return []string{"/runner/inventory/hosts"}
		}
		return []string{"/runner/inventory"}
	}
	if len(b.Inventory) == 0 {
		if b.exists("inventory") {
			return []string{filepath.Join(b.Dir, "inventory")}
		}
		return nil
	}
	sources := slices.Clone(b.Inventory)
	for i, source := range sources {
		if !filepath.IsAbs(source) && !strings.HasSuffix(source, ",") && (len(sources) == 1 || b.exists(source)) {
			sources[i] = filepath.Join(b.Dir, source)
		}
	}
	return sources
}

func (b *builder) extraVars(argv []string) ([]string, error) {
	if info, err := os.Stat(filepath.Join(b.Dir, "env", "extravars")); err == nil && info.Mode().IsRegular() {
		if err := checkMap(b.Dir, "env/extravars"); err != nil {
			return nil, err
		}
		path := filepath.Join(b.Dir, "env", "extravars")
		if b.containerized() {
			path = "/runner/env/extravars"
		}
		argv = append(argv, "-e", "@"+path)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: env/extravars: %w", ErrJob, err)
	}
	if b.ExtraVarsFile != "" {
		if !b.exists(b.ExtraVarsFile) {
			return nil, fmt.Errorf("%w: kwargs: extravars: has to be a map, or the path of a file: there is no %s", ErrJob, b.below(b.ExtraVarsFile))
		}
		argv = append(argv, "-e", "@"+b.below(b.ExtraVarsFile))
	}
	if len(b.ExtraVars) == 0 {
		return argv, nil
	}
	var members []string
	for _, e := range b.ExtraVars {
		key, err := json.Marshal(e.Key)
		if err != nil {
			return nil, fmt.Errorf("%w: kwargs: extravars: %w", ErrJob, err)
		}
		members = append(members, string(key)+":"+string(e.Raw))
	}
	vars := "{" + strings.Join(members, ",") + "}"
	if !b.Sent && !b.SuppressEnvFiles { // they may be secret, and everybody sees a command line
		b.job.ExtraVars = []byte(vars)
		vars = "@" + b.told + "/" + extraVarsName
	}
	return append(argv, "-e", vars), nil
}

// Environ returns the environment of the program to start: for one in a
// container that of the engine, which needs PATH, authentication and so on.
func (j *Job) Environ(environ []string) []string {
	env := make(map[string]string)
	if j.Engine != "" {
		for _, entry := range environ {
			key, value, _ := strings.Cut(entry, "=")
			env[key] = value
		}
	}
	maps.Copy(env, j.Env)
	var list []string
	for _, key := range slices.Sorted(maps.Keys(env)) {
		list = append(list, key+"="+env[key])
	}
	return append(list, j.EngineEnv...)
}
