package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/ranvier-mesh/ranvier/internal/identity"
)

// This file has the commands that a CA needs once in a while.

func (c *caCommand) rootKeyFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.rootKey, "root-key", "", "file with the root's key, if it is kept elsewhere")
	cmd.MarkFlagFilename("root-key")
	c.passphraseFlags(cmd, "the root's key")
}

func (c *caCommand) root() (identity.RootKey, error) {
	pass, err := c.readPassphrase(false)
	return identity.RootKey{File: c.rootKey, Passphrase: pass}, err
}

func (c *caCommand) issuer() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "issuer",
		Short: "Make a new issuer, with the root's key",
		Long: `The issuer signs the members' certificates and lives two years. A new one takes
over at once; members notice nothing. It needs the root's key.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ca, err := c.open()
			if err != nil {
				return err
			}
			key, err := c.root()
			if err != nil {
				return err
			}
			if err := ca.RenewIssuer(key); err != nil {
				return err
			}
			cert, err := ca.Issuer()
			if err != nil {
				return err
			}
			cmd.Printf("the new issuer lives until %s\n", cert.NotAfter.Format("2006-01-02"))
			return nil
		},
	}
	c.rootKeyFlag(cmd)
	return cmd
}

func (c *caCommand) rollover() *cobra.Command {
	var finish, force bool
	cmd := &cobra.Command{
		Use:   "rollover [--finish]",
		Short: "Put a new root beside the old one, and later in its place",
		Long: `Without --finish, make a new root, which the old one signs: from their next
renewal on, members trust both. A week later all have renewed, and --finish takes
the old root out of use. The new root's key takes the old one's place in the CA's
directory, encrypted with the same passphrase.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ca, err := c.open()
			if err != nil {
				return err
			}
			if finish {
				return finishRollover(cmd, ca, force)
			}
			key, err := c.root()
			if err != nil {
				return err
			}
			if err := ca.Rollover(key, key.Passphrase); err != nil {
				return err
			}
			cmd.Printf("there are two roots now; when all members have renewed, in a week at the latest:\n  ranvier ca rollover --finish%s\n", c.dirFlag())
			return nil
		},
	}
	cmd.Flags().BoolVar(&finish, "finish", false, "take the old root out of use")
	cmd.Flags().BoolVar(&force, "force", false, "with --finish: even if members have not renewed")
	c.rootKeyFlag(cmd)
	return cmd
}

func finishRollover(cmd *cobra.Command, ca *identity.CA, force bool) error {
	waiting, err := ca.Waiting()
	if err != nil {
		return err
	}
	if len(waiting) > 0 && !force {
		return fmt.Errorf("%d members have not renewed since the rollover began: %v (wait for them, or use --force: they may have to join again)", len(waiting), waiting)
	}
	if _, err := ca.FinishRollover(); err != nil {
		return err
	}
	cmd.Println("the old root is out of use")
	return nil
}

func (c *caCommand) backup() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write the whole CA to a file, encrypted with a passphrase",
		Args:  exactArgs("file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ca, err := c.open()
			if err != nil {
				return err
			}
			pass, err := c.backupPassphrase(true)
			if err != nil {
				return err
			}
			text, err := ca.Backup(pass)
			if err != nil {
				return err
			}
			f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return err
			}
			_, err = f.Write(text)
			return errors.Join(err, f.Sync(), f.Close())
		},
	}
	c.passphraseFlags(cmd, "the backup")
	return cmd
}

func (c *caCommand) backupPassphrase(fresh bool) (string, error) {
	if !c.ask && c.passphrase == "" {
		c.ask = true
	}
	return c.readPassphrase(fresh)
}

func (c *caCommand) restore() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a CA of a backup",
		Long: `Write a backup to the data directory's ca. The node there has the id that the CA's
node had, since members renew with it: where its identity was lost it gets another
one, with a new key, and its configuration is written unless there is one.`,
		Args: exactArgs("file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			pass, err := c.backupPassphrase(false)
			if err != nil {
				return err
			}
			ca, err := identity.RestoreCA(filepath.Join(c.dir, caDir), text, pass)
			if err != nil {
				return err
			}
			cmd.Printf("the CA of mesh %s is in %s; its node is %s\n", ca.Mesh(), ca.Dir(), ca.Node())
			if _, err := os.Stat(filepath.Join(c.dir, identityDir)); err == nil {
				return nil
			}
			return c.beginAgain(cmd, ca, listen)
		},
	}
	listenFlag(cmd, &listen)
	c.passphraseFlags(cmd, "the backup")
	return cmd
}

func (c *caCommand) renew() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use:   "renew",
		Short: "Give the CA's own node a new certificate",
		Long: `The CA's node renews its certificate by itself while it runs. After a week off it
has none that holds, and after the loss of its identity none at all: this makes
one, with a new key where the old one is gone, which is then revoked.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ca, err := c.open()
			if err != nil {
				return err
			}
			return c.beginAgain(cmd, ca, listen)
		},
	}
	listenFlag(cmd, &listen)
	return cmd
}

func (c *caCommand) beginAgain(cmd *cobra.Command, ca *identity.CA, listen string) error {
	self, err := identity.BeginAgain(ca, filepath.Join(c.dir, identityDir))
	if err != nil {
		return err
	}
	file, err := writeConfig(c.dir, self, listen, nil)
	if err != nil {
		return err
	}
	cmd.Printf("node %s has a certificate until %s\nnext:\n  ranvier node -c %s\n", self.ID, self.Certificate().Leaf.NotAfter.Format("2006-01-02 15:04"), file)
	return nil
}
