package command

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// copyTree copies what is below from into the directory to: files and directories
// with their modes and times, links as links. What cannot be copied (a pipe, a
// socket, a device) is left out.
func copyTree(to, from string) error {
	type done struct {
		path string
		info fs.FileInfo
	}
	var dirs []done
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch info.Mode().Type() {
		case 0:
			return copyFile(target, path, info)
		case fs.ModeDir:
			dirs = append(dirs, done{target, info})
			if rel == "." {
				return nil
			}
			return os.Mkdir(target, 0o700)
		case fs.ModeSymlink:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(link, target)
		}
		return nil
	})
	for i := len(dirs) - 1; i >= 0 && err == nil; i-- { // when all is in them
		if err = os.Chmod(dirs[i].path, dirs[i].info.Mode().Perm()); err == nil {
			err = os.Chtimes(dirs[i].path, time.Time{}, dirs[i].info.ModTime())
		}
	}
	return err
}

func copyFile(to, from string, info fs.FileInfo) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Chmod(info.Mode().Perm()) // whatever the umask says
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Chtimes(to, time.Time{}, info.ModTime())
}
