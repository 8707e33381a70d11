package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Command is a line of the server's table of commands.
type Command struct {
	Name string // in lower case
	// Args names the words of the plain-text form, in order, as the JSON
	// form names them.
	Args []string
	// TakesRest is set when the plain-text form may go on after Args, in
	// Request.Rest. Otherwise further words are an error.
	TakesRest bool
	// Run does it. It sends its reply itself. A nil return means that the
	// next line can be read; ErrClose closes the connection; any other error is told to the
	// client in one ERROR line, and the next line can be read.
	Run func(ctx context.Context, req *Request, s *Session) error
}

// ErrClose is returned by a Command that has used the connection up, after raw
// bytes for example.
var ErrClose = errors.New("close the control connection")

// Server answers control connections. It may serve any number of listeners and
// single connections at the same time; an idle connection costs a goroutine and
// about a kilobyte.
type Server struct {
	nodeID   string
	backend  Backend
	log      *slog.Logger
	commands map[string]Command
	budget   atomic.Int64 // what is left of lineBudget
}

// NewServer returns a Server that speaks for the node nodeID.
func NewServer(nodeID string, b Backend, log *slog.Logger) *Server {
	s := &Server{nodeID: nodeID, backend: b, log: log, commands: map[string]Command{}}
	s.budget.Store(lineBudget)
	for _, c := range s.builtin() {
		s.Handle(c)
	}
	return s
}

// Handle adds a command, or replaces the one of that name. It must not be called
// after Serve or ServeConn.
func (s *Server) Handle(c Command) { s.commands[c.Name] = c }

// Serve answers the connections that ln accepts until ctx is done. It closes ln
// and its connections and returns when all of them have ended: with nil if ctx
// was done, else with the error of ln.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var sessions sync.WaitGroup
	defer sessions.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	defer ln.Close()

	var pause time.Duration
	for {
		conn, err := ln.Accept()
		switch {
		case err == nil:
			pause = 0
			sessions.Go(func() { s.ServeConn(ctx, conn) })
		case ctx.Err() != nil:
			return nil
		case isShortage(err):
			// Sessions that end make room; trying at once would spin.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.log.Warn("control socket cannot accept", "err", err, "retry", pause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		default:
			return fmt.Errorf("control socket %s: %w", ln.Addr(), err)
		}
	}
}

// isShortage tells whether an accept failed for want of something that comes back.
func isShortage(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// ServeConn answers one connection, also one that came over the mesh, until the
// client ends it or ctx is done. It closes conn.
func (s *Server) ServeConn(ctx context.Context, conn net.Conn) {
	s.ServeOnly(ctx, conn, nil)
}

// ServeOnly is ServeConn for a client that may not do everything: permit's
// error for a command, in lower case, is told to it. Nil permits all.
func (s *Server) ServeOnly(ctx context.Context, conn net.Conn, permit func(command string) error) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	sess := newSession(conn, &s.budget)
	sess.permit = permit
	err := sess.Say(greeting + s.nodeID)
	for err == nil {
		err = s.next(ctx, sess)
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, ErrClose) && ctx.Err() == nil {
		s.log.Debug("control connection ended", "err", err)
	}
}

// next answers one request. An error means that there is no next one.
func (s *Server) next(ctx context.Context, sess *Session) error {
	req, err := sess.request()
	if err == nil {
		err = s.run(ctx, req, sess)
	} else if bad := (*requestError)(nil); !errors.As(err, &bad) {
		for _, told := range []error{errLongLine, errSlowLine, errBusy} {
			if err == told {
				sess.Say(errorPrefix + err.Error())
			}
		}
		return err
	}
	if broken := (*brokenError)(nil); err == nil || errors.Is(err, ErrClose) || errors.As(err, &broken) {
		return err
	}
	s.log.Debug("control request refused", "err", err)
	return sess.Say(errorPrefix + err.Error())
}

func (s *Server) run(ctx context.Context, req *Request, sess *Session) error {
	c, ok := s.commands[req.Command]
	if !ok {
		return fmt.Errorf("unknown command %.100q", req.Command)
	}
	if sess.permit != nil {
		if err := sess.permit(c.Name); err != nil {
			return err
		}
	}
	req.bind(c.Args)
	if req.Rest != "" && !c.TakesRest {
		return fmt.Errorf("%s: %.100q is too much", req.Command, req.Rest)
	}
	return c.Run(ctx, req, sess)
}
