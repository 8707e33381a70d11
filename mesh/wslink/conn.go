package wslink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/coder/websocket"
)

// conn is a WebSocket as a byte stream: the bounds of messages mean nothing.
// One goroutine reads.
type conn struct {
	ws   *websocket.Conn
	raw  net.Conn             // below the WebSocket
	tls  *tls.ConnectionState // below HTTP; nil: none
	rest io.Reader
}

func newConn(ws *websocket.Conn, raw net.Conn, state *tls.ConnectionState) *conn {
	ws.SetReadLimit(-1) // a message is read piece by piece, whatever its size
	return &conn{ws: ws, raw: raw, tls: state}
}

// ConnectionState returns the TLS below HTTP; zero where there is none.
func (c *conn) ConnectionState() tls.ConnectionState {
	if c.tls == nil {
		return tls.ConnectionState{}
	}
	return *c.tls
}

func (c *conn) Read(p []byte) (int, error) {
	for {
		if c.rest == nil {
			kind, r, err := c.ws.Reader(context.Background())
			switch status := websocket.CloseStatus(err); {
			case status == websocket.StatusNormalClosure || status == websocket.StatusGoingAway:
				return 0, io.EOF
			case err != nil:
				return 0, err
			case kind != websocket.MessageBinary:
				return 0, fmt.Errorf("a %v in place of binary data", kind)
			}
			c.rest = r
		}
		n, err := c.rest.Read(p)
		if errors.Is(err, io.EOF) {
			c.rest, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (c *conn) Write(p []byte) (int, error) {
	if err := c.ws.Write(context.Background(), websocket.MessageBinary, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close says no good-bye: the mesh has done so, and a proxy need not wait.
func (c *conn) Close() error {
	c.raw.Close()
	c.ws.CloseNow()
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.raw.LocalAddr() }
func (c *conn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }

// A deadline that has passed ends the WebSocket, so these are final.
func (c *conn) SetDeadline(t time.Time) error      { return c.raw.SetDeadline(t) }
func (c *conn) SetReadDeadline(t time.Time) error  { return c.raw.SetReadDeadline(t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.raw.SetWriteDeadline(t) }
