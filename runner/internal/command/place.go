package command

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// place makes the job's artifact directory and opens it. What is written there
// later goes through the returned root: a job in a container sees the directory
// and could put a link in its place, but not make this process follow it.
//
// In a private data directory that was sent, a link on the way is the sender's:
// a directory takes its place. In one's own only the run's directory must be
// none; where its parent leads is up to the one who made it.
func (j *Job) place() (*os.Root, error) {
	base, way := filepath.Dir(j.ArtifactDir), filepath.Base(j.ArtifactDir)
	if rel, err := filepath.Rel(j.sentTo, j.ArtifactDir); j.sentTo != "" && err == nil && filepath.IsLocal(rel) {
		base, way = j.sentTo, rel
	}
	if err := os.MkdirAll(base, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(base)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	for i := 0; i <= len(way); i++ {
		if i < len(way) && way[i] != filepath.Separator {
			continue
		}
		if err := directory(root, way[:i], base == j.sentTo); err != nil {
			return nil, err
		}
	}
	return root.OpenRoot(way)
}

// ForgetEvents makes the artifact directory, without events of an earlier run of
// this name. Errors are those of files.
func (j *Job) ForgetEvents() error {
	root, err := j.place()
	if err != nil {
		return err
	}
	defer root.Close()
	return root.RemoveAll("job_events")
}

// directory makes one that is missing. A link is taken away, or refused.
func directory(root *os.Root, name string, takeAway bool) error {
	info, err := root.Lstat(name)
	if err == nil && info.Mode().Type() == fs.ModeSymlink {
		if !takeAway {
			return fmt.Errorf("%s is a link: a run's artifacts are not written through one", filepath.Join(root.Name(), name))
		}
		err = errors.Join(root.Remove(name), fs.ErrNotExist)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = root.Mkdir(name, 0o700)
	}
	return err
}

// clearWay removes what an earlier run of this name, or the sender, has put
// where this one writes. A fact cache of one's own may well be a link.
func (f *Files) clearWay() error {
	names := []string{"job_events", tempName}
	if cache, err := filepath.Rel(f.job.ArtifactDir, f.job.FactCache); f.job.sentTo != "" && err == nil && filepath.IsLocal(cache) {
		first, _, _ := strings.Cut(cache, string(filepath.Separator))
		names = append(names, first)
	}
	for _, name := range names {
		if info, err := f.root.Lstat(name); err == nil && info.Mode().Type() == fs.ModeSymlink {
			if err := f.root.Remove(name); err != nil {
				return err
			}
		}
	}
	return errors.Join(f.root.RemoveAll("events"), f.root.RemoveAll("callback"))
}

// Create makes a file in the artifact directory, or an empty one of it that is
// there. Anything but a file, such as a link or a pipe that the job has put
// there, is removed.
func (f *Files) Create(name string) (*os.File, error) {
	if info, err := f.root.Lstat(name); err == nil && !info.Mode().IsRegular() {
		if err := f.root.Remove(name); err != nil {
			return nil, err
		}
	}
	return f.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
}

// Write makes such a file with data in it. It is a new one: an earlier run's may
// have another mode.
func (f *Files) Write(name string, data []byte) error {
	if err := f.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := f.Create(name)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Close())
}

// InPlace returns an error where the artifact directory is no longer found by
// its name: the job has put something else there.
func (f *Files) InPlace() error {
	ours, err := f.root.Stat(".")
	if err != nil {
		return err
	}
	there, err := os.Stat(f.job.ArtifactDir)
	if err == nil && !os.SameFile(ours, there) {
		err = fmt.Errorf("%s is another directory than when the job began", f.job.ArtifactDir)
	}
	return err
}

// Close ends the use of the artifact directory.
func (f *Files) Close() {
	if f.root != nil {
		f.root.Close()
	}
}
