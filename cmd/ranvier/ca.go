package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/routing"
	"github.com/ranvier-mesh/ranvier/runner/remote"
)

// caCommand is what the commands below ca have in common.
type caCommand struct {
	dir        string
	rootKey    string
	ask        bool
	passphrase string // file
}

func newCA() *cobra.Command {
	c := &caCommand{}
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Make and use the mesh's certificate authority",
		Long: `The mesh's certificate authority (CA) says who is a member and who is not any
more. It is on one node, which lets others join and renews their certificates.
The commands work on its directory; a node that runs there notices.`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringVar(&c.dir, "dir", defaultDataDir(), "data directory of the CA's node")
	cmd.AddCommand(c.init(), c.token(), c.revoke(), c.list(), c.issuer(), c.rollover(), c.backup(), c.restore(), c.renew())
	return cmd
}

func (c *caCommand) open() (*identity.CA, error) {
	return identity.OpenCA(filepath.Join(c.dir, caDir), nil)
}

func (c *caCommand) passphraseFlags(cmd *cobra.Command, what string) {
	cmd.Flags().BoolVar(&c.ask, "passphrase", false, "ask for the passphrase of "+what)
	cmd.Flags().StringVar(&c.passphrase, "passphrase-file", "", "file with the passphrase of "+what)
	cmd.MarkFlagsMutuallyExclusive("passphrase", "passphrase-file")
	cmd.MarkFlagFilename("passphrase-file")
}

// readPassphrase returns the passphrase that the flags name; empty: none.
// fresh asks twice.
func (c *caCommand) readPassphrase(fresh bool) (string, error) {
	if c.passphrase != "" {
		text, err := os.ReadFile(c.passphrase)
		if err != nil {
			return "", fmt.Errorf("--passphrase-file: %w", err)
		}
		pass := strings.TrimRight(string(text), "\r\n")
		if pass == "" {
			return "", fmt.Errorf("--passphrase-file: %s is empty", c.passphrase)
		}
		return pass, nil
	}
	if !c.ask {
		return "", nil
	}
	pass, err := prompt("passphrase: ")
	if err != nil || !fresh {
		return pass, err
	}
	again, err := prompt("the same again: ")
	if err == nil && again != pass {
		err = errors.New("the two passphrases differ")
	}
	return pass, err
}

func prompt(text string) (string, error) {
	in := int(os.Stdin.Fd())
	if !term.IsTerminal(in) {
		return "", &usageError{errors.New("--passphrase asks on a terminal: use --passphrase-file")}
	}
	fmt.Fprint(os.Stderr, text)
	pass, err := term.ReadPassword(in)
	fmt.Fprintln(os.Stderr)
	if err == nil && len(pass) == 0 {
		err = errors.New("the passphrase is empty")
	}
	return string(bytes.TrimSpace(pass)), err
}

func (c *caCommand) init() *cobra.Command {
	var mesh, id, listen string
	var addresses []string
	cmd := &cobra.Command{
		Use:   "init --mesh NAME",
		Short: "Make a mesh: its CA, this node's identity and a configuration",
		Example: `  ranvier ca init --mesh example
  ranvier node -c /var/lib/ranvier/ranvier.yml`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			id, err := ownID(id)
			if err != nil {
				return err
			}
			if len(addresses) == 0 {
				if addresses, err = reachable(listen); err != nil {
					return err
				}
			}
			pass, err := c.readPassphrase(true)
			if err != nil {
				return err
			}
			ca, err := identity.InitCA(filepath.Join(c.dir, caDir), mesh, id, identity.CAOptions{Passphrase: pass, Addresses: addresses})
			if err != nil {
				return err
			}
			self, err := identity.Begin(ca, identity.Claims{ID: id, Role: identity.Router, Work: []string{"*"}}, filepath.Join(c.dir, identityDir))
			if err != nil {
				return err
			}
			file, err := writeConfig(c.dir, self, listen, nil)
			if err != nil {
				return err
			}
			cmd.Printf("mesh %s has its CA in %s, and this node is %s\n", mesh, ca.Dir(), id)
			cmd.Printf("next:\n  ranvier node -c %s\n  ranvier ca token%s --role router --id NODE --work ansible-runner   # and join with what it prints\n", file, c.dirFlag())
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&mesh, "mesh", "", "name of the mesh (needed)")
	f.StringVar(&id, "id", "", "this node's id (default: the host's name)")
	listenFlag(cmd, &listen)
	f.StringArrayVar(&addresses, "address", nil, "how others reach this node, host:port; may be repeated (default: the host's name and addresses)")
	c.passphraseFlags(cmd, "the root's key")
	cmd.MarkFlagRequired("mesh")
	return cmd
}

