package control

import (
	"context"
	"fmt"
	"time"
)

// outcome is the reply to a command that works or does not: docs/control.md
// sections 4.5 and 4.6.
type outcome struct {
	Success bool
	Error   string `json:",omitempty"`
}

// ReloadCommand is the command "reload". What reload returns is told to the
// client as it is.
func ReloadCommand(reload func(context.Context) error) Command {
	return Command{Name: "reload", Run: func(ctx context.Context, _ *Request, s *Session) error {
		if err := reload(ctx); err != nil {
			return s.Reply(outcome{Error: err.Error()})
		}
		return s.Reply(outcome{Success: true})
	}}
}

// MaxDrain is the longest that a client may ask a node to wait for its streams.
const MaxDrain = 24 * time.Hour

// DrainCommand is the command "drain", which Receptor does not have. drain
// begins it and returns at once; def is the bound where the client names none.
func DrainCommand(def time.Duration, drain func(bound time.Duration)) Command {
	return Command{Name: "drain", Args: []string{"timeout"}, Run: func(_ context.Context, req *Request, s *Session) error {
		text, err := req.String("timeout")
		if err != nil {
			return err
		}
		bound := def
		if text != "" {
			if bound, err = time.ParseDuration(text); err != nil || bound < 0 || bound > MaxDrain {
				return fmt.Errorf(`drain: timeout %.40q is no time from 0s to %v: write it as "90s" or "5m"`, text, MaxDrain)
			}
		}
		drain(bound)
		return s.Reply(outcome{Success: true})
	}}
}

// Reload has the node read its configuration file again. A *ServerError says
// why nothing, or not all, of it was applied.
func (c *Client) Reload(ctx context.Context) error {
	return c.operate(ctx, map[string]any{"command": "reload"})
}

// Drain has the node go once it carries no more streams for others, or after
// timeout; 0 is the node's own bound. It does not wait for that.
func (c *Client) Drain(ctx context.Context, timeout time.Duration) error {
	request := map[string]any{"command": "drain"}
	if timeout > 0 {
		request["timeout"] = timeout.String()
	}
	return c.operate(ctx, request)
}

func (c *Client) operate(ctx context.Context, request map[string]any) error {
	var r outcome
	if err := c.Call(ctx, request, &r); err != nil {
		return err
	}
	if !r.Success {
		return &ServerError{c.node, r.Error}
	}
	return nil
}
