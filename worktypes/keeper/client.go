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
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/process"
	"github.com/ranvier-mesh/ranvier/worktypes"
)

// startTime is how long a new keeper has to come up.
const startTime = 10 * time.Second

// quitTime is how long a keeper that has nothing to do may take to end.
const quitTime = 2 * time.Second

// Options are a Client's settings.
type Options struct {
	// Command starts a keeper, with --data-dir and --ready-fd added.
	Command []string
	// Version is that of Command: an older keeper is replaced when it is empty.
	Version string
	Log     *slog.Logger // nil: nothing is logged
}

// Client is the worktypes.Keeper of a node. Its methods may be called by any
// goroutine. One goroutine, read, takes what the keeper says.
type Client struct {
	opt     Options
	dataDir string
	place   place
	log     *slog.Logger

	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	connecting sync.Mutex // held while a keeper is looked for or started

	mu      sync.Mutex // guards what is below; never held over I/O but a line's
	conn    net.Conn   // nil: there is no keeper
	env     []string   // of the last start that conn was sent
	seq     uint64
	waiting map[uint64]chan message
	tasks   map[string]*task // those whose end is not in the journal
	closed  bool
	readers sync.WaitGroup
}

// errGone is a keeper that has ended.
var errGone = errors.New("the keeper of jobs has ended")

// Open connects to the keeper of a data directory, and starts one where there is
// none.
func Open(dataDir string, opt Options) (*Client, error) {
	p, err := openPlace(dataDir)
	if err != nil {
		return nil, err
	}
	c := &Client{opt: opt, dataDir: dataDir, place: p, log: opt.Log, waiting: map[uint64]chan message{}, tasks: map[string]*task{}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if err := c.connect(true); err != nil {
		c.cancel()
		c.readers.Wait()
		p.f.Close()
		return nil, err
	}
	return c, nil
}

// Outlives implements worktypes.Keeper.
func (c *Client) Outlives() bool { return true }

// Up implements worktypes.Keeper.
func (c *Client) Up() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn != nil
}

// Close lets go of the keeper, which stays for as long as it has jobs. One that
// has none is gone when it returns.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true // nobody begins anything any more
	empty := len(c.tasks) == 0
	c.mu.Unlock()
	gone := false
	if empty {
		ctx, cancel := context.WithTimeout(c.ctx, quitTime)
		_, err := c.ask(ctx, request{Op: opQuit})
		cancel()
		gone = err == nil
	}
	c.mu.Lock()
	if c.conn != nil && !gone { // else its end closes it
		c.conn.Close()
	}
	c.cancel()
	tasks := c.tasks
	c.tasks = nil
	c.mu.Unlock()
	c.readers.Wait()
	for _, t := range tasks {
		if o := t.lost(); o != nil {
			o.Forget()
		}
	}
	return c.place.f.Close()
}

// connect makes sure that there is a connection.
func (c *Client) connect(start bool) error {
	c.connecting.Lock()
	defer c.connecting.Unlock()
	c.mu.Lock()
	there, closed := c.conn != nil, c.closed
	c.mu.Unlock()
	if there {
		return nil
	}
	if closed {
		return worktypes.ErrClosed
	}
	conn, in, hello, err := c.dial()
	if err == nil && hello.Version != c.opt.Version && len(hello.Jobs) == 0 && start {
		c.log.Info("the keeper of jobs is another version and has none: it is replaced", "version", hello.Version)
		_ = conn.SetReadDeadline(time.Now().Add(quitTime))
		fmt.Fprintf(conn, `{"Seq":1,"Op":%q}`+"\n", opQuit)
		for in.Scan() { // its answer, and then its end
		}
		conn.Close()
		err = errGone
	}
	if err != nil && start {
		if err = c.spawn(); err == nil {
			conn, in, hello, err = c.dial()
		}
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.conn, c.env = conn, nil
	for _, j := range hello.Jobs {
		t := c.tasks[j.Unit]
		if t == nil {
			t = newTask(c, j.Unit)
			c.tasks[j.Unit] = t
		}
		t.begun(j.Root)
		if j.Exit != nil {
			t.end(*j.Exit)
		}
	}
	c.mu.Unlock()
	c.readers.Go(func() { c.read(conn, in) })
	return nil
}

func (c *Client) dial() (net.Conn, *bufio.Scanner, message, error) {
	var hello message
	conn, err := net.Dial("unix", c.place.socket())
	if err != nil {
		return nil, nil, hello, fmt.Errorf("keeper of %s: %w", c.dataDir, err)
	}
	in := bufio.NewScanner(conn)
	in.Buffer(nil, maxLine)
	_ = conn.SetReadDeadline(time.Now().Add(startTime))
	if !in.Scan() {
		err = errors.Join(errGone, in.Err())
	} else {
		err = json.Unmarshal(in.Bytes(), &hello)
	}
	if err != nil {
		conn.Close()
		return nil, nil, hello, fmt.Errorf("keeper of %s: %w", c.dataDir, err)
	}
	_ = conn.SetReadDeadline(time.Time{})
	return conn, in, hello, nil
}

// spawn starts a keeper and returns when nodes can connect to it, or when
// another node's was faster.
func (c *Client) spawn() error {
	if len(c.opt.Command) == 0 {
		return errors.New("no command for a keeper of jobs")
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command(c.opt.Command[0], c.opt.Command[1:]...)
	cmd.Args = append(cmd.Args, "--data-dir", c.dataDir, "--ready-fd", "3")
	cmd.ExtraFiles = []*os.File{w}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a signal for the node's group is not for it
	err = cmd.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("start the keeper of jobs: %w", err)
	}
	c.readers.Go(func() { // while this process is there, it is the keeper's parent
		if id, err := process.Identify(cmd.Process.Pid); err != nil || id.Wait(c.ctx) == nil {
			_ = cmd.Wait()
		}
	})
	_ = r.SetReadDeadline(time.Now().Add(startTime))
	if n, err := r.Read(make([]byte, 1)); n != 1 {
		return fmt.Errorf("the keeper of jobs did not come up (%v): see %s", err, c.place.path(logName))
	}
	c.log.Debug("keeper of jobs started", "pid", cmd.Process.Pid)
	return nil
}

// read is the goroutine that takes what the keeper says, until it ends.
func (c *Client) read(conn net.Conn, in *bufio.Scanner) {
	for in.Scan() {
		var m message
		if err := json.Unmarshal(in.Bytes(), &m); err != nil {
			c.log.Error("the keeper of jobs says what is not understood", "error", err)
			break
		}
		c.mu.Lock()
		if m.Exit != nil {
			if t := c.tasks[m.Unit]; t != nil {
				t.end(*m.Exit)
			}
		} else if answer := c.waiting[m.Seq]; answer != nil {
			delete(c.waiting, m.Seq)
			answer <- m
		}
		c.mu.Unlock()
	}
	conn.Close()
	c.mu.Lock()
	c.conn = nil
	for seq, answer := range c.waiting {
		delete(c.waiting, seq)
		close(answer)
	}
	orphans := make([]*task, 0, len(c.tasks))
	for _, t := range c.tasks {
		orphans = append(orphans, t)
	}
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return
	}
	c.log.Error("the keeper of jobs has ended: those that run go on, and their exit status will not be known", "jobs", len(orphans))
	for _, t := range orphans {
		t.orphan()
	}
}

