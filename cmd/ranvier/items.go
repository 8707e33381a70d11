package main

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/ranvier-mesh/ranvier/internal/config"
	"github.com/ranvier-mesh/ranvier/routing"
)

// itemFlag is an item of the configuration as a flag, which takes all words up
// to the next flag. normalize has made one JSON list of them, so that each item
// keeps its own.
type itemFlag struct {
	name string
	args *[]config.Arg // of all items, in their order
}

func (i *itemFlag) String() string { return "" }
func (i *itemFlag) Type() string   { return "item" }

// Set adds an item.
func (i *itemFlag) Set(s string) error {
	var words []string
	if err := json.Unmarshal([]byte(s), &words); err != nil {
		words = []string{s}
	}
	*i.args = append(*i.args, config.Arg{Item: i.name, Words: words})
	return nil
}

func isItem(f *pflag.Flag) bool {
	_, ok := f.Value.(*itemFlag)
	return ok
}

// itemWords takes the words of an item from the command line behind args[at],
// which is its flag. It returns the flag in pflag's form, and where the last word stands.
func itemWords(flag *pflag.Flag, args []string, at int) (string, int) {
	words := []string{}
	if _, value, ok := strings.Cut(args[at], "="); ok {
		words = append(words, value)
	}
	for at+1 < len(args) && !strings.HasPrefix(args[at+1], "-") {
		at++
		words = append(words, args[at])
	}
	text, _ := json.Marshal(words) // a list of strings always has a form
	return "--" + flag.Name + "=" + string(text), at
}

// dataDir is where a node keeps its data whose configuration says datadir, or
// nothing. As Receptor it is a directory with the node's name in there, so that
// several nodes of a host may say the same, and one that others may write can be
// said.
func (f *nodeFlags) dataDir(id routing.NodeID, datadir string) string {
	if !f.compat {
		return cmp.Or(datadir, defaultDataDir())
	}
	name := strings.ReplaceAll(string(id), "/", "_")
	if strings.Trim(name, ".") == "" {
		name = "_" // no directory's name
	}
	return filepath.Join(cmp.Or(datadir, receptorDataDir()), name)
}

// receptorDataDir is what datadir is by default as Receptor: not its /tmp/receptor,
// which reboots and cleaners empty, where there is a better place.
func receptorDataDir() string {
	dir := filepath.Join(config.DefaultDataDir, receptorName)
	if os.Geteuid() == 0 || writable(dir) || writable(config.DefaultDataDir) {
		return dir
	}
	if home, err := os.UserHomeDir(); err == nil && writable(home) {
		return filepath.Join(userDir(), receptorName)
	}
	return "/tmp/receptor"
}

func writable(dir string) bool { return unix.Access(dir, unix.W_OK) == nil }
