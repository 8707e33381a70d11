package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxReply is the longest reply in bytes that a client takes: the status of
// tens of thousands of nodes.
const maxReply = 256 << 20

// ServerError is what the server says when it refuses a request, or that a
// ping or a connection failed. The client can be used on.
type ServerError struct {
	Node string // who says it
	Text string // for people
}

// Error returns the text and who says it.
func (e *ServerError) Error() string { return fmt.Sprintf("node %s: %s", e.Node, e.Text) }

// Client speaks to a Server, Receptor's or ours. It does one thing at a time
// and is not for several goroutines. An error that is no *ServerError means that
// the connection is of no use any more.
type Client struct {
	conn   net.Conn
	in     *bufio.Reader
	node   string
	broken error // why it is of no use any more
}

// Dial connects to the unix socket at path and waits for the server's
// greeting.
func Dial(ctx context.Context, path string) (*Client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		if op := (*net.OpError)(nil); errors.As(err, &op) {
			err = op.Err // the rest of its text is the path again
		}
		return nil, fmt.Errorf("control socket %s: %w (is the node running, and is this the filename of its control-service?)", path, err)
	}
	c, err := NewClient(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	return c, nil
}

// NewClient waits for the server's greeting on conn. It owns conn, and closes
// it on an error.
func NewClient(ctx context.Context, conn net.Conn) (*Client, error) {
	c := &Client{conn: conn, in: bufio.NewReader(conn)}
	err := c.do(ctx, func() error {
		line, err := c.line(1024)
		if err != nil {
			return err
		}
		node, ok := strings.CutPrefix(string(line), greeting)
		if !ok {
			return fmt.Errorf("what listens there is no control service: it begins with %.60q", line)
		}
		c.node = node
		return nil
	})
	if err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// NodeID returns the id of the node that the client speaks to.
func (c *Client) NodeID() string { return c.node }

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Call sends a request and stores the reply, one line of JSON, in reply. It is
// what the other methods stand on, for commands that have no method here.
func (c *Client) Call(ctx context.Context, request map[string]any, reply any) error {
	return c.do(ctx, func() error {
		line, err := c.ask(request)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(line, reply); err != nil {
			return fmt.Errorf("the reply to %v is not understood: %w", request["command"], err)
		}
		return nil
	})
}

// Status asks for the fields of want, or for those that Receptor has if there
// is none. The other fields are empty.
func (c *Client) Status(ctx context.Context, want ...string) (Status, error) {
	request := map[string]any{"command": "status"}
	if len(want) > 0 {
		request["requested_fields"] = want
	}
	var s Status
	err := c.Call(ctx, request, &s)
	return s, err
}

// Ping asks the node to ping another one. A *ServerError says why there was no
// answer.
func (c *Client) Ping(ctx context.Context, target string) (PingResult, error) {
	var r struct {
		pingReply
		Error string
	}
	if err := c.Call(ctx, map[string]any{"command": "ping", "target": target}, &r); err != nil {
		return PingResult{}, err
	}
	if !r.Success {
		return PingResult{}, &ServerError{c.node, r.Error}
	}
	return PingResult{r.From, r.Time}, nil
}

// Traceroute asks for the way to a node. The first hop is the node that the
// client speaks to. If the way ends early, its last hop has an Error.
func (c *Client) Traceroute(ctx context.Context, target string) ([]TraceHop, error) {
	var r map[string]hopReply
	if err := c.Call(ctx, map[string]any{"command": "traceroute", "target": target}, &r); err != nil {
		return nil, err
	}
	number := func(key string) int {
		n, _ := strconv.Atoi(key)
		return n
	}
	var hops []TraceHop
	for _, key := range slices.SortedFunc(maps.Keys(r), func(a, b string) int { return number(a) - number(b) }) {
		hops = append(hops, TraceHop{r[key].From, r[key].Time, r[key].Error})
	}
	return hops, nil
}

// Connect turns the connection into a stream to a service of a node. After
// that the Client is used up; closing the stream ends it.
func (c *Client) Connect(ctx context.Context, node, service string) (Stream, error) {
	line, stream, err := c.Begin(ctx, map[string]any{"command": "connect", "node": node, "service": service})
	if err == nil && line != connecting {
		stream.Close()
		return nil, fmt.Errorf("the reply to connect is not understood: %.60q", line)
	}
	return stream, err
}

// Begin sends a request whose reply is a line and raw bytes after it, those of
// work submit and work results for example. It returns the line; the Client is used
// up then, and closing the stream ends the connection. ctx ends the wait for the
// line only.
func (c *Client) Begin(ctx context.Context, request map[string]any) (line string, _ Stream, err error) {
	err = c.do(ctx, func() error {
		b, err := c.ask(request)
		line = string(b)
		return err
	})
	if err != nil {
		return "", nil, err
	}
	c.broken = errors.New("the control connection has become a stream")
	return line, &clientStream{c.conn, c.in}, nil
}

// Submit submits a work unit: request is that of the command work with the
// subcommand submit. It sends the unit's standard input, and returns its id when
// the node has made both durable. The Client is used up then.
func (c *Client) Submit(ctx context.Context, request map[string]any, stdin io.Reader) (unit string, err error) {
	err = c.do(ctx, func() error {
		line, err := c.ask(request)
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(line, []byte("Work unit created with ID ")) {
			return fmt.Errorf("the reply to work submit is not understood: %.60q", line)
		}
		if _, err := io.Copy(c.conn, stdin); err != nil {
			return fmt.Errorf("send the unit's standard input: %w", err)
		}
		if err := closeWrite(c.conn); err != nil {
			return err
		}
		if line, err = c.line(maxReply); err != nil {
			return err
		}
		if text, ok := bytes.CutPrefix(line, []byte(errorPrefix)); ok {
			return &ServerError{c.node, string(text)}
		}
		var reply struct {
			UnitID string `json:"unitid"`
		}
		if err := json.Unmarshal(line, &reply); err != nil || reply.UnitID == "" {
			return fmt.Errorf("the reply to work submit is not understood: %.60q", line)
		}
		unit = reply.UnitID
		return nil
	})
	return unit, err
}

// clientStream reads from the client's buffer first.
type clientStream struct {
	net.Conn
	in *bufio.Reader
}

func (s *clientStream) Read(p []byte) (int, error) { return s.in.Read(p) }
func (s *clientStream) CloseWrite() error          { return closeWrite(s.Conn) }

// do runs f, which reads and writes, until ctx is done.
func (c *Client) do(ctx context.Context, f func() error) error {
	if c.broken != nil {
		return c.broken
	}
	stop := context.AfterFunc(ctx, func() { c.conn.SetDeadline(time.Unix(1, 0)) })
	err := f()
	if !stop() { // the deadline is or will be set, so the connection is lost
		err = fmt.Errorf("no reply from node %s: %w", c.node, context.Cause(ctx))
	}
	if refused := (*ServerError)(nil); err != nil && !errors.As(err, &refused) {
		c.broken = err
	}
	return err
}

// ask sends a request and returns the line of the reply.
func (c *Client) ask(request map[string]any) ([]byte, error) {
	b, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	if _, err := c.conn.Write(append(b, '\n')); err != nil {
		return nil, fmt.Errorf("ask node %s: %w", c.node, err)
	}
	line, err := c.line(maxReply)
	if err != nil {
		return nil, err
	}
	if text, ok := bytes.CutPrefix(line, []byte(errorPrefix)); ok {
		return nil, &ServerError{c.node, string(text)}
	}
	return line, nil
}

// line reads one line of at most limit bytes, without its end.
func (c *Client) line(limit int) ([]byte, error) {
	var line []byte
	for {
		chunk, err := c.in.ReadSlice('\n')
		line = append(line, chunk...)
		switch {
		case len(line) > limit:
			return nil, fmt.Errorf("the server sent a line of more than %d bytes", limit)
		case err == nil:
			return bytes.TrimRight(line, "\r\n"), nil
		case err == io.EOF:
			return nil, fmt.Errorf("the server closed the connection: %w", io.ErrUnexpectedEOF)
		case err != bufio.ErrBufferFull:
			return nil, fmt.Errorf("read the reply: %w", err)
		}
	}
}
