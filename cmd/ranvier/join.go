package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/routing"
	"github.com/ranvier-mesh/ranvier/runner/remote"
)

func newJoin() *cobra.Command {
	var id, dir, listen string
	cmd := &cobra.Command{
		Use:   "join TOKEN",
		Short: "Join a mesh with a token",
		Long: `Make a key on this host and have the mesh's CA certify it, with a token of
"ranvier ca token". A node gets a configuration that runs; a user's identity is
what ranvier run and the others use from then on. TOKEN may be - to read it from
standard input, so that no process list shows it.`,
		Args: exactArgs("token"),
		RunE: func(cmd *cobra.Command, args []string) error {
			text := args[0]
			if text == "-" {
				if _, err := fmt.Fscan(cmd.InOrStdin(), &text); err != nil {
					return fmt.Errorf("read the token from standard input: %w", err)
				}
			}
			t, err := identity.ParseToken(text)
			if err != nil {
				return &usageError{err}
			}
			own, err := joinID(t, id)
			if err != nil {
				return err
			}
			if dir == "" {
				if dir = defaultDataDir(); t.Role == identity.Client {
					dir = userDir()
				}
			}
			self, address, err := identity.Join(cmd.Context(), t, own, filepath.Join(dir, identityDir), nil, joinAgain())
			if err != nil {
				return joinFailed(err)
			}
			return joined(cmd, self, address, dir, listen)
		},
	}
	f := cmd.Flags()
	f.StringVar(&id, "id", "", "id to join with (default: the token's, else the host's or the user's name)")
	f.StringVar(&dir, "dir", "", "data directory of the node (default "+defaultDataDir()+"; of a user "+userDir()+")")
	f.StringVar(&listen, "listen", ":"+remote.DefaultPort, `where a router listens: host:port or :port, or "none"`)
	cmd.MarkFlagDirname("dir")
	return cmd
}

// joinID is the id to ask for.
func joinID(t identity.Token, id string) (routing.NodeID, error) {
	id = cmp.Or(id, string(t.ID))
	if id == "" && t.Role == identity.Client {
		u, err := user.Current()
		if err != nil {
			return "", fmt.Errorf("--id: %w", err)
		}
		id = u.Username
	}
	return ownID(id)
}

// joinAgain tells who sits at a terminal, once, that the CA is asked again.
func joinAgain() func(error) {
	told := !term.IsTerminal(int(os.Stderr.Fd()))
	return func(why error) {
		if !told {
			fmt.Fprintf(os.Stderr, "ranvier: %v; trying again for some seconds\n", why)
		}
		told = true
	}
}

// joinFailed gives an error its exit code: what the CA says, or that it is not reached.
func joinFailed(err error) error {
	if refused := (*identity.RefusedError)(nil); errors.As(err, &refused) {
		return err
	}
	if late := (*identity.ClockError)(nil); errors.As(err, &late) {
		return err
	}
	return &codeError{exitUnavailable, err}
}

// joined writes the configuration and says what comes next.
func joined(cmd *cobra.Command, self *identity.Self, address, dir, listen string) error {
	cmd.Printf("joined mesh %s as %s %s\n", self.Mesh, self.Role, self.ID)
	if self.Role == identity.Client {
		cmd.Printf("next:\n  ranvier ping --receptor-peer %s %s\n", address, self.CA)
		return nil
	}
	if self.Role == identity.Leaf || listen == "none" {
		listen = ""
	}
	file, err := writeConfig(dir, self, listen, []string{address})
	if err != nil {
		return err
	}
	cmd.Printf("next:\n  ranvier node -c %s\n", file)
	return nil
}

// writeConfig writes a configuration that runs, unless there is one.
func writeConfig(dir string, self *identity.Self, listen string, peers []string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# node %s of mesh %s\n- node: {id: %q, datadir: %q", self.ID, self.Mesh, self.ID, abs)
	if self.Role == identity.Leaf {
		b.WriteString(", leaf: true")
	}
	b.WriteString("}\n")
	if listen != "" {
		host, port, err := splitListen(listen)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "- tcp-listener: {bindaddr: %q, port: %s}\n", cmp.Or(host, "0.0.0.0"), port)
	}
	for _, p := range peers {
		fmt.Fprintf(&b, "- tcp-peer: %q\n", p)
	}
	fmt.Fprintf(&b, "- control-service: {filename: %q}\n", filepath.Join(abs, "control.sock"))
	file := filepath.Join(dir, "ranvier.yml")
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		fmt.Fprintf(os.Stderr, "ranvier: %s is there already and stays as it is\n", file)
		return file, nil
	}
	if err != nil {
		return "", fmt.Errorf("write the configuration: %w", err)
	}
	_, err = f.WriteString(b.String())
	return file, errors.Join(err, f.Close())
}
