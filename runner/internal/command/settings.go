package command

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// settings are the options that a site's env/settings may overrule.
type settings struct {
	isolate                  bool
	executable, image        string
	mounts, options          []string
	auth                     map[string]any
	path                     string
	hide, show, readOnly     []string
	directory                string
	keepDirectory            bool
	isolatedDir              string // the copy of the project, once it is there
	factCache, factCacheType string
	idle, job                float64
	suppressOutput           bool
	quiet                    *bool
}

// meaningless are settings of the Python tool that are for its own machinery.
var meaningless = []string{"pexpect_timeout", "pexpect_use_poll", "subprocess_timeout"}

// readSettings: what the options say < kwargs' settings < env/settings; but the
// options' time limit counts whatever the settings say.
func (b *builder) readSettings() error {
	s := &b.settings
	*s = settings{
		isolate: b.ProcessIsolation != nil && *b.ProcessIsolation, executable: cmp.Or(b.ProcessIsolationExecutable, "podman"),
		image: b.ContainerImage, mounts: b.ContainerVolumeMounts, options: b.ContainerOptions, auth: b.ContainerAuthData,
		path: b.IsolationPath, hide: b.HidePaths, show: b.ShowPaths, readOnly: b.ROPaths,
		directory: b.DirectoryIsolationBasePath, factCache: cmp.Or(b.FactCache, "fact_cache"),
		factCacheType: cmp.Or(b.FactCacheType, "jsonfile"), suppressOutput: b.SuppressOutputFile,
	}
	cleanup := true
	file, err := readMap(b.Dir, "env/settings")
	if err != nil {
		return err
	}
	readers := map[string]func([]byte) error{
		"idle_timeout": number(&s.idle), "job_timeout": number(&s.job), "suppress_output_file": truth(&s.suppressOutput),
		"suppress_ansible_output": func(raw []byte) error {
			s.quiet = new(bool)
			return truth(s.quiet)(raw)
		},
		"fact_cache": text(&s.factCache), "fact_cache_type": text(&s.factCacheType),
		"process_isolation": truth(&s.isolate), "process_isolation_executable": text(&s.executable),
		"process_isolation_path": text(&s.path), "process_isolation_hide_paths": list(&s.hide),
		"process_isolation_show_paths": list(&s.show), "process_isolation_ro_paths": list(&s.readOnly),
		"directory_isolation_base_path": text(&s.directory), "directory_isolation_cleanup": truth(&cleanup),
		"container_image": text(&s.image), "container_volume_mounts": list(&s.mounts),
		"container_options": list(&s.options), "container_auth_data": anything(&s.auth, "a map"),
	}
	for _, e := range merge(b.Settings, file) {
		read := readers[e.Key]
		if read == nil && !slices.Contains(meaningless, e.Key) {
			b.job.Warnings = append(b.job.Warnings, e.where("env/settings")+": is no setting, and changes nothing")
		}
		if read == nil || e.Value == nil {
			continue
		}
		raw, err := json.Marshal(e.Value)
		if err == nil {
			err = read(raw)
		}
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrJob, e.where("env/settings"), err)
		}
	}
	if b.Timeout > 0 {
		s.job = b.Timeout
	}
	s.keepDirectory = !cleanup
	b.job.IdleTimeout, b.job.JobTimeout = seconds(s.idle), seconds(s.job)
	b.job.SuppressOutputFile, b.job.Quiet = s.suppressOutput, s.quiet
	return nil
}

// seconds is a duration; a very long one is none.
func seconds(n float64) time.Duration {
	const tooLong = float64(1<<63-1) / float64(time.Second)
	if n >= tooLong {
		return 0
	}
	return time.Duration(n * float64(time.Second))
}

// Seconds writes a limit for people.
func Seconds(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'g', -1, 64) + " s"
}
