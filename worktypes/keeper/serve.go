package keeper

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ranvier-mesh/ranvier/internal/process"
	"github.com/ranvier-mesh/ranvier/worktypes"
)

const (
	// idleTime is how long a keeper without jobs and without a node stays.
	idleTime = 2 * time.Second
	// killTime is how long a kill may take.
	killTime = 10 * time.Second
)

// keeper is the process. Requests come from one goroutine for each connection, starts
// from one each, ends from the goroutine reap; all they share is guarded by mu, which is also
// held from before a fork until the job is in jobs, and while children are reaped,
// so that no end comes before its beginning.
type keeper struct {
	place   place
	version string
	log     *slog.Logger
	cgroups *cgroups
	records *worktypes.Records
	idle    chan struct{} // a value when there may be nothing left to do
	kills   sync.WaitGroup
	// starting is held for reading while a job is started, and for writing while a node
	// is told which there are: it hears of each that was claimed.
	starting sync.RWMutex

	mu    sync.Mutex
	jobs  map[string]*kept // by unit
	pids  map[int]*kept    // those that have not ended
	nodes map[*connection]struct{}
}

// kept is one job.
type kept struct {
	job
	dir    string
	cgroup string          // its directory; empty: none
	family *process.Family // also where there is a cgroup, which some may leave
	stdout *os.File
	user   *worktypes.User // nil: that of the keeper
}

// Serve is `ranvier keep`: it keeps jobs for the node of dataDir until it has none
// and no node is connected. ready is called when nodes can connect. The error
// wraps worktypes.ErrInUse when there is a keeper already.
//
// The process must do nothing else: it reaps every child, and becomes the parent of
// what jobs leave behind.
func Serve(dataDir, version string, ready func()) error {
	debug.SetGCPercent(20) // small rather than fast
	p, err := openPlace(dataDir)
	if err != nil {
		return err
	}
	lock, err := p.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	logFile, err := os.OpenFile(p.path(logName), os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	records, err := worktypes.OpenRecords(dataDir)
	if err != nil {
		return err
	}
	k := &keeper{
		place: p, version: version, records: records, log: slog.New(slog.NewTextHandler(logFile, nil)), cgroups: openCgroups(dataDir),
		idle: make(chan struct{}, 1), jobs: map[string]*kept{}, pids: map[int]*kept{}, nodes: map[*connection]struct{}{},
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		k.log.Warn("cannot become the parent of what jobs leave behind", "error", err)
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	// Nobody ends the keeper by a polite signal while it has jobs. They are caught and not
	// ignored, since jobs would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE)
	go func() {
		for range children {
			k.reap()
		}
	}()
	_ = os.Remove(p.socket())
	l, err := net.Listen("unix", p.socket())
	if err != nil {
		return fmt.Errorf("socket of the keeper: %w", err)
	}
	k.log.Info("keeper is up", "version", version, "pid", os.Getpid(), "cgroup", k.cgroups.String())
	ready()
	go k.accept(l)
	debug.FreeOSMemory()
	k.untilIdle()
	return os.Remove(p.socket())
}

// untilIdle returns when there has been nothing to do for idleTime. It returns
// with mu held: nothing begins any more.
func (k *keeper) untilIdle() {
	timer := time.NewTimer(idleTime)
	for {
		select {
		case <-k.idle:
			timer.Reset(idleTime)
		case <-timer.C:
			k.kills.Wait()
			k.mu.Lock()
			if len(k.jobs) == 0 && len(k.nodes) == 0 {
				k.cgroups.sweep()
				return
			}
			k.mu.Unlock()
		}
	}
}

func (k *keeper) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			k.log.Error("cannot accept", "error", err)
			time.Sleep(time.Second)
			continue
		}
		go k.serve(conn)
	}
}

// connection is a node.
type connection struct {
	conn net.Conn
	mu   sync.Mutex // held for one line
}

func (c *connection) send(m message) {
	b, _ := json.Marshal(m) // numbers and strings
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = c.conn.Write(append(b, '\n')) // its reader finds out
}

