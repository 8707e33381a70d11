package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ranvier-mesh/ranvier/internal/config"
	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/quiclink"
	"github.com/ranvier-mesh/ranvier/mesh/tcplink"
	"github.com/ranvier-mesh/ranvier/mesh/wslink"
	"github.com/ranvier-mesh/ranvier/node"
)

// transports maps the schemes of addresses to what carries the links, with the
// TLS of self where that is not nil. ca, where it is not nil, lets nodes join.
func transports(log *slog.Logger, self *identity.Self, ca *identity.CA) (map[string]link.Transport, error) {
	var server, client *tls.Config
	services := map[string]func(*tls.Conn){}
	if self != nil {
		server, client = self.ServerTLS(), self.ClientTLS()
	}
	quic, err := quiclink.New(quiclink.Config{TLSServer: server, TLSClient: client, Log: log})
	if err != nil {
		return nil, err
	}
	ws := wslink.Transport{LinkServerTLS: server, LinkClientTLS: client}
	tcp := tcplink.Transport{ServerTLS: server, ClientTLS: client, Services: services}
	if self != nil && ca != nil {
		join := identity.NewJoinService(ca, log)
		tcp.ServerTLS = server.Clone()
		tcp.ServerTLS.GetConfigForClient = join.Config
		services[identity.JoinProtocol] = join.Serve
	}
	wss := ws
	wss.Secure = true
	return map[string]link.Transport{"tcp": tcp, "quic": quic, "ws": ws, "wss": wss}, nil
}

// nodeIdentity loads what a node is, and the CA if it has that: both nil for a
// node without an identity.
func nodeIdentity(cfg *config.Config) (*identity.Self, *identity.CA, error) {
	if cfg.Node.Insecure {
		return nil, nil, nil
	}
	dir := cmp.Or(cfg.Node.Identity, filepath.Join(cfg.Node.DataDir, identityDir))
	self, err := identity.Load(dir, nil)
	if errors.Is(err, identity.ErrNone) && cfg.Node.Identity == "" {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, cfg.Node.Pos.Errorf("identity", "%w", err)
	}
	caDir := filepath.Join(cfg.Node.DataDir, caDir)
	if _, err := os.Stat(caDir); err != nil {
		return self, nil, nil
	}
	ca, err := identity.OpenCA(caDir, nil)
	return self, ca, err
}

// receptorName is the name by which this program stands in for Receptor:
// services and scripts call it so.
const receptorName = "receptor"

// nodeFlags are those of the command node, and of receptor.
type nodeFlags struct {
	source config.Source
	compat bool
}

func newNode() *cobra.Command {
	var f nodeFlags
	cmd := &cobra.Command{
		Use:   "node -c FILE [--ITEM KEY=VALUE ...]...",
		Short: "Run a node of the mesh",
		Long: `Run a node until SIGINT or SIGTERM; SIGHUP reloads its links. The configuration file has Receptor's format
(docs/config.md); config-examples has some to begin with. Every item of the file is a flag as well, with
its keys after it, maps and lists as JSON:

  ranvier node --node id=test --local-only --control-service filename=/tmp/test.sock

The log goes to standard error.`,
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&f.compat, "receptor-compat", false, "be as open as Receptor: listeners on any address and no policy, whoever comes (not for networks that others use)")
	return cmd
}

// newReceptorRoot is the program as Receptor.
func newReceptorRoot() *cobra.Command {
	f := nodeFlags{compat: true}
	root := &cobra.Command{
		Use:   receptorName + " [-c FILE] [--ITEM KEY=VALUE ...]...",
		Short: "Run a node of the mesh, as Receptor does",
		Long: `Run a node of a mesh of Ranvier nodes from Receptor's configuration: a file, or items on the command line. It does what
"ranvier node --receptor-compat" does (docs/moving-from-receptor.md).`,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	f.add(root)
	root.SetHelpCommand(&cobra.Command{Use: "no-help", Hidden: true})
	finishRoot(root, buildVersion())
	root.SetVersionTemplate("{{.Version}}\n")
	return root
}

// add gives a command the flags and makes it run a node.
func (f *nodeFlags) add(cmd *cobra.Command) {
	cmd.Args = exactArgs()
	f.source.DataDir = f.dataDir
	cmd.Flags().StringVarP(&f.source.File, "config", "c", "", "configuration file")
	cmd.MarkFlagFilename("config", "yml", "yaml", "conf")
	for _, name := range config.ItemNames() {
		cmd.Flags().Var(&itemFlag{name, &f.source.Args}, name, "item "+name+" of the configuration: KEY=VALUE ...")
		cmd.Flags().MarkHidden(name) // docs/config.md has them all
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return f.run(cmd) }
}

func (f *nodeFlags) run(cmd *cobra.Command) error {
	if f.source.File == "" && len(f.source.Args) == 0 {
		return &usageError{errors.New("a configuration is needed: -c FILE, or items like --node id=NAME (see --help)")}
	}
	cfg, err := f.source.Load()
	if err != nil {
		return err
	}
	if len(cfg.Certs) > 0 {
		return makeCerts(cfg.Certs, cmd.InOrStdin(), cmd.OutOrStdout())
	}
	level := new(slog.LevelVar)
	level.Set(cfg.LogLevel)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	self, ca, err := nodeIdentity(cfg)
	if err != nil {
		return err
	}
	carriers, err := transports(log, self, ca)
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		log.Warn("this program's own worker cannot be used", "err", err)
	}
	n, err := node.New(cmd.Context(), cfg, node.Options{
		Transports: carriers, Identity: self, CA: ca, Version: buildVersion(), Log: log, Level: level,
		Keeper: keeperCommand(), Worker: program, Open: f.compat, Load: f.source.Load,
	})
	if err != nil {
		return err
	}
	if why := jobsDie(cmd.Context()); why != "" {
		log.Warn("jobs that run will end with this process: " + why)
	}
	defer onHangup(func() { n.ReloadFile(cmd.Context()) })() // it logs its error
	return n.Run(cmd.Context(), nil)
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
