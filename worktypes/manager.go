package worktypes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/journal"
	"github.com/ranvier-mesh/ranvier/worktypes/content"
)

// Defaults of Options.
const (
	// DefaultGrace is how long a canceled job has to end by itself.
	DefaultGrace = 10 * time.Second
	// killTime is how long SIGKILL may take to end a job; what is there then
	// sits in the kernel and cannot be helped.
	killTime = 10 * time.Second
)

// Options are a Manager's settings; the zero value is usable.
type Options struct {
	Log   *slog.Logger     // nil: nothing is logged
	Grace time.Duration    // between SIGINT and SIGKILL where a plan does not say; 0: DefaultGrace
	Now   func() time.Time // for the times in a Status; nil: time.Now
	// ContentLimit is how many bytes of submitted trees are kept, so that they
	// need not be sent again; 0: package content's default, less than 0: none,
	// and no unit has a tree.
	ContentLimit int64
	// Keeper opens what starts the jobs, once the data directory is taken; nil:
	// they are children of this process and end with it. The Manager closes it.
	Keeper func() (Keeper, error)
	// TTL is how long a unit with a Spec.Node may wait for its start where it does not
	// say; 0: for ever.
	TTL time.Duration
	// Agent does units with a Spec.Node; nil: there are none.
	Agent Agent
	// Limits is how many jobs of a type run at once; 0 or none: any number.
	Limits map[string]int
	// Retention says which units are released without being asked.
	Retention Retention
}

// Manager owns a data directory and does the jobs in it. Its methods may be
// called by any goroutine. Open starts it; nothing has to be run; Close ends
// it, after the callers that submit and before the process exits.
type Manager struct {
	dir      string
	store    store
	storeID  string
	journal  *journal.Journal
	keeper   Keeper
	agent    Agent
	keep     Retention
	types    *Registry
	log      *slog.Logger
	grace    time.Duration
	ttl      time.Duration
	now      func() time.Time
	lock     *os.File
	follower *follower
	content  *content.Store // nil: units have no trees

	ctx     context.Context // ends with closing; for errands
	cancel  context.CancelFunc
	closing chan struct{} // closed when Close begins: end the jobs that do not outlive it
	leaving chan struct{} // closed when Close begins: let go of those that do
	hurry   chan struct{} // closed when Close has no more time: kill them
	closed  chan struct{} // closed when no job runs any more
	jobs    sync.WaitGroup

	reserve sync.Mutex // held while the reserve is taken or spent

	mu    sync.Mutex // guards what is below; never held over I/O
	units map[string]*unit
	tombs map[string]struct{} // released ids
	queue *queue
	sweep *time.Timer // the next look at what is kept too long
	shut  bool
}

// Open takes a data directory, makes it where it is missing, and reads the
// units in it. A unit that cannot be read is there as Failed with a Detail that
// begins with DAMAGED; the others work. A unit that ran when the last process
// ended goes on; where nobody can know what became of it, it is Failed with a
// Detail that begins with LOST.
//
// The error wraps ErrInUse when another process uses the directory.
func Open(dir string, types *Registry, opt Options) (*Manager, error) {
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	m := &Manager{
		dir: dir, types: types, log: opt.Log, grace: opt.Grace, ttl: opt.TTL, now: opt.Now, lock: lock,
		agent: opt.Agent, keep: opt.Retention,
		closing: make(chan struct{}), leaving: make(chan struct{}), hurry: make(chan struct{}), closed: make(chan struct{}),
		units: map[string]*unit{}, tombs: map[string]struct{}{}, queue: newQueue(opt.Limits),
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if m.grace == 0 {
		m.grace = DefaultGrace
	}
	if m.now == nil {
		m.now = time.Now
	}
	m.follower = newFollower(m.log)
	if err := m.open(opt); err != nil {
		m.cancel()
		if m.keeper != nil {
			m.keeper.Close()
		}
		if m.journal != nil {
			m.journal.Close()
		}
		_ = unlockDir(lock)
		return nil, err
	}
	return m, nil
}

func (m *Manager) open(opt Options) (err error) {
	if m.store, err = openStore(m.dir); err != nil {
		return err
	}
	if err := m.closeToOthers(); err != nil {
		return err
	}
	if err := m.openContent(opt); err != nil {
		return err
	}
	if opt.Keeper == nil {
		opt.Keeper = func() (Keeper, error) { return newInProcess(m.dir) }
	}
	k, err := opt.Keeper()
	if err != nil {
		return err
	}
	m.keeper = k
	_ = m.keepReserve() // the node comes up, and starts no job
	damaged, err := m.openJournal(m.dir)
	if err != nil {
		return err
	}
	if err := m.recover(damaged); err != nil {
		return err
	}
	m.startSweep()
	return nil
}

// Store is the incarnation of the data directory: another one than before means
// that the node was set up anew and knows nothing of what it did.
func (m *Manager) Store() string { return m.storeID }

// Close ends the Manager: no unit is started any more. Running jobs go on, and
// the next Manager of the directory takes them up, where the Keeper outlives
// this process; else they are interrupted, have their grace until ctx is over,
// and are then killed and Failed. It returns when nothing of them is left, and
// lets go of the directory. Results and Watch of units that have not ended end too.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	if m.shut {
		m.mu.Unlock()
		<-m.closed
		return nil
	}
	m.shut = true
	m.sweep.Stop()
	m.mu.Unlock()
	close(m.closing)
	m.cancel()
	if m.keeper.Outlives() {
		close(m.leaving)
	}
	stop := context.AfterFunc(ctx, func() { close(m.hurry) })
	m.jobs.Wait()
	stop()
	close(m.closed)
	for _, u := range m.all() {
		u.letGo()
	}
	m.follower.close()
	return errors.Join(m.keeper.Close(), m.journal.Close(), unlockDir(m.lock))
}

