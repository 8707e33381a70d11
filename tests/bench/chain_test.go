package bench

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"time"
)

// chain is the least that a message there and back can cost on this machine: one
// connection of TCP from the first node to the last, spliced at relays, and an echo.
type chain struct {
	listen net.Listener
	right  chan net.Conn // from the next node, at the first one until it is used
}

const echoBytes = 64 // about an Open and its Answer

func newChain(s spec) (fabric, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &chain{l, make(chan net.Conn, 1)}
	go func() {
		if conn, err := l.Accept(); err == nil {
			c.right <- conn
		}
	}()
	if len(s.Peers) == 0 {
		return c, nil
	}
	left, err := net.Dial("tcp", strings.TrimPrefix(s.Peers[0], "tcp://"))
	if err != nil {
		return nil, err
	}
	if s.Listen == 0 { // the last one
		go io.Copy(struct{ io.Writer }{left}, left)
		return c, nil
	}
	go func() {
		right := <-c.right
		go io.Copy(right, left)
		io.Copy(left, right)
	}()
	return c, nil
}

func (c *chain) addrs() []string    { return []string{"tcp://" + c.listen.Addr().String()} }
func (c *chain) serve(func(stream)) {}

func (c *chain) open(context.Context, string) (stream, error) {
	return nil, errors.New("a chain has one connection only")
}

func (c *chain) ping(context.Context, string) (time.Duration, error) {
	right := <-c.right
	defer func() { c.right <- right }()
	buf := make([]byte, echoBytes)
	start := time.Now()
	if _, err := right.Write(buf); err != nil {
		return 0, err
	}
	_, err := io.ReadFull(right, buf)
	return time.Since(start), err
}

func (c *chain) traffic() (sent, received uint64, dialled int) { return 0, 0, 1 }
