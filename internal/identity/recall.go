package identity

import (
	"bytes"
	"slices"
)

// This file has what a CA learns from its mesh. It matters where the CA was
// restored from a backup: who joined and who was revoked since then is known to
// the members alone.

type watcher struct {
	list   func(*Revocations)
	member func(Member)
}

// Watch has the functions told of each list of the mesh's CA that comes from now
// on, even where a newer one is known, and of each member that is verified.
// Whoever verifies calls them, so they must not wait.
func (t *Trust) Watch(list func(*Revocations), member func(Member)) {
	t.watcher.Store(&watcher{list, member})
}

// tell hands on a list of the CA, unless all that it is about has ended.
func (t *Trust) tell(r *Revocations) {
	if w := t.watcher.Load(); w != nil && t.clock.Now().Before(r.Issued.Add(MaxLife)) {
		w.list(r)
	}
}

// Recall takes over from a verified list what the CA does not know to be
// revoked, and signs a list with all. It tells whether there was anything.
func (c *CA) Recall(r *Revocations) (news bool, err error) {
	own, err := c.Revocations()
	if err != nil || bytes.Equal(own, r.Raw) {
		return false, err
	}
	err = c.update(func(s *caState) error {
		news = r.Number >= s.Number // signed by this CA before it was restored
		known := map[KeyID]bool{}
		for _, k := range s.Revoked {
			known[k.Key] = true
		}
		for _, key := range r.Keys {
			if known[key] {
				continue
			}
			news = true
			revoked := revokedKey{Key: key, At: r.Issued, Ends: r.Issued.Add(MaxLife)}
			for id, m := range s.Members {
				if m.Key == key {
					revoked.ID = id
					delete(s.Members, id)
				}
			}
			s.Revoked = append(s.Revoked, revoked)
		}
		s.Number = max(s.Number, r.Number)
		if !news {
			return nil
		}
		_, err := c.publish(s)
		return err
	})
	return news, err
}

// Knows reports whether a member needs no Readmit: it is cheap where it was
// asked before.
func (c *CA) Knows(m Member) bool {
	_, ok := c.met.Load(m.KeyID)
	return ok
}

// Readmit notes a verified member that the CA does not know, so that its id is
// not given away and can be revoked. It tells whether it was one.
func (c *CA) Readmit(m Member) (news bool, err error) {
	err = c.view(func(s *caState) error {
		if news = s.readmit(m, c); !news {
			return nil
		}
		return c.writeState(s)
	})
	if err == nil {
		c.met.Store(m.KeyID, struct{}{})
	}
	return news, err
}

func (s *caState) readmit(m Member, c *CA) bool {
	if s.Members[m.ID] != nil || slices.ContainsFunc(s.Revoked, func(r revokedKey) bool { return r.Key == m.KeyID }) {
		return false
	}
	now := c.clock.Now()
	s.Members[m.ID] = &member{Key: m.KeyID, Role: m.Role, Work: m.Work, Joined: now, Renewed: now, NotAfter: m.NotAfter}
	return true
}