func listenFlag(cmd *cobra.Command, listen *string) {
	cmd.Flags().StringVar(listen, "listen", ":"+remote.DefaultPort, "where the node listens: host:port or :port")
}

// dirFlag is what further commands need where the directory is not the default.
func (c *caCommand) dirFlag() string {
	if c.dir == defaultDataDir() {
		return ""
	}
	return " --dir " + c.dir
}

// ownID is the id that was given, or the host's name.
func ownID(id string) (routing.NodeID, error) {
	if id == "" {
		host, err := os.Hostname()
		if err != nil {
			return "", fmt.Errorf("--id: the host has no name: %w", err)
		}
		id = host
	}
	if err := routing.NodeID(id).Validate(); err != nil {
		return "", &usageError{fmt.Errorf("--id: %w", err)}
	}
	return routing.NodeID(id), nil
}

// reachable lists how others may reach a listener: where it is not bound to one
// address, by the host's name and its addresses.
func reachable(listen string) ([]string, error) {
	host, port, err := splitListen(listen)
	if err != nil {
		return nil, err
	}
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
		return []string{net.JoinHostPort(host, port)}, nil
	}
	var all []string
	if name, err := os.Hostname(); err == nil {
		all = append(all, net.JoinHostPort(name, port))
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("this host's addresses: %w (name them with --address)", err)
	}
	const most = 7 // and the name: as many as a token holds
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLoopback() && !ip.IP.IsLinkLocalUnicast() && len(all) <= most {
			all = append(all, net.JoinHostPort(ip.IP.String(), port))
		}
	}
	return all, nil
}

func splitListen(listen string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(listen)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return "", "", &usageError{fmt.Errorf("--listen %q: write host:port or :port", listen)}
	}
	return host, port, nil
}

func (c *caCommand) token() *cobra.Command {
	var role string
	var r identity.Request
	cmd := &cobra.Command{
		Use:   "token --id PATTERN",
		Short: "Print a token that lets one node or user join",
		Long: `Print a join token, one line, on standard output. It can be used once, by
whoever has it: treat it as a password.`,
		Example: `  ranvier ca token --role router --id 'edge-*' --ttl 1h
  ranvier ca token --role client --id alice --work ansible-runner`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ca, err := c.open()
			if err != nil {
				return err
			}
			r.Role = identity.Role(role)
			t, err := ca.Token(r)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), t)
			fmt.Fprintf(os.Stderr, "for one %s with an id like %s, until %s; there:\n  ranvier join TOKEN\n",
				r.Role, r.Pattern, time.Now().Add(r.TTL).Format("2006-01-02 15:04"))
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&role, "role", string(identity.Router), "router, leaf (forwards nothing) or client (a user)")
	f.StringVar(&r.Pattern, "id", "", "id that may join; * stands for any letters, ? for one (needed)")
	f.DurationVar(&r.TTL, "ttl", time.Hour, "how long the token can be used")
	f.StringSliceVar(&r.Work, "work", nil, `work types that it may submit; "*" for all (default: none)`)
	f.StringArrayVar(&r.Addresses, "address", nil, "how the joiner reaches this node, host:port; may be repeated")
	cmd.MarkFlagRequired("id")
	return cmd
}

func (c *caCommand) revoke() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID",
		Short: "Take a member out of the mesh",
		Long: `Revoke the key of a member: its links and streams end in seconds, everywhere,
and its id is free for another one.`,
		Args: exactArgs("id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ca, err := c.open()
			if err != nil {
				return err
			}
			list, err := ca.Revoke(routing.NodeID(args[0]))
			if err != nil {
				return err
			}
			cmd.Printf("%s is revoked (list %d); if node %s runs, the mesh is told now, else when it starts\n", args[0], list.Number, ca.Node())
			return nil
		},
	}
}

func (c *caCommand) list() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the members",
		Args:  exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ca, err := c.open()
			if err != nil {
				return err
			}
			all, err := ca.Members()
			if err != nil {
				return err
			}
			for _, m := range all {
				cmd.Printf("%-24s %-7s key %s, until %s UTC, work %s\n", m.ID, m.Role, m.Key, m.NotAfter, strings.Join(m.Work, ","))
			}
			return nil
		},
	}
}
