package terminal

import (
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fake is a program on a terminal, in virtual time: it says what is written to
// tty, and ends when it is killed, or at once at an interrupt that it obeys.
type fake struct {
	tty         net.Conn
	obeys       bool
	end         sync.Once
	done        chan struct{}
	interrupted time.Time
	killed      time.Time
}

func (f *fake) Done() <-chan struct{} { return f.done }

func (f *fake) Interrupt() error {
	f.interrupted = time.Now()
	if f.obeys {
		f.exit()
	}
	return nil
}

func (f *fake) Kill(context.Context) error {
	f.killed = time.Now()
	f.exit()
	return nil
}

// exit ends the program, and with it what is at its end of the terminal.
func (f *fake) exit() {
	f.end.Do(func() {
		close(f.done)
		f.tty.Close()
	})
}

// begin starts a program that says what is in lines, one a second, and then
// nothing more. The returned function waits for its end, and closes what the test
// leaves behind.
func begin(t *testing.T, ctx context.Context, s Spec, lines int) (*fake, func() (Result, time.Duration)) {
	t.Helper()
	ours, theirs := net.Pipe()
	f := &fake{tty: theirs, done: make(chan struct{})}
	began := time.Now()
	var result Result
	over := make(chan struct{})
	go func() {
		defer close(over)
		result, _ = newRun(s, f, ours).wait(ctx)
	}()
	go func() {
		for range lines {
			select {
			case <-time.After(time.Second):
			case <-f.done:
				return
			}
			if _, err := theirs.Write([]byte("x\n")); err != nil {
				return
			}
		}
	}()
	return f, func() (Result, time.Duration) {
		<-over
		return result, time.Since(began)
	}
}

func ignored([]byte) error { return nil }

// The limits are exact: the program is interrupted at the moment, not before
// and not later, and killed a second after that.
func TestLimitsAreExact(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spec  Spec
		lines int
		want  End
		after time.Duration
	}{
		"idle":                  {Spec{IdleTimeout: 1500 * time.Millisecond}, 3, IdleTimeout, 4500 * time.Millisecond},
		"idle from the start":   {Spec{IdleTimeout: 300 * time.Millisecond}, 0, IdleTimeout, 300 * time.Millisecond},
		"job":                   {Spec{JobTimeout: 2500 * time.Millisecond, IdleTimeout: 1100 * time.Millisecond}, 100, JobTimeout, 2500 * time.Millisecond},
		"job that says nothing": {Spec{JobTimeout: 7 * time.Second}, 0, JobTimeout, 7 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c.spec.Output = ignored
				f, wait := begin(t, t.Context(), c.spec, c.lines)
				r, took := wait()
				if r.End != c.want || took != c.after+grace || time.Until(f.interrupted) != -grace || time.Until(f.killed) != 0 {
					t.Errorf("%v after %v, interrupted %v before, killed %v before", r.End, took, -time.Until(f.interrupted), -time.Until(f.killed))
				}
			})
		})
	}
}

// Whoever takes the output and is stuck stops neither a limit nor a cancel, and
// does not make the program count as one that says nothing.
func TestLimitsWhileNobodyTakesTheOutput(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spec Spec
		want End
	}{
		"job":    {Spec{JobTimeout: 5 * time.Second, IdleTimeout: 2 * time.Second}, JobTimeout},
		"cancel": {Spec{IdleTimeout: 2 * time.Second}, Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				if c.want != Canceled {
					ctx = t.Context()
				}
				defer cancel()
				taken := make(chan struct{})
				c.spec.Output = func([]byte) error { <-taken; return nil }
				f, wait := begin(t, ctx, c.spec, 3)
				began := time.Now()
				<-f.done
				if took := time.Since(began); took != 5*time.Second+grace {
					t.Errorf("the program has ended after %v", took)
				}
				close(taken)
				if r, _ := wait(); r.End != c.want {
					t.Errorf("%+v", r)
				}
			})
		})
	}
}

// A program that shall end has a second, unless somebody is in a hurry; and so
// has what kills its container.
func TestHurry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		hurry := make(chan struct{})
		var container time.Time
		f, wait := begin(t, ctx, Spec{Output: ignored, Hurry: hurry, Kill: func(ctx context.Context) {
			<-ctx.Done()
			container = time.Now()
		}}, 0)
		cancel()
		time.Sleep(grace / 2)
		pressed := time.Now()
		close(hurry)
		if r, _ := wait(); r.End != Canceled || !f.killed.Equal(pressed) || container.Sub(pressed) != hurried {
			t.Errorf("%+v; killed after %v, the container given up after %v", r, f.killed.Sub(pressed), container.Sub(pressed))
		}
	})
}

// What holds the terminal open after the program's end is listened to for half a
// second while it speaks, and for a moment where it does not.
func TestDrain(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]time.Duration{"silent": quiet, "speaks": maxDrain} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				defer theirs.Close()
				f := &fake{tty: theirs, done: make(chan struct{})}
				close(f.done)
				var speaking sync.WaitGroup
				if name == "speaks" {
					speaking.Go(func() {
						for err := error(nil); err == nil; _, err = theirs.Write([]byte("x")) {
							time.Sleep(quiet / 2)
						}
					})
				}
				began := time.Now()
				if _, err := newRun(Spec{Output: ignored}, f, ours).wait(t.Context()); err != nil || time.Since(began) != want {
					t.Errorf("%v; it took %v, want %v", err, time.Since(began), want)
				}
				ours.Close()
				speaking.Wait()
			})
		})
	}
}
