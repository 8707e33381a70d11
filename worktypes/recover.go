package worktypes

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/process"
)

// resumeTime is how long a submitter may take to come back after a restart of its
// node.
const resumeTime = time.Minute

// recover reads the units of an earlier process, and goes on with those that
// have begun.
func (m *Manager) recover(damaged damage) error {
	if err := m.loadTombs(); err != nil {
		return err
	}
	records, err := m.loadRecords()
	if err != nil {
		return err
	}
	ids, strangers, err := m.store.ids()
	if err != nil {
		return err
	}
	if len(strangers) > 0 {
		m.log.Warn("left alone what is no work unit", "dir", m.store.units, "names", strangers)
	}
	for _, id := range damaged.units {
		records[id] = loaded{damage: damaged.cause}
	}
	for id, files := range ids {
		if _, ok := records[id]; ok {
			continue
		}
		_, released := m.tombs[id]
		switch {
		case damaged.cause != nil && !released:
			records[id] = loaded{damage: damaged.cause}
		case files.output && !released: // its job was started
			records[id] = loaded{damage: fmt.Errorf("the journal has no record of it")}
		default: // a submit that nobody was told of, or a release that was cut short
			if err := m.store.remove(id, files.dir); err != nil {
				return fmt.Errorf("remove left-over: %w", err)
			}
		}
	}
	for _, id := range sortedIDs(records) {
		m.units[id] = m.recoverUnit(id, records[id], ids[id].dir)
		if ids[id].output {
			m.units[id].hasOutput()
		}
	}
	if err := m.forgetJobs(); err != nil {
		return err
	}
	for _, id := range sortedIDs(records) {
		m.resume(m.units[id])
	}
	if m.agent != nil {
		owed, err := m.owed()
		if err != nil {
			return err
		}
		for _, o := range owed {
			m.owes(o)
		}
	}
	for _, kind := range sortedIDs(m.queue.waiting) {
		m.startWaiting(kind)
	}
	return nil
}

// recoverUnit makes a unit of its record.
func (m *Manager) recoverUnit(id string, l loaded, hasDir bool) *unit {
	if l.damage != nil {
		u := m.newUnit(Spec{ID: id, Job: id}, time.Time{})
		u.hasDir.Store(hasDir)
		u.log.Error("work unit is damaged", "dir", u.dir, "error", l.damage)
		u.status.State, u.status.Detail = Failed, "DAMAGED: "+l.damage.Error()
		u.status.StdoutSize = u.stdoutSize()
		close(u.ended)
		return u
	}
	u := m.newUnit(l.Spec, l.Status.Created)
	u.hasDir.Store(hasDir)
	u.status, u.payloadRef, u.sealed, u.boot, u.plan, u.remote = l.Status, l.Payload, l.Sealed, l.Boot, l.Plan, l.Remote
	u.removeFile(stdinPartFile)
	u.removeFile(treePartFile)
	if u.status.State == Pending {
		u.removeFile(scratchDir) // its tree was being built
		u.reopenTree()
	}
	if l.Cancel {
		u.canceled = true
		close(u.cancel)
	}
	return u
}

// forgetJobs tells the keeper of the jobs whose end is in the journal, should the
// process before this one have had no time for that.
func (m *Manager) forgetJobs() error {
	jobs, err := readRecords(filepath.Join(m.dir, recordsFile), "")
	for id := range jobs {
		if u := m.units[id]; u == nil || u.state().State != Running {
			m.keeper.Forget(id)
		}
	}
	return err
}

