package node

import (
	"context"
	"crypto/tls"
	"net"

	"github.com/ranvier-mesh/ranvier/internal/config"
	"github.com/ranvier-mesh/ranvier/internal/control"
	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/routing"
	"github.com/ranvier-mesh/ranvier/worktypes/remote"
)

// What advertisements say of a service (docs/control.md section 4.1).
const (
	connDatagram  = 0
	connStream    = 1
	connStreamTLS = 2
)

// listenControl listens on the control sockets of the file, unix and TCP.
func (n *Node) listenControl(ctx context.Context) error {
	for _, c := range n.cfg.ControlServices {
		if c.Filename != "" {
			l, err := control.ListenUnix(c.Filename, c.Permissions)
			if err != nil {
				return c.Pos.Errorf("filename", "%w", err)
			}
			n.sockets = append(n.sockets, l)
		}
		if c.TCPListen == "" {
			continue
		}
		l, err := n.listenControlTCP(ctx, c)
		if err != nil {
			return err
		}
		n.sockets = append(n.sockets, l)
	}
	return nil
}

func (n *Node) listenControlTCP(ctx context.Context, c config.ControlService) (net.Listener, error) {
	var secure *tls.Config
	if c.TCPTLS != nil {
		var err error
		if secure, err = siteTLS(n, c.TCPTLS, identity.TLSItem.Server); err != nil {
			return nil, err
		}
	} else {
		n.log.Warn("whoever reaches this address may do everything that the control socket can: give it a tcptls with requireclientcert", "address", c.TCPListen, "item", c.Pos)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", c.TCPListen)
	if err != nil {
		return nil, c.Pos.Errorf("tcplisten", "%w", err)
	}
	n.log.Info("control socket", "address", l.Addr(), "tls", secure != nil)
	if secure != nil {
		l = tls.NewListener(l, secure)
	}
	return l, nil
}

// wrapper puts the site's TLS on a stream, or nothing.
type wrapper func(*mesh.Conn) net.Conn

func plain(c *mesh.Conn) net.Conn { return c }

// controlAdvert is how the mesh sees a control service.
func controlAdvert(c config.ControlService) routing.Service {
	s := routing.Service{Name: c.Service, ConnType: connStream, Tags: map[string]string{"type": "Control Service"}}
	if c.TLS != nil {
		s.ConnType = connStreamTLS
	}
	return s
}

// controlService returns what goes around the streams of a control service.
func (n *Node) controlService(c config.ControlService) (wrapper, error) {
	if c.TLS == nil {
		return plain, nil
	}
	secure, err := siteTLS(n, c.TLS, identity.TLSItem.Server)
	return func(conn *mesh.Conn) net.Conn { return tls.Server(conn, secure) }, err
}

// workOverTLS is the work service for submitters that want the site's TLS within
// the stream (tlsclient): a node has it that has a control service with tls.
const workOverTLS = remote.ServiceName + "+tls"

// dialWork opens a stream to the work service of a node.
func (n *Node) dialWork(ctx context.Context, to, client string) (net.Conn, error) {
	service := remote.ServiceName
	if client != "" {
		service = workOverTLS
	}
	stream, err := backend{n}.Connect(mesh.WithJob(ctx, remote.JobOf(ctx)), to, service, client)
	if err != nil {
		return nil, err
	}
	return stream.(net.Conn), nil
}

// overMesh returns the stream of the mesh that a control connection came over,
// within TLS or not; false: it came from this host.
func overMesh(conn net.Conn) (*mesh.Conn, bool) {
	if inner, ok := conn.(*tls.Conn); ok {
		conn = inner.NetConn()
	}
	c, ok := conn.(*mesh.Conn)
	return c, ok
}
