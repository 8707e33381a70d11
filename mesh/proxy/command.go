package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/ranvier-mesh/ranvier/internal/process"
)

const (
	// maxCommands is how many processes one command-service runs at a time.
	maxCommands = 64
	// lastWords is how long a command that has ended is still read, where
	// something that it started holds its terminal.
	lastWords = 500 * time.Millisecond
	// hangUpTime is what all that a command has started gets to end by itself
	// once its terminal is gone, killTime what the kernel gets for the rest.
	hangUpTime = time.Second
	killTime   = 10 * time.Second
)

// Command runs a command on a terminal of its own for each stream of a service.
// Make it with NewCommand; its methods may be called from several goroutines.
type Command struct {
	argv   []string
	server *tls.Config
	log    *slog.Logger
	room   slots
	rarely *rate.Sometimes
}

// NewCommand makes a Command; server is the TLS within the stream, nil for none.
func NewCommand(argv []string, server *tls.Config, log *slog.Logger) *Command {
	return &Command{argv: argv, server: server, log: log, room: make(slots, maxCommands), rarely: sparingly()}
}

// Handle runs the command for a stream and returns when it and the stream are
// over. Where the stream's other end goes away, or ctx ends, the command
// loses its terminal, and a second later all that it has started is killed.
// Where the other end only has no more to say, the command reads the end of its
// input.
func (c *Command) Handle(ctx context.Context, stream Stream) {
	log := c.log.With("from", stream.RemoteAddr())
	if !c.room.take() {
		c.refuse(log, stream, fmt.Errorf("%d commands run already", maxCommands))
		return
	}
	defer c.room.give()
	within, err := server(ctx, stream, c.server)
	if err != nil {
		c.refuse(log, stream, err)
		return
	}
	master, slave, err := process.OpenTerminal()
	if err != nil {
		c.refuse(log, stream, err)
		return
	}
	p, err := process.Start(process.Spec{Argv: c.argv, Stdin: slave, Stdout: slave, Terminal: true, Mark: uuid.NewString()})
	slave.Close()
	if err != nil {
		master.Close()
		c.refuse(log, stream, err)
		return
	}
	log.Info("a command runs", "command", c.argv[0], "pid", p.PID())
	s := &commandRun{Process: p, stream: stream, side: meshSide(stream, within), master: master, log: log}
	err = s.run(ctx)
	log.Info("a command has ended", "command", c.argv[0], "pid", p.PID(), "exit", p.Exit(), "cause", err)
}

func (c *Command) refuse(log *slog.Logger, stream Stream, err error) {
	c.rarely.Do(func() { log.Warn("a command was not run", "command", c.argv[0], "err", err) })
	stream.Reset(resetCode, err.Error())
}

// commandRun is a command that runs. The goroutine of run supervises it; two
// more carry its input and its output.
type commandRun struct {
	*process.Process
	stream Stream
	side   side
	master *os.File
	log    *slog.Logger

	writing atomic.Bool
}

// errLeft: nobody is there to read what the command says.
var errLeft = errors.New("the stream's other end is gone")

// run returns nil where the command ended by itself, else why it was ended.
func (r *commandRun) run(ctx context.Context) error {
	fed, said := make(chan error, 1), make(chan error, 1)
	var both sync.WaitGroup
	defer both.Wait()
	both.Go(func() { fed <- r.feed() })
	both.Go(func() { said <- r.say() })
	err := r.watch(ctx, fed, said)
	r.master.Close()
	if err == nil {
		if err = r.side.CloseWrite(); err == nil {
			r.side.close()
		}
	}
	if err != nil {
		r.side.abort(err)
		r.end()
	}
	<-r.Done()
	return err
}

// watch waits for the command's end and for its last words.
func (r *commandRun) watch(ctx context.Context, fed, said <-chan error) error {
	done := r.Done()
	var over <-chan time.Time
	for {
		select {
		case err := <-fed:
			if err != nil {
				return err
			}
			fed = nil
		case err := <-said:
			if err != nil {
				return err
			}
			if said = nil; done == nil {
				return nil
			}
			// It has closed its terminal, and may go on.
		case <-done:
			if done = nil; said == nil {
				return nil
			}
			over = time.After(lastWords)
		case <-over:
			if over = nil; r.writing.Load() {
				over = time.After(lastWords) // the reader is slow
			} else {
				r.master.Close()
			}
		case <-r.stream.Gone():
			return errLeft
		case <-ctx.Done():
			return errStopped
		}
	}
}

// feed is the goroutine that gives the command its input, and at the end of
// that what a terminal's user types then.
func (r *commandRun) feed() error {
	last := lastByte{w: r.master, b: '\n'}
	readErr, writeErr := carry(&last, r.side)
	if readErr != nil {
		return fmt.Errorf("from the mesh: %w", readErr)
	}
	if writeErr != nil {
		return nil // the command has ended, or closed its terminal
	}
	last.end(r.master)
	return nil
}

// lastByte remembers the last byte that was written.
type lastByte struct {
	w io.Writer
	b byte
}

func (l *lastByte) Write(p []byte) (int, error) {
	if len(p) > 0 {
		l.b = p[len(p)-1]
	}
	return l.w.Write(p)
}

// end types the end of the input. In the middle of a line the first only hands
// that over. A program that reads keys would take it for one, and is not told.
func (l *lastByte) end(master *os.File) {
	raw, err := master.SyscallConn()
	if err != nil {
		return
	}
	var t *unix.Termios
	closed := raw.Control(func(fd uintptr) { t, err = unix.IoctlGetTermios(int(fd), unix.TCGETS) })
	if closed != nil || err != nil || t.Lflag&unix.ICANON == 0 {
		return
	}
	eof := []byte{t.Cc[unix.VEOF]}
	if l.b != '\n' {
		eof = append(eof, eof[0])
	}
	master.Write(eof)
}

// say is the goroutine that sends what the command writes.
func (r *commandRun) say() error {
	readErr, writeErr := carry(r, r.master)
	switch {
	case writeErr != nil:
		return fmt.Errorf("to the mesh: %w", writeErr)
	case readErr == nil, errors.Is(readErr, syscall.EIO), errors.Is(readErr, os.ErrClosed):
		return nil // EIO is how a terminal without a user ends
	}
	return fmt.Errorf("the command's terminal: %w", readErr)
}

// Write is say's: watch is to know that it waits for the reader.
func (r *commandRun) Write(p []byte) (int, error) {
	r.writing.Store(true)
	defer r.writing.Store(false)
	return r.side.Write(p)
}

// end gives all that the command has started a moment after the hang-up of
// its terminal, then kills it.
func (r *commandRun) end() {
	select {
	case <-r.Done():
	case <-time.After(hangUpTime):
	}
	ctx, cancel := context.WithTimeout(context.Background(), killTime)
	defer cancel()
	if err := r.Kill(ctx); err != nil {
		r.log.Error("what a command has started does not end", "err", err)
	}
}
