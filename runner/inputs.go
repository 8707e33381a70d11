package runner

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ranvier-mesh/ranvier/runner/internal/archive"
	"github.com/ranvier-mesh/ranvier/runner/internal/pyjson"
	"github.com/ranvier-mesh/ranvier/runner/internal/stream"
)

// inputs is a job made ready for another machine: paths that hold there, and
// what the Python tool would write into the private data directory (and
// forget there) as files that only travel (docs/runner.md §3.2).
type inputs struct {
	Options
	here      bool           // it runs on this machine, in PrivateDataDir
	inventory any            // nil, a string or a list
	env       map[string]any // by name of the kwarg; those that stay kwargs
	files     []archive.File
	playbook  string // the name of the one among files that is run
}

// prepare needs o.PrivateDataDir to be an absolute path.
func prepare(o Options, here bool) (*inputs, error) {
	in := &inputs{Options: o, here: here, env: make(map[string]any)}
	for _, step := range []func() error{in.preparePlaybook, in.prepareRole, in.prepareInventory, in.prepareEnv} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	in.preparePaths()
	return in, nil
}

// below returns path relative to dir, if it is in dir.
func below(dir, path string) (string, bool) {
	if !filepath.IsAbs(path) {
		return "", false
	}
	rel, err := filepath.Rel(dir, path)
	return rel, err == nil && filepath.IsLocal(rel)
}

func (in *inputs) exists(parts ...string) bool {
	_, err := os.Lstat(filepath.Join(append([]string{in.PrivateDataDir}, parts...)...))
	return err == nil
}

// file adds a file that only travels. Like those that the Python tool writes,
// only the owner can read it: it may hold secrets.
func (in *inputs) file(name string, data []byte) {
	in.files = append(in.files, archive.File{Name: name, Mode: 0o400, Data: data})
}

// jsonFile adds v as JSON.
func (in *inputs) jsonFile(name string, v any) error {
	data, err := pyjson.Append(nil, v)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrOptions, name, err)
	}
	in.file(name, data)
	return nil
}

func (in *inputs) projectDir() string {
	if in.ProjectDir == "" {
		return filepath.Join(in.PrivateDataDir, "project")
	}
	if !filepath.IsAbs(in.ProjectDir) {
		return filepath.Join(in.PrivateDataDir, in.ProjectDir)
	}
	return in.ProjectDir
}

func (in *inputs) preparePlaybook() error {
	if rel, ok := below(in.projectDir(), in.Playbook); ok {
		in.Playbook = rel
	}
	if len(in.Plays) == 0 {
		return nil
	}
	data, err := pyjson.Append(nil, in.Plays)
	if err != nil {
		return fmt.Errorf("%w: plays: %w", ErrOptions, err)
	}
	return in.playbookFile("main.json", data)
}

// playbookFile adds a playbook as a file in the directory that Ansible runs in,
// which it has to be below for its roles to be found.
func (in *inputs) playbookFile(name string, data []byte) error {
	dir := in.projectDir()
	if rel, ok := below(in.PrivateDataDir, dir); ok {
		dir = rel
	} else if !in.here {
		return fmt.Errorf("%w: project dir: %s is not in %s, so the playbook that is made for the job has no place at the worker",
			ErrOptions, dir, in.PrivateDataDir)
	}
	in.Playbook, in.playbook = name, filepath.Join(dir, name)
	in.file(in.playbook, data)
	return nil
}

// prepareRole makes the playbook that runs a role. The roles of the private
// data directory are found without more ado; the Python tool loses them on the
// way.
func (in *inputs) prepareRole() error {
	if in.Role == "" {
		return nil
	}
	role := []stream.Field{{Key: "name", Value: in.Role}}
	if in.RoleVars != "" {
		vars, err := parseRoleVars(in.RoleVars)
		if err != nil {
			return err
		}
		role = append(role, stream.Field{Key: "vars", Value: json.RawMessage(vars)})
	}
	hosts := in.HostPattern
	if hosts == "" {
		hosts = "all"
	}
	play := []byte(`[{"hosts": `)
	play = append(pyjson.AppendString(play, hosts), `, "gather_facts": `...)
	play = append(strconv.AppendBool(play, !in.RoleSkipFacts), `, "roles": [`...)
	play, err := stream.AppendObject(play, role...)
	if err != nil {
		return fmt.Errorf("%w: role vars: %w", ErrOptions, err)
	}
	if err := in.playbookFile(NewIdent(), append(play, "]}]"...)); err != nil {
		return err
	}
	if len(in.RolesPath) == 0 && in.exists("roles") {
		in.RolesPath = []string{filepath.Join(in.PrivateDataDir, "roles")}
	}
	return nil
}

