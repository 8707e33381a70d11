package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ranvier-mesh/ranvier/routing"
)

// caState is what a CA remembers: a file that is replaced in one step. Several
// processes use it (the node that serves, the commands), one at a time.
type caState struct {
	Mesh      string                     `json:"mesh"`
	Node      routing.NodeID             `json:"node"` // that the CA is on
	Addresses []string                   `json:"addresses,omitempty"`
	Members   map[routing.NodeID]*member `json:"members"`
	Tokens    map[string]*grantable      `json:"tokens"` // by the hash of the secret
	Number    uint64                     `json:"number"` // of the newest revocations
	Revoked   []revokedKey               `json:"revoked,omitempty"`
	Retired   []KeyID                    `json:"retired,omitempty"`
	Rollover  *time.Time                 `json:"rollover,omitempty"` // since when two roots are in use
}

// member is who has an id.
type member struct {
	Key      KeyID     `json:"key"`
	Role     Role      `json:"role"`
	Work     []string  `json:"work,omitempty"`
	Joined   time.Time `json:"joined"`
	Renewed  time.Time `json:"renewed"`
	NotAfter time.Time `json:"not_after"`
}

// grantable is what a token allows.
type grantable struct {
	Role    Role       `json:"role"`
	Pattern string     `json:"pattern"`
	Work    []string   `json:"work,omitempty"`
	Ends    time.Time  `json:"ends"`
	UsedBy  *KeyID     `json:"used_by,omitempty"`
	UsedAt  *time.Time `json:"used_at,omitempty"`
}

type revokedKey struct {
	Key  KeyID          `json:"key"`
	ID   routing.NodeID `json:"id"`
	At   time.Time      `json:"at"`
	Ends time.Time      `json:"ends"` // no certificate of the key lives longer
}

const (
	stateFile = "state.json"
	lockFile  = "lock"
	// keepUsed is how long a used token is kept, so that who asks again because
	// the answer was lost gets it, and anybody else a reason.
	keepUsed = 24 * time.Hour
)

// locked runs f while no other process has the CA.
func (c *CA) locked(f func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	l, err := os.OpenFile(filepath.Join(c.dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock the CA: %w", err)
	}
	defer l.Close()
	if err := unix.Flock(int(l.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock the CA: %w", err)
	}
	return f()
}

// view gives f the state as it is on disk.
func (c *CA) view(f func(*caState) error) error {
	return c.locked(func() error {
		s, err := c.readState()
		if err != nil {
			return err
		}
		return f(s)
	})
}

// update lets f change the state; nothing is kept where it returns an error.
func (c *CA) update(f func(*caState) error) error {
	return c.view(func(s *caState) error {
		s.prune(c.clock.Now())
		if err := f(s); err != nil {
			return err
		}
		return c.writeState(s)
	})
}

func (c *CA) readState() (*caState, error) {
	file := filepath.Join(c.dir, stateFile)
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no CA in %s: make one with `ranvier ca init --mesh NAME`", c.dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read the CA's state: %w", err)
	}
	s := &caState{Members: map[routing.NodeID]*member{}, Tokens: map[string]*grantable{}}
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("read the CA's state: %s: %w (restore the CA from a backup)", file, err)
	}
	return s, nil
}

func (c *CA) writeState(s *caState) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(c.dir, stateFile), append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("keep the CA's state: %w", err)
	}
	return nil
}

// prune forgets what matters no more: tokens that ended, and revoked keys of
// which no certificate can be alive.
func (s *caState) prune(now time.Time) {
	for hash, t := range s.Tokens {
		if t.UsedAt == nil && now.After(t.Ends) || t.UsedAt != nil && now.After(t.UsedAt.Add(keepUsed)) {
			delete(s.Tokens, hash)
		}
	}
	var kept []revokedKey
	for _, r := range s.Revoked {
		if !now.After(r.Ends.Add(24 * time.Hour)) {
			kept = append(kept, r)
		}
	}
	s.Revoked = kept
}

func secretHash(secret [SecretLen]byte) string {
	sum := sha256.Sum256(secret[:])
	return hex.EncodeToString(sum[:])
}

// ErrTaken is wrapped by the error of an id that belongs to another key.
var ErrTaken = errors.New("the id belongs to another node")

// claim decides whether a key may have an id.
func (s *caState) claim(id routing.NodeID, key KeyID) error {
	for _, r := range s.Revoked {
		if r.Key == key {
			return fmt.Errorf("node %s: %w: join with a new key", id, ErrRevoked)
		}
	}
	if m := s.Members[id]; m != nil && m.Key != key {
		return fmt.Errorf("node %s: %w: choose another id, or revoke the old one with `ranvier ca revoke %s`", id, ErrTaken, id)
	}
	return nil
}

// redeem spends a token for a key. The same key may ask again: its answer may
// have been lost.
func (s *caState) redeem(secret [SecretLen]byte, id routing.NodeID, key KeyID, now time.Time) (*grantable, error) {
	t := s.Tokens[secretHash(secret)]
	switch {
	case t == nil:
		return nil, errors.New("the token is not known here: it was never made, has ended or was used")
	case t.UsedBy != nil && *t.UsedBy != key:
		return nil, errors.New("the token was used already: each lets one node join")
	case now.After(t.Ends):
		return nil, fmt.Errorf("the token ended at %s", t.Ends.UTC().Format(time.RFC3339))
	}
	if ok, err := path.Match(t.Pattern, string(id)); err != nil || !ok {
		return nil, fmt.Errorf("the token is for ids like %q, not for %s", t.Pattern, id)
	}
	if err := s.claim(id, key); err != nil {
		return nil, err
	}
	t.UsedBy, t.UsedAt = &key, &now
	return t, nil
}
