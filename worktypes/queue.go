package worktypes

// queue lets as many jobs of a type run at once as the node's limits say. The
// others wait in the order of their starts. It is guarded by Manager.mu.
type queue struct {
	limits  map[string]int // by type; 0 or none: no limit
	running map[string]int
	waiting map[string][]*unit
}

func newQueue(limits map[string]int) *queue {
	return &queue{limits: limits, running: map[string]int{}, waiting: map[string][]*unit{}}
}

// take reports whether a job may run now; it counts then.
func (q *queue) take(kind string) bool {
	if limit := q.limits[kind]; limit > 0 && q.running[kind] >= limit {
		return false
	}
	q.running[kind]++
	return true
}

// force counts a job that runs already.
func (q *queue) force(kind string) { q.running[kind]++ }

func (q *queue) wait(u *unit) { q.waiting[u.spec.Type] = append(q.waiting[u.spec.Type], u) }

// done ends a job.
func (q *queue) done(kind string) { q.running[kind]-- }

// next returns who may run now, who counts then; nil: nobody.
func (q *queue) next(kind string) *unit {
	line := q.waiting[kind]
	if len(line) == 0 || !q.take(kind) {
		return nil
	}
	next := line[0]
	if line[0] = nil; len(line) == 1 {
		delete(q.waiting, kind)
	} else {
		q.waiting[kind] = line[1:]
	}
	return next
}

// startNext gives a job's place to the next one of its type.
func (m *Manager) startNext(kind string) {
	m.mu.Lock()
	m.queue.done(kind)
	m.mu.Unlock()
	m.startWaiting(kind)
}

// startWaiting starts the jobs of a type for which there is room now.
func (m *Manager) startWaiting(kind string) {
	for {
		m.mu.Lock()
		var u *unit
		if !m.shut {
			u = m.queue.next(kind)
		}
		if u == nil {
			m.mu.Unlock()
			return
		}
		m.jobs.Add(1)
		m.mu.Unlock()
		go m.startQueued(u)
	}
}

// startQueued is the goroutine that starts a unit that has waited for its turn.
func (m *Manager) startQueued(u *unit) {
	built := u.rebuild() == nil // the unit's end tells of an error
	u.op.Lock()
	var task Task
	if built && u.gone == nil && u.state().State == Pending {
		task, _ = u.begin() // the unit's end tells of an error
		u.op.Unlock()
	} else {
		u.op.Unlock()
		m.startNext(u.spec.Type)
	}
	m.supervise(u, task)
}
