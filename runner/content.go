package runner

import (
	"context"
	"fmt"
	"strings"

	"github.com/ranvier-mesh/ranvier/internal/tree"
)

// Content scans the part of the private data directory that a worker's node may
// keep for the next job (docs/runner.md §1.4): project, roles and what
// else there is, but neither env and inventory nor the files beside them, which
// may hold secrets and belong to one job. Where it is sent as it is, Transmit
// with ContentApart sends the rest.
//
// The errors are ErrNoPrivateDataDir and ErrOptions, or those of tree.Scan;
// one that wraps tree.ErrTooLarge means that all has to go by Transmit.
func Content(ctx context.Context, o Options) (*tree.Snapshot, error) {
	dir, err := checkDir(o.PrivateDataDir)
	if err != nil {
		return nil, err
	}
	o.PrivateDataDir = dir
	in, err := prepare(o, false)
	if err != nil {
		return nil, err
	}
	scan := tree.ScanOptions{
		Leave:   func(name string, dir bool) bool { return !isContent(name, dir) },
		Skipped: o.skipped,
	}
	for _, f := range in.files {
		scan.Later = append(scan.Later, f.Name)
	}
	snap, err := tree.Scan(ctx, dir, scan)
	if err != nil {
		return nil, fmt.Errorf("reading the private data directory: %w", err)
	}
	return snap, nil
}

// isContent tells Content's part from Transmit's.
func isContent(name string, dir bool) bool {
	top, _, nested := strings.Cut(name, "/")
	return (nested || dir) && top != "env" && top != "inventory"
}