// Types returns the names of the work types, sorted.
func (m *Manager) Types() []string { return m.types.Names() }

// Submit makes a unit, Pending; it is durable with its start. The same spec again
// gives the same unit, whatever state it is in by now, so that a submit may be
// repeated when its answer was lost. Errors wrap ErrBadSpec, ErrUnknownType,
// ErrForbiddenParams, ErrConflict (the id stands for another spec or owner),
// ErrReleased or ErrClosed.
func (m *Manager) Submit(spec Spec) (Status, error) {
	if spec.Job == "" {
		spec.Job = spec.ID
	}
	if spec.Node != "" && spec.Expires.IsZero() {
		spec.Expires = m.In(m.ttl)
	}
	if err := spec.Validate(); err != nil {
		return Status{}, err
	}
	if err := m.check(spec); err != nil {
		return Status{}, err
	}
	m.mu.Lock()
	if m.shut {
		m.mu.Unlock()
		return Status{}, ErrClosed
	}
	u := m.units[spec.ID]
	if u != nil {
		m.mu.Unlock()
		return u.again(spec)
	}
	if _, ok := m.tombs[spec.ID]; ok {
		m.mu.Unlock()
		return Status{}, fmt.Errorf("%w: %s", ErrReleased, spec.ID)
	}
	return m.create(spec), nil // unlocks
}

// check says whether this node, or its Agent, could do a job.
func (m *Manager) check(spec Spec) error {
	if spec.Node != "" {
		if m.agent == nil {
			return fmt.Errorf("%w: this node sends no work to others (node %s)", ErrBadSpec, spec.Node)
		}
		return m.agent.Check(spec)
	}
	t, err := m.types.Lookup(spec.Type)
	if err != nil {
		return err
	}
	if _, err = t.Plan(spec, m.scratch(spec.ID)); err != nil {
		return fmt.Errorf("unit %s: %w", spec.ID, err)
	}
	return nil
}

// create makes a new unit. It is called with m.mu held and releases it.
func (m *Manager) create(spec Spec) Status {
	u := m.newUnit(spec, m.now())
	u.op.Lock()
	defer u.op.Unlock()
	m.units[spec.ID] = u
	m.mu.Unlock()
	m.journal.Later(journal.Change{Bucket: unitsBucket, Key: spec.ID, Value: u.record(u.state()).encode()})
	m.arm(u)
	u.log.Info("work unit accepted", "type", spec.Type, "owner", spec.Owner)
	return u.Status()
}

// Payload opens a Pending unit's standard input for writing. A unit whose
// payload is not committed cannot be started; one without a payload reads an
// empty input. Errors wrap ErrUnknownUnit, ErrNotPending, or ErrBusy when it is
// being written already.
func (m *Manager) Payload(id string) (*Payload, error) {
	u, err := m.unit(id)
	if err != nil {
		return nil, err
	}
	return u.openPayload()
}

// ResumePayload is Payload, but goes on with one that was parked: its Size is how
// much of it there is.
func (m *Manager) ResumePayload(id string) (*Payload, error) {
	u, err := m.unit(id)
	if err != nil {
		return nil, err
	}
	return u.resumePayload()
}

