// Package spool makes the temporary files that stand in for memory when
// something must be known as a whole before it can be used: the size of a zip
// before its base64, the directory at a zip's end before its files.
package spool

import (
	"fmt"
	"os"
)

// File creates a temporary file that has no name any more when it is returned,
// so that no crash leaves it behind; closing it frees its space. dir empty
// means Dir(). Errors are *fs.PathError and name the directory.
func File(dir string) (*os.File, error) {
	if dir == "" {
		dir = Dir()
	}
	f, err := os.CreateTemp(dir, "ranvier-*")
	if err != nil {
		return nil, fmt.Errorf("temporary file (TMPDIR sets its directory): %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("temporary file: %w", err)
	}
	return f, nil
}

// Dir returns the directory for large temporary files: $TMPDIR where it is set,
// else /var/tmp, because /tmp is memory on many systems, else the system's
// temporary directory.
func Dir() string {
	if dir := os.Getenv("TMPDIR"); dir != "" {
		return dir
	}
	if info, err := os.Stat("/var/tmp"); err == nil && info.IsDir() {
		return "/var/tmp"
	}
	return os.TempDir()
}
