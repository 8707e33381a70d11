package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/ranvier-mesh/ranvier/internal/control"
)

// operated makes a command that tells a node on this host to do something.
func operated(use, short, long string, do func(context.Context, *control.Client) error) *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if socket == "" {
				return &usageError{fmt.Errorf("%s: name the node's control socket with --socket or $%s", cmd.Name(), socketEnv)}
			}
			c, err := control.Dial(cmd.Context(), socket)
			if err != nil {
				return &codeError{exitUnavailable, err}
			}
			defer c.Close()
			return do(cmd.Context(), c)
		},
	}
	cmd.Flags().StringVarP(&socket, "socket", "s", os.Getenv(socketEnv), "control socket of the node (default $"+socketEnv+")")
	cmd.MarkFlagFilename("socket")
	return cmd
}

func newReload() *cobra.Command {
	return operated("reload", "Have a node read its configuration file again",
		`Have a node read its configuration file again and change the links that the file
describes otherwise. All other links stay up. If anything else has changed, nothing is done.`,
		func(ctx context.Context, c *control.Client) error { return c.Reload(ctx) })
}

func newDrain() *cobra.Command {
	var timeout time.Duration
	cmd := operated("drain", "Take a node out of the mesh, and stop it",
		`Tell the mesh that a node is about to go, wait until it carries no more streams for
others, and stop it. Returns at once.`,
		func(ctx context.Context, c *control.Client) error {
			if timeout <= 0 {
				return &usageError{errors.New("drain: --timeout must be above 0")}
			}
			return c.Drain(ctx, timeout)
		})
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "stop after this time, whatever the node still carries")
	return cmd
}
