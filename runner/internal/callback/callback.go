// Package callback holds the plugin through which a running Ansible tells of
// its events (docs/runner.md §8).
package callback

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
)

// Name is what ansible's ANSIBLE_STDOUT_CALLBACK calls the plugin.
const Name = "ranvier_events"

// KeyVariable names the environment variable that hands the plugin the key for
// its marks; it removes it before the play begins.
const KeyVariable = "RANVIER_EVENTS_KEY"

//go:embed ranvier_events.py
var source []byte

// Install writes the plugin into dir, which it makes where it is missing. An
// error is a *fs.PathError.
func Install(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("install the callback plugin: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, Name+".py"), source, 0o600); err != nil {
		return fmt.Errorf("install the callback plugin: %w", err)
	}
	return nil
}
