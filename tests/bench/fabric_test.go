package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/tcplink"
	"github.com/ranvier-mesh/ranvier/routing"
)

// ours is a node of the mesh with an identity; its links are TCP with TLS.
type ours struct {
	*mesh.Mesh
	listener *mesh.Listener
	tcp      *watchedTransport
}

const service = "bench"

func newMesh(ctx context.Context, s spec, self *identity.Self) (fabric, error) {
	w := &watchedTransport{Transport: tcplink.Transport{ServerTLS: self.ServerTLS(), ClientTLS: self.ClientTLS()}}
	cfg := mesh.Config{
		ID: routing.NodeID(s.ID), Epoch: uint64(time.Now().UnixNano()), Self: self, StreamMemory: s.Memory,
		Transports: map[string]link.Transport{"tcp": w},
	}
	for range s.Listen {
		cfg.Listeners = append(cfg.Listeners, mesh.ListenerConfig{Address: "tcp://127.0.0.1:0", Options: link.Options{Rate: s.Rate}})
	}
	for _, p := range s.Peers {
		cfg.Peers = append(cfg.Peers, mesh.PeerConfig{Address: p, Options: link.Options{Rate: s.Rate}})
	}
	m, err := mesh.New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	l, err := m.Listen(service)
	if err != nil {
		return nil, err
	}
	go m.Run(ctx)
	return &ours{Mesh: m, listener: l, tcp: w}, nil
}

func (o *ours) addrs() []string { return o.Addrs() }

func (o *ours) open(ctx context.Context, to string) (stream, error) {
	return o.Dial(ctx, routing.NodeID(to), service)
}

func (o *ours) serve(handle func(stream)) {
	go func() {
		for {
			c, err := o.listener.Accept()
			if err != nil {
				return
			}
			go handle(c.(*mesh.Conn))
		}
	}()
}

func (o *ours) ping(ctx context.Context, to string) (time.Duration, error) {
	took, _, err := o.Ping(ctx, routing.NodeID(to))
	return took, err
}

func (o *ours) traffic() (sent, received uint64, dialled int) {
	o.tcp.mu.Lock()
	defer o.tcp.mu.Unlock()
	for _, l := range o.tcp.all {
		_, n := l.Traffic()
		sent += n
	}
	for _, l := range o.Status().Links {
		received += l.Received
	}
	return sent, received, len(o.tcp.all)
}

// watchedTransport knows the links that it made, those that are over as well.
type watchedTransport struct {
	tcplink.Transport
	mu  sync.Mutex
	all []link.Link
}

func (w *watchedTransport) With(o link.Options) link.Transport {
	w.Transport = w.Transport.With(o).(tcplink.Transport)
	return w
}

func (w *watchedTransport) Dial(ctx context.Context, addr string) (link.Link, error) {
	l, err := w.Transport.Dial(ctx, addr)
	if err == nil {
		w.mu.Lock()
		w.all = append(w.all, l)
		w.mu.Unlock()
	}
	return l, err
}

// reference is the least that does the same: yamux over TLS 1.3, spliced at
// relays with io.Copy, TLS 1.3 inside from end to end. Its windows are as large as ours.
type reference struct {
	self   *identity.Self
	listen net.Listener
	left   *yamux.Session      // that this node dialled; nil at the first
	right  chan *yamux.Session // that dialled this one
	relays bool
}

func newReference(ctx context.Context, s spec, self *identity.Self) (fabric, error) {
	r := &reference{self: self, right: make(chan *yamux.Session, 1)}
	l, err := tls.Listen("tcp", "127.0.0.1:0", self.ServerTLS())
	if err != nil {
		return nil, err
	}
	r.listen = l
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if s, err := yamux.Server(conn, yamuxConfig()); err == nil {
				r.right <- s
			}
		}
	}()
	if len(s.Peers) == 0 {
		return r, nil
	}
	conn, err := tls.Dial("tcp", strings.TrimPrefix(s.Peers[0], "tcp://"), named(self.ClientTLS()))
	if err != nil {
		return nil, err
	}
	if r.left, err = yamux.Client(conn, yamuxConfig()); err != nil {
		return nil, err
	}
	if r.relays = s.Listen > 0; r.relays {
		go r.relay()
	}
	return r, nil
}

// named is what crypto/tls wants of a client that checks ids itself.
func named(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.ServerName = "127.0.0.1"
	return c
}

func yamuxConfig() *yamux.Config {
	cfg := yamux.DefaultConfig()
	cfg.MaxStreamWindowSize = 1 << 20
	cfg.AcceptBacklog = 1024
	cfg.EnableKeepAlive = false
	cfg.StreamOpenTimeout, cfg.StreamCloseTimeout = 0, 0
	cfg.ConnectionWriteTimeout = time.Hour
	cfg.LogOutput = io.Discard
	return cfg
}

func (r *reference) relay() {
	next := <-r.right
	for {
		in, err := r.left.Accept()
		if err != nil {
			return
		}
		out, err := next.Open()
		if err != nil {
			return
		}
		for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
			go func() {
				io.CopyBuffer(struct{ io.Writer }{pair[1]}, struct{ io.Reader }{pair[0]}, make([]byte, 32<<10))
				pair[1].Close()
			}()
		}
	}
}

func (r *reference) addrs() []string { return []string{"tcp://" + r.listen.Addr().String()} }

func (r *reference) open(ctx context.Context, _ string) (stream, error) {
	s := <-r.right
	r.right <- s
	conn, err := s.Open()
	if err != nil {
		return nil, err
	}
	return &secured{tls.Client(conn, named(r.self.ClientTLS())), conn}, nil
}

// secured closes without what crypto/tls waits for.
type secured struct {
	*tls.Conn
	raw net.Conn
}

func (r *reference) serve(handle func(stream)) {
	if r.left == nil || r.relays {
		return
	}
	go func() {
		for {
			conn, err := r.left.Accept()
			if err != nil {
				return
			}
			go handle(&secured{tls.Server(conn, r.self.ServerTLS()), conn})
		}
	}()
}

func (r *reference) ping(ctx context.Context, to string) (time.Duration, error) {
	if len(r.right) == 0 {
		return 0, errors.New("the next node is not there yet")
	}
	start := time.Now()
	s, err := r.open(ctx, to)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	if _, err := s.Write([]byte("Ex")); err != nil {
		return 0, err
	}
	_, err = io.ReadFull(s, make([]byte, 1))
	return time.Since(start), err
}

func (r *reference) traffic() (sent, received uint64, dialled int) { return 0, 0, 1 }
