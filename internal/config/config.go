// Package config reads a node's configuration file: a YAML list of items in
// Receptor's format, checked strictly and turned into types. docs/config.md
// describes the file.
//
// The way is raw, then typed: raw.go splits the file into items with keys and
// lines, items.go is the table of items and of the keys each one has, values.go
// turns a value into a type, check.go looks at the items together.
package config

import (
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/ranvier-mesh/ranvier/routing"
)

const (
	// DefaultDataDir is where a node keeps its data unless the file says
	// otherwise.
	DefaultDataDir = "/var/lib/ranvier"
	// MaxSize is the size in bytes of the largest file that is read.
	MaxSize = 1 << 20
)

// Config is a whole configuration file. It is not changed after Parse, so any
// number of goroutines may read it.
type Config struct {
	File             string // as it was given to Load or Parse
	Node             Node
	LocalOnly        bool // the file says that no link is wanted
	LogLevel         slog.Level
	Listeners        []Listener
	Peers            []Peer
	TLSServers       []TLS
	TLSClients       []TLS
	Certs            Certs // the file makes certificates and is no node's; nil: it is
	ControlServices  []ControlService
	WorkCommands     []WorkCommand
	Kubernetes       []Kubernetes
	WorkPolicies     []WorkPolicy
	WorkLimits       WorkLimits
	Inbound          []Inbound
	Outbound         []Outbound
	FirewallRules    []FirewallRule // of the item node
	WorkSigning      WorkSigning
	WorkVerification WorkVerification
	LegacyControl    LegacyControl
	Metrics          Metrics

	// Warnings are for the log at start: what the file says that has no
	// effect or looks like a mistake. Each names the file and the line.
	Warnings []string
}

// Node is the item "node".
type Node struct {
	Pos     Pos            // Line is 0 when the file has no such item
	ID      routing.NodeID // valid; the host's name when the file has none
	DataDir string
	Leaf    bool // attach to the peers and forward nothing
	// Identity is the directory with the node's key and certificate; empty:
	// DataDir/identity, if there is one.
	Identity string
	Insecure bool // accept links from other hosts although there is no identity
	// ContentLimit is how many bytes of what jobs have sent are kept for the
	// next ones; 0: as package content has it, less than 0: nothing is kept.
	ContentLimit int64
	// ResumeTime is how long a stream whose way broke waits for another one; 0
	// is a minute, less than 0 not at all. StreamMemory bounds what
	// streams hold, in bytes; 0 is 64 MiB.
	ResumeTime   time.Duration
	StreamMemory int64
}

// ControlService is a control socket (docs/control.md).
type ControlService struct {
	Pos         Pos
	Service     string      // its name as a service of the mesh
	Filename    string      // of the unix socket; empty: none
	Permissions fs.FileMode // of the unix socket
	TLS         *TLS        // a tls-server, for the service; nil: none
	TCPListen   string      // host:port on this host; empty: none
	TCPTLS      *TLS        // a tls-server, for TCPListen; nil: none
}

// WorkCommand is a work type that runs a command.
type WorkCommand struct {
	Pos                Pos
	WorkType           string
	Command            string
	Params             string // further words of the command line, not yet split
	AllowRuntimeParams bool   // a submitter may add parameters
	VerifySignature    bool   // only signed work is accepted
}

// Kubernetes is an item "work-kubernetes": a work type that this version does
// not run.
type Kubernetes struct {
	Pos      Pos
	WorkType string
}

// Load reads and checks the file at path. Its errors are those of Parse, or of
// the file system wrapped with the path.
func Load(path string) (*Config, error) { return Source{File: path}.Load() }

// Parse checks the text of a configuration file; name stands for the file in
// errors. An error joins (errors.Join) an *Error for each thing that is wrong,
// in the order of the lines.
func Parse(name string, data []byte) (*Config, error) {
	return parse(name, data, os.Hostname)
}

func parse(name string, data []byte, hostname func() (string, error)) (*Config, error) {
	return Source{File: name}.parse(data, hostname)
}
