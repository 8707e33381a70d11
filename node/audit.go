package node

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ranvier-mesh/ranvier/internal/policy"
	"github.com/ranvier-mesh/ranvier/worktypes"
	"github.com/ranvier-mesh/ranvier/worktypes/remote"
)

// auditLog is <data dir>/audit.log: a line of JSON for everything that somebody
// wanted of a unit, whether he got it or not. It has no params and no payload, so
// no secrets. It is opened for appending, for logrotate's copytruncate.
type auditLog struct {
	log *slog.Logger

	mu sync.Mutex // held for one line
	f  *os.File
}

func openAudit(dir string, log *slog.Logger) (*auditLog, error) {
	f, err := os.OpenFile(filepath.Join(dir, "audit.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit record: %w", err)
	}
	return &auditLog{log: log, f: f}, nil
}

// auditLine is one line.
type auditLine struct {
	Time    time.Time `json:"time"`
	Action  string    `json:"action"`
	Peer    string    `json:"peer"` // empty: this host's control socket
	From    string    `json:"from,omitempty"`
	Stream  string    `json:"stream,omitempty"` // as the logs of the nodes on its way have it
	Unit    string    `json:"unit"`
	Type    string    `json:"worktype,omitempty"`
	Owner   string    `json:"owner,omitempty"`
	Job     string    `json:"job,omitempty"`
	Size    *int64    `json:"payload_bytes,omitempty"`
	SHA256  string    `json:"payload_sha256,omitempty"`
	Outcome string    `json:"outcome"` // "ok", or why not
}

// audited writes the record of what somebody asked of a unit. What he was refused
// because it is another's is in the log and the counters as well.
func (n *Node) audited(e remote.Event) {
	n.audit.write(e)
	n.requests.count(e.Action, e.Err)
	if e.Action == "submit" && errors.Is(e.Err, worktypes.ErrTooLarge) { // the payload of a work-policy: it shows only as the bytes come
		n.refused.count(policy.Work)
		n.log.Warn("refused by the policy", "peer", e.Peer, "from", e.From, "what", policy.Work, "name", e.Type, "unit", fmt.Sprintf("%.64s", e.Unit), "why", e.Err)
	}
	if e.Action != "submit" && errors.Is(e.Err, worktypes.ErrForbidden) {
		n.refused.units.Add(1)
		n.log.Warn("refused by the policy", "peer", e.Peer, "from", e.From, "what", "unit of "+e.Owner, "name", e.Action, "unit", fmt.Sprintf("%.64s", e.Unit), "why", e.Err)
	}
}

// fromOf is where a control connection comes from: of a unix socket the user
// and the process at its other end, as the kernel knows them.
func fromOf(conn net.Conn) string {
	if _, from := remote.TraceOf(conn); from != "" {
		return from
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return conn.RemoteAddr().String()
	}
	from := "unix socket"
	if raw, err := unixConn.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			if who, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
				from = fmt.Sprintf("unix socket, uid %d, pid %d", who.Uid, who.Pid)
			}
		})
	}
	return from
}

// write writes one line. What it cannot write is in the node's log.
func (a *auditLog) write(e remote.Event) {
	l := auditLine{Time: time.Now().UTC(), Action: e.Action, Peer: e.Peer, From: fmt.Sprintf("%.1000s", e.From), Stream: e.Stream, Unit: fmt.Sprintf("%.64s", e.Unit), Type: fmt.Sprintf("%.200s", e.Type), Owner: e.Owner, Job: e.Job, Outcome: "ok"}
	if e.Payload != nil {
		l.Size, l.SHA256 = &e.Payload.Size, hex.EncodeToString(e.Payload.SHA256[:])
	}
	if e.Err != nil {
		l.Outcome = fmt.Sprintf("%.1000s", e.Err.Error())
	}
	b, err := json.Marshal(l)
	if err == nil {
		a.mu.Lock()
		_, err = a.f.Write(append(b, '\n'))
		a.mu.Unlock()
	}
	if err != nil {
		a.log.Error("the audit record cannot be written", "line", string(b), "error", err)
	}
}

func (a *auditLog) close() { a.f.Close() }
