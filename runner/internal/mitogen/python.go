package mitogen

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// environ is the environment as os/exec takes it.
func (p Play) environ() []string {
	env := make([]string, 0, len(p.Env))
	for k, v := range p.Env {
		env = append(env, k+"="+v)
	}
	return env
}

// lookPath finds a program in the PATH of the play, not of this process.
func (p Play) lookPath() (string, error) { return lookPath(p.Program, p.Dir, p.Env["PATH"]) }

func lookPath(program, dir, path string) (string, error) {
	candidates := []string{program}
	if !strings.Contains(program, "/") {
		candidates = candidates[:0]
		for _, d := range filepath.SplitList(path) {
			candidates = append(candidates, filepath.Join(d, program))
		}
	}
	for _, c := range candidates {
		if !filepath.IsAbs(c) {
			c = filepath.Join(dir, c)
		}
		if info, err := os.Stat(c); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return c, nil
		}
	}
	return "", &fs.PathError{Op: "look up", Path: program, Err: exec.ErrNotFound}
}

// python returns the interpreter that runs program, with its arguments: that of
// its first line, or, where that is another program (a wrapper in shell), the
// one that Ansible itself names.
func (p Play) python(ctx context.Context, program string) ([]string, error) {
	line, err := firstLine(program)
	if err != nil {
		return nil, err
	}
	words := strings.Fields(strings.TrimPrefix(line, "#!"))
	if !strings.HasPrefix(line, "#!") {
		words = nil
	}
	if len(words) > 0 && filepath.Base(words[0]) == "env" {
		for words = words[1:]; len(words) > 0 && (words[0][0] == '-' || strings.Contains(words[0], "=")); {
			words = words[1:] // env's own options and settings
		}
		if len(words) > 0 {
			if words[0], err = lookPath(words[0], p.Dir, p.Env["PATH"]); err != nil {
				return nil, err
			}
		}
	}
	if len(words) > 0 && strings.HasPrefix(filepath.Base(words[0]), "python") && !script(words[0]) {
		return words, nil
	}
	return p.askAnsible(ctx, program)
}

func firstLine(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	line, err := bufio.NewReader(io.LimitReader(f, 4096)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", err
	}
	return strings.TrimSpace(line), nil
}

// script tells whether a file is one: a shim, which chooses an interpreter by
// rules of its own.
func script(file string) bool {
	line, err := firstLine(file)
	return err != nil || strings.HasPrefix(line, "#!")
}

var pythonLine = regexp.MustCompile(`(?m)^\s*python version = .*\((/[^()]+)\)\s*$`)

// askAnsible takes longer than reading a line, but tells for certain.
func (p Play) askAnsible(ctx context.Context, program string) ([]string, error) {
	cmd := exec.CommandContext(ctx, program, "--version")
	cmd.Dir, cmd.Env = p.Dir, p.environ()
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s --version: %w", program, err)
	}
	m := pythonLine.FindSubmatch(out)
	if m == nil {
		return nil, fmt.Errorf("%s --version does not tell which Python runs it", program)
	}
	return []string{string(m[1])}, nil
}