// ask sends a request and waits for the answer. The error is errGone when the
// keeper ended before it answered, else the keeper's.
func (c *Client) ask(ctx context.Context, r request) (message, error) {
	answer := make(chan message, 1)
	if !c.send(&r, answer) {
		return message{}, errGone
	}
	select {
	case m, ok := <-answer:
		switch {
		case !ok:
			return m, errGone
		case m.Again:
			return m, fmt.Errorf("%w: %s", worktypes.ErrStarted, r.Unit)
		case m.Error != "":
			return m, errors.New(m.Error)
		}
		return m, nil
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.waiting, r.Seq)
		c.mu.Unlock()
		return message{}, context.Cause(ctx)
	}
}

// send sends a request; answer may be nil.
func (c *Client) send(r *request, answer chan message) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return false
	}
	c.seq++
	r.Seq = c.seq
	if l := r.Launch; l != nil {
		short := *l
		if r.SameEnv = c.env != nil && slices.Equal(l.Env, c.env); r.SameEnv {
			short.Env = nil
		} else {
			c.env = l.Env
		}
		r.Launch = &short
	}
	b, err := json.Marshal(r)
	if err != nil {
		return false
	}
	if answer != nil {
		c.waiting[r.Seq] = answer
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(startTime))
	if _, err := c.conn.Write(append(b, '\n')); err != nil {
		delete(c.waiting, r.Seq)
		c.conn.Close() // its reader cleans up
		return false
	}
	return true
}

// Start implements worktypes.Keeper. Where the keeper ends meanwhile, the
// unit's start record says whether it got so far; else a new one does it.
func (c *Client) Start(l worktypes.Launch) (worktypes.Task, error) {
	t := newTask(c, l.Unit)
	t.dir = l.Dir
	for {
		if err := c.connect(true); err != nil {
			return nil, err
		}
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			return nil, worktypes.ErrClosed
		}
		c.tasks[l.Unit] = t
		c.mu.Unlock()
		op := opStart
		if l.User != nil {
			op = opStartAs
		}
		m, err := c.ask(context.Background(), request{Op: op, Unit: l.Unit, Launch: &l})
		switch {
		case err == nil:
			t.begun(m.Root)
			return t, nil
		case !errors.Is(err, errGone):
			c.drop(l.Unit)
			return nil, err
		}
		if _, claimed := worktypes.ReadStarted(l.Dir); claimed {
			t.orphan()
			return t, nil
		}
		c.drop(l.Unit)
		t = newTask(c, l.Unit)
		t.dir = l.Dir
	}
}

func (c *Client) drop(unit string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.tasks, unit)
}

// Forget implements worktypes.Keeper.
func (c *Client) Forget(unit string) { c.send(&request{Op: opForget, Unit: unit}, nil) }

// Find implements worktypes.Keeper.
func (c *Client) Find(unit, dir string) worktypes.Task {
	c.mu.Lock()
	t := c.tasks[unit]
	if t == nil {
		t = newTask(c, unit)
		if !c.closed {
			c.tasks[unit] = t
		}
		defer t.orphan()
	}
	t.setDir(dir)
	c.mu.Unlock()
	return t
}
