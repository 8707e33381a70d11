package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/ranvier-mesh/ranvier/runner"
)

// logFlags are the flags for the log of a job.
type logFlags struct {
	debug bool
	file  string
}

func (l *logFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&l.debug, "debug", false, "log what happens, to standard error or to --logfile")
	cmd.Flags().StringVar(&l.file, "logfile", "", "log to this file too; what was in it stays")
}

// open returns the log, which goes nowhere if nothing was asked for. The file can
// be read by its owner only.
func (l *logFlags) open() (*slog.Logger, io.Closer, error) {
	level := slog.LevelInfo
	if l.debug {
		level = slog.LevelDebug
	}
	options := &slog.HandlerOptions{Level: level}
	if l.file != "" {
		f, err := os.OpenFile(l.file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, nil, fmt.Errorf("--logfile: %w", err)
		}
		return slog.New(slog.NewTextHandler(f, options)), f, nil
	}
	if l.debug {
		return slog.New(slog.NewTextHandler(os.Stderr, options)), io.NopCloser(nil), nil
	}
	return slog.New(slog.DiscardHandler), io.NopCloser(nil), nil
}

// logJob returns o with handlers that log how the job goes. The environment in
// the first status holds secrets and stays out.
func logJob(log *slog.Logger, o runner.ProcessOptions) runner.ProcessOptions {
	began := time.Now()
	status, artifacts, finished := o.StatusHandler, o.ArtifactsHandler, o.FinishedHandler
	o.StatusHandler = func(s runner.Status) {
		log.Info("job", "status", s.Status, "ident", s.Ident)
		if len(s.Command) > 0 {
			log.Debug("job", "command", s.Command, "dir", s.CWD)
		}
		if s.Explanation != "" {
			log.Error("job", "explanation", s.Explanation)
		}
		if status != nil {
			status(s)
		}
	}
	o.ArtifactsHandler = func(dir string) {
		log.Debug("artifacts", "dir", dir)
		if artifacts != nil {
			artifacts(dir)
		}
	}
	o.FinishedHandler = func(r runner.Result) {
		log.Info("job ended", "status", r.Status, "rc", r.RC, "events", r.Events, "artifacts", r.ArtifactDir, "took", time.Since(began))
		if finished != nil {
			finished(r)
		}
	}
	return o
}
