package runner

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
)

// DefaultContainerImage is the image that ansible-runner's command line sends
// unless another is named. env/settings on the worker goes before it.
const DefaultContainerImage = "quay.io/ansible/ansible-runner:devel"

// Options describes a job. The zero value of a field means that nothing is said
// about it, and the worker's default holds. The names are ansible-runner's
// (docs/runner.md §3); one of Playbook, Plays, Module and Role is needed.
type Options struct {
	// PrivateDataDir is the directory with project, inventory and env of the
	// job. It is read, never written.
	PrivateDataDir string
	// Ident names the run and its artifact directory; NewIdent() if empty. It
	// must be usable as a file name.
	Ident string
	// Binary is the program the worker starts instead of ansible-playbook or
	// ansible.
	Binary string

	Playbook   string           // below project/; absolute if it is there
	Plays      []map[string]any // a playbook as data; travels as project/main.json
	Module     string           // ad hoc
	ModuleArgs string
	// HostPattern says where Module or Role run. Role's default is "all".
	HostPattern string

	Role          string
	RoleVars      string // "key=value ...", as on the command line
	RoleSkipFacts bool
	RolesPath     []string // made relative to project/ if below PrivateDataDir

	// Inventory is a file or directory in PrivateDataDir or its inventory/, an
	// absolute path that the worker has, or the inventory itself as text: with
	// a comma, a line end, a space or a =. For Run it may be a path of here too.
	Inventory string
	// Inventories are several of the first kinds.
	Inventories []string
	// InventoryData is an inventory as data; it travels as inventory/hosts.json.
	InventoryData map[string]any

	Limit    string
	Cmdline  string // further arguments, as a shell would split them
	Tags     string
	SkipTags string
	Forks    int

	Verbosity           int // number of -v
	Quiet               bool
	RotateArtifacts     int // artifact directories to keep, 0 for all
	JSONMode            bool
	OmitEventData       bool
	OnlyFailedEventData bool
	CheckJobEventData   bool

	ArtifactDir string // where the job runs; of remote.Run: here
	ProjectDir  string // on the worker; relative if below PrivateDataDir

	ProcessIsolation           bool
	ProcessIsolationExecutable string
	ProcessIsolationPath       string
	ProcessIsolationHidePaths  []string
	ProcessIsolationShowPaths  []string
	ProcessIsolationROPaths    []string
	ContainerImage             string
	ContainerVolumeMounts      []string
	ContainerOptions           []string
	ContainerWorkdir           string
	ContainerAuthData          map[string]string
	DirectoryIsolationBasePath string

	// What follows, and Cmdline, travels as a file of env/, like those that the
	// private data directory may have; such a file goes before it. With
	// SuppressEnvFiles nothing of it becomes a file on the worker.
	EnvVars          map[string]string
	ExtraVars        map[string]any
	Passwords        map[string]string // prompt pattern to answer
	Settings         map[string]any
	SSHKey           string
	SuppressEnvFiles bool

	Timeout            int // seconds; 0 for none
	HostCWD            string
	FactCache          string
	FactCacheType      string
	SuppressOutputFile bool

	// OnlyTransmitKwargs leaves the private data directory at home: the worker
	// has one.
	OnlyTransmitKwargs bool
	// ContentApart leaves what Content has out of the archive: it is sent
	// another way.
	ContentApart bool
	// RawArchive has the archive travel as it is, which takes a worker of this program.
	// By itself it is base64, which ansible-runner's reads too.
	RawArchive bool
	// RawResults lets a worker of this program send the artifacts as they are: it is
	// Process that reads them. Other workers do not mind.
	RawResults bool
	// TempDir is where the archive waits until its size is known. It needs as
	// much space as the compressed directory. Empty means $TMPDIR, else
	// /var/tmp.
	TempDir string
	// Warn, if set, hears of what was left out of the archive and why, and from
	// Run of what is not understood in the job's files.
	Warn func(message string)
}

// NewIdent returns a random name for a run: a version 4 UUID as 32 hexadecimal
// digits, as ansible-runner's transmit makes it.
func NewIdent() string {
	id := uuid.New()
	return hex.EncodeToString(id[:])
}

// checkIdent refuses what could not be the name of an artifact directory, or
// would be one somewhere else.
func checkIdent(ident string) error {
	if ident == "" || ident == "." || ident == ".." || strings.ContainsAny(ident, "/\x00") {
		return fmt.Errorf("%w: ident %q cannot be the name of a directory", ErrOptions, ident)
	}
	return nil
}

// checkDir returns dir's absolute path if it is a directory.
func checkDir(dir string) (string, error) {
	if dir == "" {
		return "", fmt.Errorf("%w: none was named", ErrNoPrivateDataDir)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrNoPrivateDataDir, dir, err)
	}
	info, err := os.Stat(abs)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: %s does not exist", ErrNoPrivateDataDir, abs)
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoPrivateDataDir, err)
	}
	if !info.IsDir() {
		return "", fmt.Errorf("%w: %s is no directory", ErrNoPrivateDataDir, abs)
	}
	return abs, nil
}

// check finds what the worker would stumble over.
func (o *Options) check() error {
	kinds := 0
	for _, given := range []bool{o.Playbook != "", len(o.Plays) > 0, o.Module != "", o.Role != ""} {
		if given {
			kinds++
		}
	}
	switch {
	case kinds == 0 && !o.hasArgs():
		return fmt.Errorf("%w: a playbook, a module or a role is needed", ErrOptions)
	case kinds > 1:
		return fmt.Errorf("%w: only one of playbook, plays, module and role can run", ErrOptions)
	case o.HostPattern != "" && o.Module == "" && o.Role == "":
		return fmt.Errorf("%w: hosts can only be named for a module or a role", ErrOptions)
	case o.RoleVars != "" && o.Role == "":
		return fmt.Errorf("%w: role vars need a role", ErrOptions)
	case o.Forks < 0 || o.Verbosity < 0 || o.RotateArtifacts < 0 || o.Timeout < 0:
		return fmt.Errorf("%w: forks, verbosity, rotate artifacts and timeout cannot be negative", ErrOptions)
	}
	sources := 0
	for _, given := range []bool{o.Inventory != "", len(o.Inventories) > 0, len(o.InventoryData) > 0} {
		if given {
			sources++
		}
	}
	if sources > 1 {
		return fmt.Errorf("%w: the inventory is given in more than one way", ErrOptions)
	}
	return checkIdent(o.Ident)
}

// hasArgs tells whether the private data directory holds a whole command line,
// which needs no playbook.
func (o *Options) hasArgs() bool {
	info, err := os.Stat(filepath.Join(o.PrivateDataDir, "args"))
	return err == nil && info.Mode().IsRegular()
}