// resume goes on with a unit of an earlier process.
func (m *Manager) resume(u *unit) {
	st := u.state()
	switch {
	case u.closedAlready():
	case st.State.Terminal():
		close(u.ended)
		if err := u.restoreOutput(); err != nil {
			u.log.Error("work unit is damaged", "error", err)
			u.damaged(err)
		}
	case st.State == Running && u.spec.Node == "":
		m.queue.force(u.spec.Type)
		m.jobs.Add(1)
		go func() {
			defer m.jobs.Done()
			u.rejoin()
		}()
	case u.sealed && u.spec.Node != "" && m.agent != nil:
		m.send(u, false)
		m.arm(u) // after u.stop is set
	case u.sealed && u.spec.Node == "":
		m.arm(u)
		m.queue.wait(u)
	case st.State == Running: // a unit for an agent that this node has no more
		_ = u.end(func(s *Status) {
			s.State, s.Detail = Failed, "LOST: this node does not forward work any more; the job may still run on node "+u.spec.Node
		})
	case u.spec.Once:
		_ = u.end(func(s *Status) {
			s.State, s.Detail = Failed, "the node was stopped before the submitter had sent all of the payload; the job was not started"
		})
	default: // nobody was told that it would be started: its submitter may come again
		m.arm(u)
		u.payload = &Payload{u: u, hash: sha256.New(), unclaimed: true}
		u.payload.Park(resumeTime)
	}
}

// closedAlready is true for a damaged unit.
func (u *unit) closedAlready() bool {
	select {
	case <-u.ended:
		return true
	default:
		return false
	}
}

// rejoin is the goroutine that finds out about a unit that was Running when its
// Manager ended.
func (u *unit) rejoin() {
	if task := u.find(); task != nil {
		u.supervise(task)
	}
}

// find returns the unit's job: it goes on, it has ended, or it was never begun
// and is begun now. nil means that the unit was ended here.
func (u *unit) find() Task {
	_, claimed := ReadStarted(u.dir)
	fail := func(format string, args ...any) Task {
		u.op.Lock()
		defer u.op.Unlock()
		// The scratch directory is left: the job may still be there and use it.
		u.log.Warn("work unit has no job any more", "claimed", claimed)
		_ = u.end(func(s *Status) {
			s.State, s.Detail, s.StdoutSize = Failed, fmt.Sprintf(format, args...), u.stdoutSize()
		})
		u.m.keeper.Forget(u.spec.ID)
		u.m.startNext(u.spec.Type)
		return nil
	}
	if exit, ok := ReadExit(u.dir); ok {
		// The keeper may have it in mind still.
		t := u.m.keeper.Find(u.spec.ID, u.dir)
		return &endedTask{t, exit}
	}
	if u.boot != process.Boot() {
		return fail("LOST: the machine went down while the job ran; how the job ended is not known")
	}
	if claimed {
		return u.m.keeper.Find(u.spec.ID, u.dir)
	}
	// Its start was decided and not begun.
	plan, err := u.makePlan()
	if err == nil {
		var task Task
		if task, err = u.fork(plan); err == nil {
			return task
		}
	}
	return fail("unit %s could not be started: %v", u.spec.ID, err)
}

// endedTask is a job with an exit record.
type endedTask struct {
	Task
	exit Exit
}

func (t *endedTask) Exit() Exit { return t.exit }
func (t *endedTask) Done() <-chan struct{} {
	done := make(chan struct{})
	close(done)
	return done
}

// restoreOutput compares the output of a unit that has ended with what there was at
// its end. A small one, which nobody synced, is written back to its file. It is called
// with u.op held, or before anybody knows the unit.
func (u *unit) restoreOutput() error {
	want, have := u.state().StdoutSize, u.stdoutSize()
	if have >= want {
		return nil
	}
	b, err := u.m.journal.Get(stdoutBucket, u.spec.ID)
	if err == nil && int64(len(b)) == want {
		err = os.WriteFile(u.output(), b, 0o600)
	} else if err == nil {
		err = fmt.Errorf("somebody has truncated or removed it")
	}
	if err != nil {
		return fmt.Errorf("of the output %s there are %d of %d bytes: %w", u.output(), have, want, err)
	}
	u.hasOutput()
	return nil
}

// damaged tells of a unit that has ended, and whose output is not what it was. It
// is called before anybody knows the unit. The journal keeps what was.
func (u *unit) damaged(err error) {
	if u.status.State == Succeeded {
		u.status.State = Failed
	}
	u.status.Detail = "DAMAGED: " + err.Error() + "; the job: " + u.status.Detail
	u.status.StdoutSize = u.stdoutSize()
}
