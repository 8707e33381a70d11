package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// wordList is a flag that takes all words up to the next flag, as the Python tool
// has them, and may be repeated.
type wordList []string

func (w *wordList) String() string { return strings.Join(*w, " ") }
func (w *wordList) Type() string   { return "list" }

// Set adds a word.
func (w *wordList) Set(s string) error {
	*w = append(*w, s)
	return nil
}

// normalize turns a command line as the Python tool takes it into one that cobra
// takes: flags before the subcommand go behind it, and the words of a list get
// the list's flag each. Where abbreviated, a long flag may be shortened as long
// as it is clear which one is meant. Whatever is wrong is left for cobra to tell.
func normalize(root *cobra.Command, args []string, abbreviated bool) []string {
	cmd, path, rest := root, []string(nil), []string(nil)
	words := false // an argument has come that is no flag's: what follows names no subcommand
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			rest = append(rest, args[i:]...)
			break
		}
		if !strings.HasPrefix(arg, "-") || arg == "-" {
			if sub := subcommand(cmd, arg); sub != nil && !words {
				cmd, path = sub, append(path, arg)
				continue
			}
			words, rest = true, append(rest, arg)
			continue
		}
		flag, arg := find(cmd, arg, abbreviated)
		if flag == nil {
			rest = append(rest, arg)
			continue
		}
		if isItem(flag) {
			var item string
			item, i = itemWords(flag, args, i)
			rest = append(rest, item)
			continue
		}
		if _, isList := flag.Value.(*wordList); isList && !strings.Contains(arg, "=") {
			for i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") {
				i++
				rest = append(rest, "--"+flag.Name+"="+args[i])
			}
			continue
		}
		rest = append(rest, arg)
		if flag.NoOptDefVal == "" && !hasValue(arg, flag) && i+1 < len(args) {
			i++ // whatever it looks like
			rest = append(rest, args[i])
		}
	}
	return append(path, rest...)
}

// subcommand returns the one that is called name.
func subcommand(cmd *cobra.Command, name string) *cobra.Command {
	for _, c := range cmd.Commands() {
		if c.Name() == name || c.HasAlias(name) {
			return c
		}
	}
	return nil
}

// find returns the flag that arg sets, and arg with the flag's whole name. Before
// the subcommand is known, any of one that has it will do: they agree.
func find(cmd *cobra.Command, arg string, abbreviated bool) (*pflag.Flag, string) {
	if !strings.HasPrefix(arg, "--") {
		return findShort(cmd, arg[1:]), arg
	}
	name, value, given := strings.Cut(arg[2:], "=")
	name = strings.ReplaceAll(name, "_", "-")
	var matches []*pflag.Flag
	var exact *pflag.Flag
	visitFlags(cmd, func(f *pflag.Flag) {
		switch {
		case f.Name == name, isItem(f) && strings.EqualFold(f.Name, name):
			exact = f
		case abbreviated && strings.HasPrefix(f.Name, name) && !hasName(matches, f.Name):
			matches = append(matches, f)
		}
	})
	if exact == nil && len(matches) == 1 {
		exact = matches[0]
	}
	if exact == nil {
		return nil, arg
	}
	if given {
		return exact, "--" + exact.Name + "=" + value
	}
	return exact, "--" + exact.Name
}

func hasName(flags []*pflag.Flag, name string) bool {
	for _, f := range flags {
		if f.Name == name {
			return true
		}
	}
	return false
}

// findShort returns the flag of a cluster of letters that may take a value: the
// first that does, else the last letter's.
func findShort(cmd *cobra.Command, letters string) *pflag.Flag {
	var found *pflag.Flag
	for _, letter := range letters {
		if found != nil && found.NoOptDefVal == "" {
			return found
		}
		found = nil
		visitFlags(cmd, func(f *pflag.Flag) {
			if f.Shorthand == string(letter) {
				found = f
			}
		})
		if found == nil {
			return nil
		}
	}
	return found
}

// hasValue tells whether arg holds its flag's value already.
func hasValue(arg string, f *pflag.Flag) bool {
	if strings.HasPrefix(arg, "--") {
		return strings.Contains(arg, "=")
	}
	return !strings.HasSuffix(arg, f.Shorthand) || strings.Contains(arg[:len(arg)-1], f.Shorthand)
}

// visitFlags goes through the flags of cmd, or of all its subcommands as long as
// it needs one of these.
func visitFlags(cmd *cobra.Command, visit func(*pflag.Flag)) {
	cmd.Flags().VisitAll(visit)
	if cmd.HasParent() && cmd.Runnable() {
		return
	}
	for _, c := range cmd.Commands() {
		c.Flags().VisitAll(visit)
	}
}
