package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/ranvier-mesh/ranvier/worktypes/keeper"
)

// newKeep is the process that outlives a node (docs/work.md section 2.2). The
// node starts it; nobody else has to.
func newKeep() *cobra.Command {
	var dir string
	var readyFD int
	cmd := &cobra.Command{
		Use:    "keep --data-dir DIR",
		Short:  "Keep the jobs of a node (started by the node itself)",
		Hidden: true,
		Args:   exactArgs(),
		RunE: func(*cobra.Command, []string) error {
			return keeper.Serve(dir, buildVersion(), func() {
				if readyFD > 0 {
					f := os.NewFile(uintptr(readyFD), "ready")
					_, _ = f.Write([]byte{'\n'}) // a node that is gone needs no answer
					f.Close()
				}
			})
		},
	}
	cmd.Flags().StringVar(&dir, "data-dir", "", "data directory of the node (needed)")
	cmd.Flags().IntVar(&readyFD, "ready-fd", 0, "file descriptor to write a line to when nodes can connect")
	cmd.MarkFlagRequired("data-dir")
	return cmd
}

// keeperCommand starts this very program as a keeper, also when its file was
// replaced by a newer one meanwhile.
func keeperCommand() []string { return []string{"/proc/self/exe", "keep"} }
