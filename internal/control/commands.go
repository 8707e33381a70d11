package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ranvier-mesh/ranvier/routing"
)

// How long the node may take for a command.
const (
	pingTime    = 10 * time.Second
	traceTime   = 30 * time.Second
	connectTime = 30 * time.Second
)

// builtin is the table of the commands that every node has.
func (s *Server) builtin() []Command {
	return []Command{
		{Name: "status", Run: s.status},
		{Name: "ping", Args: []string{"target"}, Run: s.ping},
		{Name: "traceroute", Args: []string{"target"}, Run: s.traceroute},
		{Name: "connect", Args: []string{"node", "service", "tls"}, Run: s.connect},
		{Name: "reload", TakesRest: true, Run: notSupported},
		{Name: "work", TakesRest: true, Run: notSupported}, // the node brings its own
	}
}

func notSupported(_ context.Context, req *Request, _ *Session) error {
	return fmt.Errorf("%s: not supported yet in this version", req.Command)
}

func (s *Server) status(ctx context.Context, req *Request, sess *Session) error {
	want, err := req.Strings("requested_fields")
	if err != nil {
		return err
	}
	st, err := s.backend.Status(ctx, want)
	if err != nil {
		return err
	}
	return sess.Reply(statusReply{st, want})
}

func (s *Server) ping(ctx context.Context, req *Request, sess *Session) error {
	target, err := s.node(req, "target")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, pingTime)
	defer cancel()
	r, err := s.backend.Ping(ctx, target)
	if err != nil {
		return sess.Reply(pingFailure{Error: err.Error()})
	}
	return sess.Reply(pingReply{true, r.From, r.Time, r.Time.String()})
}

func (s *Server) traceroute(ctx context.Context, req *Request, sess *Session) error {
	target, err := s.node(req, "target")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, traceTime)
	defer cancel()
	hops, err := s.backend.Traceroute(ctx, target)
	if err != nil {
		// The last node that is known is the one to look at.
		last := TraceHop{From: s.nodeID}
		if len(hops) > 0 {
			last = hops[len(hops)-1]
		}
		hops = append(hops, TraceHop{From: last.From, Time: last.Time, Error: err.Error()})
	}
	return sess.Reply(traceReply(hops))
}

func (s *Server) connect(ctx context.Context, req *Request, sess *Session) error {
	node, err := s.node(req, "node")
	if err != nil {
		return err
	}
	service, err := req.Need("service")
	if err != nil {
		return err
	}
	tls, err := req.String("tls")
	if err != nil {
		return err
	}
	opening, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	far, err := s.backend.Connect(opening, node, service, tls)
	if err != nil {
		return err
	}
	if err := sess.Say(connecting); err != nil {
		far.Close()
		return err
	}
	if err := bridge(sess, far); err != nil {
		s.log.Debug("connection to a service broke", "node", node, "service", service, "err", err)
	}
	return ErrClose
}

// node returns the id of a node that a request names. "localhost" is this one.
func (s *Server) node(req *Request, name string) (string, error) {
	id, err := req.Need(name)
	if err != nil {
		return "", err
	}
	if strings.EqualFold(id, "localhost") {
		return s.nodeID, nil
	}
	if err := routing.NodeID(id).Validate(); err != nil {
		return "", fmt.Errorf("%s: %w", req.Command, err)
	}
	return id, nil
}

// bridge copies both ways until both have ended, and closes both ends. The
// end of one way is passed on and leaves the other way open. The error joins
// those of the two ways.
func bridge(near *Session, far Stream) error {
	shut := func() {
		near.conn.Close()
		far.Close()
	}
	defer shut()
	pass := func(dst Stream, src io.Reader) error {
		_, err := io.Copy(dst, src)
		if err == nil {
			err = dst.CloseWrite()
		}
		if err != nil {
			shut() // the other way cannot be waited for
		}
		return err
	}
	down := make(chan error, 1)
	go func() { down <- pass(nearStream{near}, far) }()
	up := pass(far, near)
	return errors.Join(up, <-down)
}

// nearStream makes a Stream of a Session.
type nearStream struct{ *Session }

func (n nearStream) Close() error { return n.conn.Close() }
