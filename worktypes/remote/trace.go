package remote

import (
	"context"
	"net"
)

// Traced is a connection that can be found again in the logs of the nodes that it
// passes (docs/adr/0009-trails.md).
type Traced interface {
	// Trail is what those logs call it.
	Trail() string
	// From is where it came from, for people.
	From() string
}

// TraceOf returns what is known of where a connection comes from, within the
// site's TLS or not: both are empty for none.
func TraceOf(conn net.Conn) (trail, from string) {
	if inner, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = inner.NetConn()
	}
	if t, ok := conn.(Traced); ok {
		return t.Trail(), t.From()
	}
	return "", ""
}

// jobKey is that of the job that a context is for.
type jobKey struct{}

// withJob returns a context for what is done for a job, which Client.Dial gets.
func withJob(ctx context.Context, id string) context.Context {
	if id == "" || JobOf(ctx) != "" {
		return ctx
	}
	return context.WithValue(ctx, jobKey{}, id)
}

// JobOf returns the id of the job that Client.Dial opens a connection for; empty:
// none in particular.
func JobOf(ctx context.Context) string {
	id, _ := ctx.Value(jobKey{}).(string)
	return id
}
