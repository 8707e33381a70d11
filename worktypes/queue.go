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
