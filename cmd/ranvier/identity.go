package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/ranvier-mesh/ranvier/internal/config"
	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/node"
)

// The directories below a node's data directory, or below a user's.
const (
	identityDir = "identity"
	caDir       = "ca"
)

const (
	// identityEnv names the directory with the user's identity where --identity
	// is not given.
	identityEnv = "RANVIER_IDENTITY"
	// noIdentity is a --identity that says: none.
	noIdentity = "none"
)

// defaultDataDir is where a node of this user keeps its data.
func defaultDataDir() string {
	if os.Geteuid() == 0 || writable(config.DefaultDataDir) {
		return config.DefaultDataDir // the second is a service with a user of its own
	}
	return filepath.Join(userDir(), "node")
}

// userDir is where a user's own files are: ~/.config/ranvier.
func userDir() string {
	dir, err := os.UserConfigDir()
	if err != nil {
		return ".ranvier"
	}
	return filepath.Join(dir, "ranvier")
}

// userIdentity is who the commands are that go into the mesh themselves.
type userIdentity struct{ dir string }

func (u *userIdentity) flag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&u.dir, "identity", os.Getenv(identityEnv), `directory with your identity (default $`+identityEnv+`, else ~/.config/ranvier if you have joined a mesh); "none" for none`)
	cmd.MarkFlagDirname("identity")
}

// load returns nil where the user has no identity.
func (u *userIdentity) load() (*identity.Self, error) {
	if u.dir == noIdentity {
		return nil, nil
	}
	dir := cmp.Or(u.dir, userDir())
	if inner := filepath.Join(dir, identityDir); isDir(inner) {
		dir = inner
	}
	self, err := identity.Load(dir, nil)
	if errors.Is(err, identity.ErrNone) && u.dir == "" {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("your identity: %w", err)
	}
	return self, nil
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// renewTime is how long a command waits for a renewal that is due.
const renewTime = 3 * time.Second

// renew has the identity renewed where that is due. That it fails is told, and
// is no reason not to do what was asked.
func (u *userIdentity) renew(ctx context.Context, m *mesh.Mesh, self *identity.Self) {
	if self == nil || self.Trust().Clock().Now().Before(self.RenewAt()) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, renewTime)
	defer cancel()
	if err := node.RenewOver(ctx, m, self); err != nil {
		fmt.Fprintf(os.Stderr, "ranvier: your identity was not renewed, it ends at %s: %v\n",
			self.Certificate().Leaf.NotAfter.Local().Format("2006-01-02 15:04"), err)
	}
}

// errNoIdentity is a signature that somebody without an identity is to make.
var errNoIdentity = errors.New("--sign needs an identity: join the mesh (ranvier join TOKEN), or name one with --identity DIR")
