package mitogen

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// config is ansible.cfg as far as strategies need it.
type config struct {
	file   string            // empty if there is none
	values map[string]string // of the section [defaults]
}

// Default returns what ansible.cfg has for a key of its section [defaults], empty
// where there is none. Errors are those of the file.
func (p Play) Default(key string) (string, error) {
	cfg, err := p.config()
	return cfg.values[key], err
}

// config reads the first configuration file of those that Ansible looks for.
func (p Play) config() (config, error) {
	var files []string
	if file := p.Env["ANSIBLE_CONFIG"]; file != "" {
		if !filepath.IsAbs(file) {
			file = filepath.Join(p.Dir, file)
		}
		if info, err := os.Stat(file); err == nil && info.IsDir() {
			file = filepath.Join(file, "ansible.cfg")
		}
		files = append(files, file)
	}
	// Ansible takes no advice from a directory that everybody can write to.
	const others = 0o002
	if info, err := os.Stat(p.Dir); err == nil && info.Mode()&others == 0 {
		files = append(files, filepath.Join(p.Dir, "ansible.cfg"))
	}
	if home := p.Env["HOME"]; home != "" {
		files = append(files, filepath.Join(home, ".ansible.cfg"))
	}
	files = append(files, "/etc/ansible/ansible.cfg")
	for _, file := range files {
		values, err := readConfig(file)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return config{}, fmt.Errorf("ansible.cfg: %w", err)
		}
		return config{file, values}, nil
	}
	return config{}, nil
}

// readConfig returns the section [defaults]. What is wrong with the file is
// Ansible's to tell.
func readConfig(file string) (map[string]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	values := make(map[string]string)
	section, key := "", ""
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		text := lines.Text()
		line := strings.TrimSpace(text)
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case key != "" && (text[0] == ' ' || text[0] == '\t'): // the value goes on
		case line[0] == '[':
			section, _, _ = strings.Cut(line[1:], "]")
			key = ""
		default:
			end := strings.IndexAny(line, "=:")
			if end < 0 {
				end = len(line)
			}
			key = strings.ToLower(strings.TrimSpace(line[:end]))
			value, _, _ := strings.Cut(strings.TrimLeft(line[end:], "=: \t"), " ;")
			if section == "defaults" {
				values[key] = strings.TrimSpace(value)
			}
		}
	}
	return values, lines.Err()
}