// parseRoleVars turns "a=1 b=x" into JSON. As with the Python tool a value is
// the Python literal that it looks like, else a string.
func parseRoleVars(text string) ([]byte, error) {
	var fields []stream.Field
	for item := range strings.FieldsSeq(text) {
		key, value, ok := strings.Cut(item, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("%w: role vars: %q is not key=value", ErrOptions, item)
		}
		fields = append(fields, stream.Field{Key: key, Value: literal(value)})
	}
	return stream.AppendObject(nil, fields...)
}

// literal reads numbers, True, False, None, strings in quotes, and lists and
// maps as far as JSON has them too.
func literal(s string) any {
	switch s {
	case "True":
		return true
	case "False":
		return false
	case "None":
		return nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n
	}
	if len(s) >= 2 && s[0] == '\'' && strings.IndexByte(s[1:], '\'') == len(s)-2 && !strings.Contains(s, `\`) {
		return s[1 : len(s)-1]
	}
	dec := json.NewDecoder(strings.NewReader(s))
	dec.UseNumber()
	var v any
	// The words of JSON are no literals in Python.
	if err := dec.Decode(&v); err == nil && !dec.More() && !strings.ContainsAny(s[:1], "tfn") {
		return v
	}
	return s
}

// prepareInventory decides what a string means: a path if something is there, the
// inventory itself if there is a comma, a line end, a space or a = in it.
func (in *inputs) prepareInventory() error {
	switch {
	case len(in.InventoryData) > 0:
		in.inventory = "inventory/hosts.json"
		return in.jsonFile("inventory/hosts.json", in.InventoryData)
	case len(in.Inventories) > 0:
		var list []any
		for _, source := range in.Inventories {
			path, err := in.inventoryPath(source)
			if err != nil {
				return err
			}
			if path == "" {
				return fmt.Errorf("%w: inventory: %s is not in %s", ErrOptions, source, in.PrivateDataDir)
			}
			list = append(list, path)
		}
		in.inventory = list
	case in.Inventory != "":
		path, err := in.inventoryPath(in.Inventory)
		if err != nil {
			return err
		}
		if path == "" {
			in.file("inventory/hosts", []byte(inventoryText(in.Inventory)))
			path = "inventory/hosts"
		}
		in.inventory = path
	}
	return nil
}

// inventoryPath returns where the worker finds source, relative to its private
// data directory, or "" for what is no path but text.
func (in *inputs) inventoryPath(source string) (string, error) {
	if strings.Contains(source, "\n") {
		return "", nil
	}
	if filepath.IsAbs(source) {
		if rel, ok := below(in.PrivateDataDir, source); ok {
			return rel, nil
		}
		return source, nil // one that the worker has
	}
	for _, dir := range []string{"", "inventory"} {
		if filepath.IsLocal(source) && in.exists(dir, source) {
			return filepath.Join(dir, source), nil
		}
	}
	abs, err := filepath.Abs(source)
	if err != nil {
		return "", fmt.Errorf("%w: inventory: %w", ErrOptions, err)
	}
	_, err = os.Lstat(abs)
	rel, ok := below(in.PrivateDataDir, abs)
	switch {
	case err == nil && ok:
		return rel, nil
	case err == nil && in.here:
		return abs, nil
	case err == nil:
		return "", fmt.Errorf("%w: inventory: %s is not in %s, so it does not reach the worker",
			ErrOptions, source, in.PrivateDataDir)
	case strings.ContainsAny(source, ", ="):
		return "", nil
	}
	hint := ""
	if !strings.ContainsRune(source, '/') {
		hint = fmt.Sprintf(" (a host is written with a comma: %s,)", source)
	}
	return "", fmt.Errorf("%w: inventory: %s does not exist, and neither does it in inventory/%s", ErrOptions, filepath.Join(in.PrivateDataDir, source), hint)
}

// checkInventory refuses absolute paths with nothing there, for a job that runs
// here: Ansible says no more than a warning. In a container they mean nothing.
func (in *inputs) checkInventory() error {
	list, _ := in.inventory.([]any)
	for _, source := range append(list, in.inventory) {
		path, _ := source.(string)
		if !filepath.IsAbs(path) || strings.HasSuffix(path, ",") {
			continue
		}
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: inventory: %s does not exist", ErrOptions, path)
		}
	}
	return nil
}

// inventoryText turns "a,b," into lines, as ansible's -i takes it.
func inventoryText(s string) string {
	if strings.Contains(s, "\n") || !strings.Contains(s, ",") {
		return s
	}
	return strings.ReplaceAll(strings.Trim(s, ","), ",", "\n") + "\n"
}

// prepareEnv makes files of what the Python tool makes files of. Where the
// private data directory has such a file already, or nothing travels but the
// kwargs, it stays a kwarg; and for a job here, where another job in the same
// directory would take the files for its own.
func (in *inputs) prepareEnv() error {
	if roles, ok := in.EnvVars["ANSIBLE_ROLES_PATH"]; ok {
		env := make(map[string]string, len(in.EnvVars))
		for k, v := range in.EnvVars {
			env[k] = v
		}
		env["ANSIBLE_ROLES_PATH"] = in.rolesPath(roles)
		in.EnvVars = env
	}
	for _, e := range []struct {
		key   string
		given bool
		value any
	}{
		{"envvars", len(in.EnvVars) > 0, in.EnvVars},
		{"extravars", len(in.ExtraVars) > 0, in.ExtraVars},
		{"passwords", len(in.Passwords) > 0, in.Passwords},
		{"settings", len(in.Settings) > 0, in.Settings},
		{"ssh_key", in.SSHKey != "", in.SSHKey},
		{"cmdline", in.Cmdline != "", in.Cmdline},
	} {
		if !e.given {
			continue
		}
		_, err := os.Stat(filepath.Join(in.PrivateDataDir, "env", e.key))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil || in.here || in.SuppressEnvFiles || in.OnlyTransmitKwargs {
			in.env[e.key] = e.value
			continue
		}
		if text, ok := e.value.(string); ok {
			in.file("env/"+e.key, []byte(text))
		} else if err := in.jsonFile("env/"+e.key, e.value); err != nil {
			return err
		}
	}
	return nil
}

// preparePaths makes what lies below the private data directory relative.
// Directories that are the default are left out: the Python worker would take
// them relative to where it was started.
func (in *inputs) preparePaths() {
	if rel, ok := below(in.PrivateDataDir, in.ProjectDir); ok {
		in.ProjectDir = rel
	}
	if rel, ok := below(in.PrivateDataDir, in.ArtifactDir); ok {
		in.ArtifactDir = rel
	}
	if in.ProjectDir == "project" {
		in.ProjectDir = ""
	}
	if in.ArtifactDir == "artifacts" {
		in.ArtifactDir = ""
	}
	roles := make([]string, len(in.RolesPath))
	for i, p := range in.RolesPath {
		roles[i] = in.rolesPath(p)
	}
	in.RolesPath = roles
}

// rolesPath makes paths, separated by colons, relative to project/, the directory
// that ansible runs in, since that is what it takes a relative one to be.
func (in *inputs) rolesPath(paths string) string {
	list := filepath.SplitList(paths)
	for i, path := range list {
		if rel, ok := below(in.PrivateDataDir, path); ok {
			list[i] = filepath.Join("..", rel)
		}
	}
	return strings.Join(list, string(filepath.ListSeparator))
}
