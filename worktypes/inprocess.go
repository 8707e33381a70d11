package worktypes

import (
	"context"
	"os"

	"github.com/ranvier-mesh/ranvier/internal/process"
)

// inProcess is the Keeper of a Manager that has no other: its jobs are children
// of this process and are ended with it.
type inProcess struct{ records *Records }

func newInProcess(dataDir string) (Keeper, error) {
	r, err := OpenRecords(dataDir)
	if err != nil {
		return nil, err
	}
	return inProcess{r}, nil
}

func (inProcess) Outlives() bool       { return false }
func (inProcess) Up() bool             { return true }
func (k inProcess) Close() error       { return k.records.Close() }
func (k inProcess) Forget(unit string) { k.records.Forget(unit) }

// Start implements Keeper.
func (k inProcess) Start(l Launch) (Task, error) {
	stdout, err := ClaimStart(l.Dir)
	if err != nil {
		return nil, err
	}
	stdin, stderr, err := JobFiles(l)
	if err != nil {
		stdout.Close()
		return nil, err
	}
	defer CloseFiles(stdin, stderr)
	p, err := process.Start(process.Spec{
		Argv: l.Argv, Env: l.Env, WholeEnv: true, Dir: l.WorkDir, Mark: l.Unit, Stdin: stdin, Stdout: stdout, Stderr: stderr,
		Credential: l.User.Credential(),
	})
	if err != nil {
		stdout.Close()
		return nil, err
	}
	// For who starts after this process was killed; without it the mark tells.
	_ = k.records.Started(l.Unit, Started{p.Root(), process.Boot()})
	return &child{p, stdout, k, l.Unit, l.User}, nil
}

// Find implements Keeper.
func (k inProcess) Find(unit, dir string) Task { return Orphan(unit, dir) }

// child is a job of inProcess.
type child struct {
	*process.Process
	stdout *os.File // for its size, also where its name is gone
	keeper inProcess
	unit   string
	user   *User
}

func (c *child) Forget() {
	c.stdout.Close()
	c.keeper.Forget(c.unit)
}

func (c *child) Exit() Exit {
	e := c.Process.Exit()
	exit := Exit{Code: e.Code, Signal: int(e.Signal)}
	exit.Look(c.stdout, c.user)
	return exit
}

// Orphan returns a job whose keeper is gone: it goes on, and nobody will know its
// exit status, unless the keeper has left an exit record. It ends when its first
// process has.
func Orphan(unit, dir string) *OrphanTask {
	o := &OrphanTask{dir: dir, done: make(chan struct{}), gone: make(chan struct{})}
	started, _ := ReadStarted(dir)
	root := started.ID
	if started.Boot != process.Boot() {
		root = process.ID{}
	}
	if root.Start == 0 { // it was claimed, and the keeper died before it wrote more
		root, _ = process.FindMarked(unit)
	}
	o.Family = process.NewFamily(root, unit)
	ctx, forget := context.WithCancel(context.Background())
	o.forget = forget
	if !root.Alive() {
		o.end()
		close(o.gone)
		return o
	}
	go func() {
		defer close(o.gone)
		if root.Wait(ctx) == nil {
			o.end()
		}
	}()
	return o
}

// OrphanTask is a job without a keeper. One goroutine waits for its end, until
// it is forgotten.
type OrphanTask struct {
	*process.Family
	dir    string
	exit   Exit // written before done is closed
	done   chan struct{}
	gone   chan struct{} // closed when nobody waits any more
	forget context.CancelFunc
}

func (o *OrphanTask) end() {
	exit, known := ReadExit(o.dir)
	if !known {
		exit = Exit{Code: -1, Size: OutputSize(o.dir), Lost: "who kept the job has ended before it; how the job ended is not known"}
	}
	o.exit = exit
	close(o.done)
}

// Done implements Task.
func (o *OrphanTask) Done() <-chan struct{} { return o.done }

// Gone is closed when the end is known, or is not waited for any more.
func (o *OrphanTask) Gone() <-chan struct{} { return o.gone }

// Exit implements Task.
func (o *OrphanTask) Exit() Exit { <-o.done; return o.exit }

// Forget implements Task.
func (o *OrphanTask) Forget() { o.forget() }
