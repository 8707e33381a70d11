package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func newWorker() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "What belongs to the worker's side of jobs",
		Args:  exactArgs(),
		RunE: func(*cobra.Command, []string) error {
			return &usageError{errors.New("worker: name what to do: cleanup")}
		},
	}
	cmd.AddCommand(newCleanup())
	return cmd
}
