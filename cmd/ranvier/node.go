package main

import (
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ranvier-mesh/ranvier/internal/config"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/quiclink"
	"github.com/ranvier-mesh/ranvier/mesh/tcplink"
	"github.com/ranvier-mesh/ranvier/mesh/wslink"
	"github.com/ranvier-mesh/ranvier/node"
)

// transports maps the schemes of addresses to what carries the links.
func transports(log *slog.Logger) (map[string]link.Transport, error) {
	quic, err := quiclink.New(quiclink.Config{Log: log})
	if err != nil {
		return nil, err
	}
	return map[string]link.Transport{
		"tcp":  tcplink.Transport{},
		"quic": quic,
		"ws":   wslink.Transport{},
		"wss":  wslink.Transport{Secure: true},
	}, nil
}

func newNode() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "node -c FILE",
		Short: "Run a node of the mesh",
		Long: `Run a node until SIGINT or SIGTERM; SIGHUP reloads its links. The configuration file has Receptor's format
(docs/config.md); config-examples has some to begin with. The log goes to
standard error.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			level := new(slog.LevelVar)
			level.Set(cfg.LogLevel)
			log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
			carriers, err := transports(log)
			if err != nil {
				return err
			}
			n, err := node.New(cmd.Context(), cfg, node.Options{Transports: carriers, Version: buildVersion(), Log: log, Level: level, Keeper: keeperCommand()})
			if err != nil {
				return err
			}
			defer onHangup(func() { n.ReloadFile(cmd.Context()) })() // it logs its error
			return n.Run(cmd.Context(), nil)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration file (needed)")
	cmd.MarkFlagRequired("config")
	cmd.MarkFlagFilename("config", "yml", "yaml", "conf")
	return cmd
}

// onHangup calls f at every SIGHUP, until the returned function is called.
func onHangup(f func()) (stop func()) {
	signals, over := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-signals:
				f()
			case <-over:
				return
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(over)
	}
}
