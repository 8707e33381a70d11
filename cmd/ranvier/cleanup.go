package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ranvier-mesh/ranvier/runner"
)

// newCleanup is a subcommand of worker.
func newCleanup() *cobra.Command {
	var o runner.CleanupOptions
	var exclude []string
	var grace int
	var logs logFlags
	cmd := &cobra.Command{
		Use:   "cleanup --file-pattern PATTERN",
		Short: "Remove what earlier jobs have left: private data directories, container images",
		Long: `Remove the private data directories that match a pattern, and container images.
The directory of a job that is running is never removed. The last line is
"(changed: True)" or "(changed: False)".`,
		Example: `  ranvier worker cleanup --file-pattern='/tmp/awx_*' --exclude-strings awx_42_ awx_43_`,
		Args:    exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if grace < 0 {
				return &usageError{fmt.Errorf("--grace-period %d: minutes cannot be negative", grace)}
			}
			log, logFile, err := logs.open()
			if err != nil {
				return err
			}
			defer logFile.Close()
			o.GracePeriod = time.Duration(grace) * time.Minute
			for _, words := range exclude { // separated by commas, says the Python tool's help
				o.ExcludeStrings = append(o.ExcludeStrings, strings.Split(words, ",")...)
			}
			o.Say = func(line string) {
				log.Info("cleanup", "what", line)
				cmd.Println(line)
			}
			done, err := runner.Cleanup(cmd.Context(), o)
			if err == nil || done.Changed() {
				cmd.Printf("(changed: %s)\n", map[bool]string{true: "True", false: "False"}[done.Changed()])
			}
			return canceledOr(cmd.Context(), err)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.FilePattern, "file-pattern", "", "private data directories to remove, as a shell pattern in quotes: '/tmp/awx_*'")
	f.Var((*wordList)(&exclude), "exclude-strings", "spare directories with one of these in the path: all words up to the next flag")
	f.IntVar(&grace, "grace-period", int(runner.DefaultGracePeriod/time.Minute), "spare directories that changed in the last so many minutes; 0 spares none")
	f.Var((*wordList)(&o.RemoveImages), "remove-images", "container images to remove, by tag: all words up to the next flag")
	f.BoolVar(&o.PruneImages, "image-prune", false, "remove the images that have no tag, after that")
	f.StringVar(&o.Executable, "process-isolation-executable", "podman", "the container engine")
	logs.add(cmd)
	return cmd
}