// greet is send for the first line.
func (k *keeper) greet(c *connection) {
	c.mu.Lock() // until the greeting is out nothing else is
	defer c.mu.Unlock()
	hello := message{Version: k.version}
	k.starting.Lock()
	k.mu.Lock()
	k.nodes[c] = struct{}{}
	for _, j := range k.jobs {
		hello.Jobs = append(hello.Jobs, j.job)
	}
	k.mu.Unlock()
	k.starting.Unlock()
	b, _ := json.Marshal(hello)
	_, _ = c.conn.Write(append(b, '\n'))
}

// serve is the goroutine of one connection.
func (k *keeper) serve(conn net.Conn) {
	defer conn.Close()
	if err := sameUser(conn); err != nil {
		k.log.Error("connection refused", "error", err)
		return
	}
	c := &connection{conn: conn}
	k.greet(c)
	defer func() {
		k.mu.Lock()
		delete(k.nodes, c)
		if len(k.nodes) == 0 {
			for _, j := range k.jobs { // those that it was told of while it left
				k.settle(j)
			}
		}
		k.mu.Unlock()
		k.look()
		debug.FreeOSMemory()
	}()
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, maxLine)
	var env []string // of the last start
	for lines.Scan() {
		var r request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			k.log.Error("a line that is no request", "error", err)
			return
		}
		if l := r.Launch; l != nil {
			if r.SameEnv {
				l.Env = env
			}
			env = l.Env
		}
		k.do(c, r)
	}
}

// look wakes untilIdle.
func (k *keeper) look() {
	select {
	case k.idle <- struct{}{}:
	default:
	}
}

// sameUser refuses connections of other users, should the directory's mode ever
// let them come so far.
func sameUser(conn net.Conn) error {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil {
		return cerr
	}
	if err == nil && cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		err = fmt.Errorf("user %d is neither root nor the keeper's", cred.Uid)
	}
	return err
}

func (k *keeper) do(c *connection, r request) {
	answer := message{Seq: r.Seq}
	var err error
	switch r.Op {
	case opStart, opStartAs:
		go func() { // making its files takes longer than starting it
			var err error
			answer.Root, err = k.start(r.Launch)
			if answer.Again = errors.Is(err, worktypes.ErrStarted); err != nil {
				answer.Error = err.Error()
			}
			c.send(answer)
		}()
		return
	case opInterrupt:
		k.mu.Lock() // it is not reaped meanwhile
		if j := k.jobs[r.Unit]; j != nil && j.Exit == nil {
			err = j.interrupt()
		}
		k.mu.Unlock()
	case opKill:
		k.kills.Go(func() {
			if err := k.kill(r.Unit); err != nil {
				answer.Error = err.Error()
			}
			c.send(answer)
		})
		return
	case opForget:
		if k.drop(r.Unit) {
			k.records.Forget(r.Unit)
		}
		return
	case opQuit:
		k.quit(c, answer)
		return
	default:
		err = fmt.Errorf("unknown operation %q", r.Op)
	}
	if err != nil {
		answer.Error = err.Error()
	}
	c.send(answer)
}

// quit ends the process, unless it has something to keep.
func (k *keeper) quit(c *connection, answer message) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.jobs) > 0 {
		answer.Error = fmt.Sprintf("there are %d jobs", len(k.jobs))
		c.send(answer)
		return
	}
	_ = os.Remove(k.place.socket())
	k.cgroups.sweep()
	c.send(answer)
	os.Exit(0)
}

// kill ends all that a job has started.
func (k *keeper) kill(unit string) error {
	k.mu.Lock()
	j := k.jobs[unit]
	k.mu.Unlock()
	if j == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), killTime)
	defer cancel()
	// Containers, systemd-run and PAM move what a job starts into other cgroups, and
	// root may do so itself: the family is looked for first, while it is one.
	err := j.family.Kill(ctx)
	if j.cgroup != "" {
		err = errors.Join(err, killCgroup(ctx, j.cgroup))
	}
	return err
}

// interrupt is called with mu held: the child is not reaped meanwhile.
func (j *kept) interrupt() error { return j.family.Interrupt() } // it remembers who it is

// drop drops a job that has ended and whose end is written down for good; false: it
// has not ended.
func (k *keeper) drop(unit string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.look()
	j := k.jobs[unit]
	if j == nil || j.Exit == nil {
		return j == nil
	}
	delete(k.jobs, unit)
	j.stdout.Close()
	k.cgroups.remove(j.cgroup)
	return true
}
