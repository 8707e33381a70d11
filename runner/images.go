package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// images removes container images by tag. podman removes their layers too,
// docker only the tag.
func (o CleanupOptions) images(ctx context.Context) (removed int, err error) {
	var errs []error
	for _, tag := range o.RemoveImages {
		found, err := o.engine(ctx, "images", "--format", "{{.Repository}}:{{.Tag}}", tag)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for image := range strings.FieldsSeq(found) {
			said, err := o.engine(ctx, "rmi", image, "-f")
			if err != nil {
				errs = append(errs, err)
			}
			removed += strings.Count(said, "Untagged:")
		}
	}
	if removed > 0 {
		o.Say(fmt.Sprintf("Removed %d image(s)", removed))
	}
	return removed, errors.Join(errs...)
}

func (o CleanupOptions) prune(ctx context.Context) (bool, error) {
	said, err := o.engine(ctx, "image", "prune", "-f")
	if err != nil || said == "" || said == "Total reclaimed space: 0B" {
		return false, err
	}
	o.Say("Pruned images")
	return true, nil
}

// engine runs the container engine and returns what it said. An error has what
// it complained of.
func (o CleanupOptions) engine(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, o.Executable, args...)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return "", fmt.Errorf("%s: %w: install it, or name another with --process-isolation-executable", o.Executable, err)
		}
		return "", fmt.Errorf("%s %s: %w: %s", o.Executable, strings.Join(args, " "), err, strings.TrimSpace(complaints.String()))
	}
	return strings.TrimSpace(out.String()), nil
}