// PayloadRef tells what a unit's payload is, once it is whole. Errors wrap
// ErrUnknownUnit.
func (m *Manager) PayloadRef(id string) (ref PayloadRef, whole bool, err error) {
	u, err := m.unit(id)
	if err != nil {
		return ref, false, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.payloadRef == nil {
		return ref, false, nil
	}
	return *u.payloadRef, true, nil
}

// Start starts a Pending unit. Errors wrap ErrUnknownUnit, ErrNotPending when it
// was started before or has ended (so that a repeated start is seen for what it
// is), ErrBusy while its payload is being written, or ErrClosed. Any other error
// means that its tree could not be built or its process not be started; the unit
// is Failed then. It returns when the process runs, or waits for its turn: a large
// tree takes a while.
func (m *Manager) Start(id string) error {
	u, err := m.unit(id)
	if err != nil {
		return err
	}
	m.mu.Lock()
	if m.shut {
		m.mu.Unlock()
		return ErrClosed
	}
	m.jobs.Add(1)
	m.mu.Unlock()
	task, err := u.buildAndStart()
	m.supervise(u, task)
	return err
}

// supervise ends a m.jobs.Add: at once, or when the job that was started has
// ended.
func (m *Manager) supervise(u *unit, task Task) {
	if task == nil {
		m.jobs.Done()
		return
	}
	go func() {
		defer m.jobs.Done()
		u.supervise(task)
	}()
}

// send gives a sealed unit to the Agent. It is called with u.op held, or before
// anybody knows the unit.
func (m *Manager) send(u *unit, fresh bool) {
	var ctx context.Context
	ctx, u.stop = context.WithCancel(m.ctx)
	m.jobs.Add(1)
	go func() {
		defer m.jobs.Done()
		m.agent.Do(ctx, &Errand{u, fresh})
	}()
}

// In is the time a while from now by the Manager's clock, for Spec.Expires; zero
// where d is.
func (m *Manager) In(d time.Duration) time.Time {
	if d == 0 {
		return time.Time{}
	}
	return m.now().Add(d).UTC()
}

// arm sets the clock of a unit whose start is bounded.
func (m *Manager) arm(u *unit) {
	if !u.spec.Expires.IsZero() {
		u.expiry = time.AfterFunc(u.spec.Expires.Sub(m.now()), u.timeOver)
	}
}

// Status tells of one unit. The error wraps ErrUnknownUnit.
func (m *Manager) Status(id string) (Status, error) {
	u, err := m.unit(id)
	if err != nil {
		return Status{}, err
	}
	return u.Status(), nil
}

// Spec returns what a unit was submitted with. The error wraps ErrUnknownUnit.
// The params may hold secrets.
func (m *Manager) Spec(id string) (Spec, error) {
	u, err := m.unit(id)
	if err != nil {
		return Spec{}, err
	}
	return u.spec, nil
}

// List tells of all units, the oldest first.
func (m *Manager) List() []Status {
	all := m.all()
	list := make([]Status, len(all))
	for i, u := range all {
		list[i] = u.Status()
	}
	return list
}

// Stats is how a Manager fares.
type Stats struct {
	Units   map[State]int // how many there are; all states are there
	Journal journal.Stats
	Keeper  bool // the keeper is there; see Keeper.Up
}

// Stats tells how the Manager fares.
func (m *Manager) Stats() Stats {
	s := Stats{Units: map[State]int{Pending: 0, Running: 0, Succeeded: 0, Failed: 0, Canceled: 0}, Journal: m.journal.Stats(), Keeper: m.keeper.Up()}
	for _, u := range m.all() {
		s.Units[u.Status().State]++
	}
	return s
}

// Watch returns a channel that gives the unit's status now and after each
// change of state. A receiver that is slow gets the latest, not each. The channel is
// closed after a terminal state, when ctx is over and when the Manager is
// closed. The error wraps ErrUnknownUnit.
func (m *Manager) Watch(ctx context.Context, id string) (<-chan Status, error) {
	u, err := m.unit(id)
	if err != nil {
		return nil, err
	}
	return u.subscribe(ctx), nil
}

func (m *Manager) scratch(id string) string { return m.store.path(id) + "/" + scratchDir }

// unit finds a unit. An id that is no id gets an error of its own kind, so that
// "../.." is never part of a path.
func (m *Manager) unit(id string) (*unit, error) {
	if err := ValidateID(id); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if u := m.units[id]; u != nil {
		return u, nil
	}
	return nil, fmt.Errorf("%w: %s", ErrUnknownUnit, id)
}

func (m *Manager) forget(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.units, id)
	m.tombs[id] = struct{}{}
}

func (m *Manager) all() []*unit {
	m.mu.Lock()
	all := make([]*unit, 0, len(m.units))
	for _, u := range m.units {
		all = append(all, u)
	}
	m.mu.Unlock()
	slices.SortFunc(all, func(a, b *unit) int { return strings.Compare(a.spec.ID, b.spec.ID) })
	return all
}
