package identity

import (
	"crypto/sha256"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/routing"
)

// TestSignWork holds that a signature is for one unit, at its time, by a member.
func TestSignWork(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, err := InitCA(filepath.Join(dir, "ca"), "test", "hub", CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	member := func(id string) *Self {
		s, err := Begin(ca, Claims{ID: routing.NodeID(id), Role: Client}, filepath.Join(dir, id))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	alice := member("alice")
	order := func() WorkOrder {
		return WorkOrder{Unit: "U", Node: "n", Store: "s", Type: "cat", Params: map[string]string{"a": "b", "ab": ""}, Size: 1, SHA256: sha256.Sum256([]byte{1}), Tree: []byte{1}}
	}
	raw, err := alice.SignWork(order())
	if err != nil {
		t.Fatal(err)
	}
	trust := alice.Trust()
	if s, early, err := trust.VerifyWork(raw, order()); err != nil || s.ID != "alice" || early > time.Second {
		t.Fatalf("%+v, %v, %v", s, early, err)
	}
	for name, change := range map[string]func(*WorkOrder){
		"another unit":    func(o *WorkOrder) { o.Unit = "V" },
		"another node":    func(o *WorkOrder) { o.Node = "m" },
		"a node anew":     func(o *WorkOrder) { o.Store = "t" },
		"another type":    func(o *WorkOrder) { o.Type = "rm" },
		"another param":   func(o *WorkOrder) { o.Params["a"] = "c" },
		"one param moved": func(o *WorkOrder) { o.Params = map[string]string{"a": "bab", "": ""} },
		"no params":       func(o *WorkOrder) { o.Params = nil },
		"another payload": func(o *WorkOrder) { o.SHA256[0]++ },
		"another size":    func(o *WorkOrder) { o.Size++ },
		"another tree":    func(o *WorkOrder) { o.Tree = []byte{2} },
		"no tree":         func(o *WorkOrder) { o.Tree = nil },
	} {
		o := order()
		change(&o)
		if _, _, err := trust.VerifyWork(raw, o); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, c := range []struct {
		off  time.Duration
		want string
	}{{-skew / 2, ""}, {-2 * skew, ""}, {-maxSlow - 2*skew, "not valid yet"}, {WorkLife + skew/2, ""}, {WorkLife + 2*skew, "has expired"}} {
		// Nothing has passed for certain but the certificate's beginning.
		later := NewTrust("test", trust.Roots(), NewClock(func() time.Time { return time.Now().Add(c.off) }, time.Time{}))
		_, early, err := later.VerifyWork(raw, order())
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v off: %v, want %q", c.off, err, c.want)
		}
		if err == nil && c.off < 0 && early < skew/3 {
			t.Errorf("%v off is told as %v", c.off, early)
		}
	}
	list, err := ca.Revoke("alice")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trust.Revoke(list.Raw); err != nil {
		t.Fatal(err)
	}
	if _, _, err := trust.VerifyWork(raw, order()); !errors.Is(err, ErrRevoked) {
		t.Errorf("a revoked issuer: %v", err)
	}
}

// FuzzVerifyWork feeds it what comes from a submitter.
func FuzzVerifyWork(f *testing.F) {
	dir := f.TempDir()
	ca, err := InitCA(filepath.Join(dir, "ca"), "test", "hub", CAOptions{})
	if err != nil {
		f.Fatal(err)
	}
	s, err := Begin(ca, Claims{ID: "a", Role: Client}, filepath.Join(dir, "id"))
	if err != nil {
		f.Fatal(err)
	}
	good, err := s.SignWork(WorkOrder{Unit: "U"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, _, err := s.Trust().VerifyWork(raw, WorkOrder{Unit: "other"}); err == nil {
			t.Error("it holds for another unit")
		}
	})
}
