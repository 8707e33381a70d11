package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/control"
	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/routing"
	"github.com/ranvier-mesh/ranvier/worktypes"
	work "github.com/ranvier-mesh/ranvier/worktypes/remote"
)

// workOf returns the work service of a node, reached as the flags say. close ends
// what was opened for it.
func (a *access) workOf(ctx context.Context, node string) (_ *work.Client, close func(), err error) {
	if err := routing.NodeID(node).Validate(); err != nil {
		return nil, nil, &usageError{err}
	}
	client := &work.Client{Node: node, Keep: true}
	if a.socket != "" && len(a.peers) == 0 {
		client.Dial = func(ctx context.Context) (net.Conn, error) { return a.connect(ctx, node) }
		return client, func() {}, nil
	}
	via, err := a.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	m := via.(ephemeral)
	client.Dial = func(ctx context.Context) (net.Conn, error) {
		conn, err := m.Dial(mesh.WithJob(ctx, work.JobOf(ctx)), routing.NodeID(node), work.ServiceName)
		if err != nil {
			return nil, err // not conn: a nil *mesh.Conn is no nil net.Conn
		}
		return conn, nil
	}
	return client, func() { m.Close() }, nil
}

// connect reaches the work service through a node's control socket.
func (a *access) connect(ctx context.Context, node string) (net.Conn, error) {
	c, err := control.Dial(ctx, a.socket)
	if err != nil {
		return nil, err
	}
	stream, err := c.Connect(ctx, node, work.ServiceName)
	if err != nil {
		c.Close()
		return nil, err
	}
	conn, ok := stream.(net.Conn)
	if !ok {
		stream.Close()
		return nil, errors.New("the control connection is none")
	}
	return conn, nil
}

// splitUnit takes node/unit apart; a node's id may have slashes itself.
func splitUnit(s string) (node, unit string, err error) {
	i := strings.LastIndexByte(s, '/')
	if i < 1 {
		return "", "", &usageError{fmt.Errorf("%.200q is not NODE/UNIT, as run --detach prints it", s)}
	}
	node, unit = s[:i], s[i+1:]
	if err := worktypes.ValidateID(unit); err != nil {
		return "", "", &usageError{err}
	}
	return node, unit, nil
}

// workError gives errors of a work service their exit code.
func workError(err error) error {
	var refused *work.Refusal
	var broken *work.BrokenError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &broken):
		return &codeError{exitBroken, err}
	case errors.As(err, &refused):
		if refused.Code == work.CodeUnknownType || refused.Code == work.CodeClosed {
			return &codeError{exitUnavailable, err}
		}
		return err
	case errors.As(err, new(*mesh.RefusedError)), errors.As(err, new(*control.ServerError)):
		return &codeError{exitUnavailable, err}
	}
	return err
}

// age is a time ago, for tables.
func age(t time.Time, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return now.Sub(t).Round(time.Second).String()
}
