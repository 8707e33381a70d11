package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/worktypes"
)

// What is of a unit is its owner's and that of whom he has named: each operation, on
// both services, through a node on the way.
func TestUnitsAreTheirOwners(t *testing.T) {
	c := newClub(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	a := c.node("a", "- work-command: {worktype: cat, command: cat}\n")
	hub := c.node("hub", "", a)
	self := begin(t, c.ca, "alice", identity.Client, "cat")
	alice, bob, carol := c.attach(self, hub), c.attach(begin(t, c.ca, "bob", identity.Client, "cat"), hub), c.attach(begin(t, c.ca, "carol", identity.Client, "cat"), hub)
	within(t, "the way is known", func() bool { _, _, err := alice.Ping(ctx, "a"); return err == nil })

	unit := worktypes.NewID()
	job, err := c.work(alice, "a").Submit(ctx, worktypes.Spec{ID: unit, Type: "cat", Grants: []string{"carol"}}, strings.NewReader("mine"))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := io.ReadAll(job.Results); err != nil || string(out) != "mine" {
		t.Fatalf("%q, %v", out, err)
	}

	// Bob has a certificate for the same work, and none of this is his.
	before := statusOf(t, a).Refused.Units
	theirs := c.work(bob, "a")
	_, status := theirs.Status(ctx, unit)
	_, attach := theirs.Follow(ctx, unit, 0)
	_, cancelled := theirs.Cancel(ctx, unit)
	_, again := theirs.Submit(ctx, worktypes.Spec{ID: unit, Type: "cat"}, strings.NewReader("his"))
	for name, err := range map[string]error{"status": status, "attach": attach, "cancel": cancelled, "release": theirs.Release(ctx, unit)} {
		if !errors.Is(err, worktypes.ErrForbidden) {
			t.Errorf("bob's %s: %v", name, err)
		}
	}
	if again == nil {
		t.Error("bob has submitted alice's unit again")
	}
	if list, err := theirs.List(ctx); err != nil || len(list) != 0 {
		t.Errorf("bob's list: %v, %v", list, err)
	}
	cc := c.control(ctx, bob, "a")
	for _, sub := range []string{"status", "cancel", "release", "force-release", "results", "list"} {
		for _, id := range []string{unit, "../..", "..", "/etc/passwd", unit + "/../" + unit, "../" + unit} {
			err := cc.Call(ctx, map[string]any{"command": "work", "subcommand": sub, "unitid": id}, nil)
			if err == nil || id == unit && !strings.Contains(err.Error(), "another") && !strings.Contains(err.Error(), unit) {
				t.Errorf("bob's work %s %s: %v", sub, id, err)
			}
		}
	}
	if got := statusOf(t, a).Refused.Units - before; got < 4+6 {
		t.Errorf("%d refusals are counted", got)
	}
	for _, action := range []string{"status", "attach", "cancel", "release", "list"} {
		if len(c.log["a"].lines("refused by the policy", "bob", unit, "name="+action)) == 0 {
			t.Errorf("no line of the log says that bob may not %s", action)
		}
	}
	for _, l := range c.audit("a") {
		if l.Unit == unit && l.Peer == "bob" && l.Outcome == "ok" {
			t.Errorf("the audit record says that bob got something: %+v", l)
		}
	}

	// Carol was granted it, and alice comes as another node of hers.
	for name, m := range map[string]*mesh.Attachment{"carol": carol, "alice": c.attach(self, a)} {
		cl := c.work(m, "a")
		if st, err := cl.Status(ctx, unit); err != nil || st.Owner != "alice" {
			t.Errorf("%s: %+v, %v", name, st, err)
		}
		job, err := cl.Follow(ctx, unit, 0)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := io.ReadAll(job.Results); err != nil || string(out) != "mine" {
			t.Errorf("%s reads %q, %v", name, out, err)
		}
		job.Close()
	}
	if err := c.work(carol, "a").Release(ctx, unit); err != nil {
		t.Errorf("carol's release: %v", err)
	}
}

// What work-policy says of jobs holds for who comes over the mesh.
func TestPolicyKeysThroughANode(t *testing.T) {
	c := newClub(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	gate := t.TempDir() + "/gate" // a job waits until somebody opens it for writing
	if err := unix.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	a := c.node("a", fmt.Sprintf("- work-command: {worktype: wait, command: cat, params: %s}\n", gate)+
		"- work-command: {worktype: echo, command: echo, allowruntimeparams: true}\n"+
		"- work-policy: {worktype: wait, concurrent: 1}\n- work-policy: {worktype: echo, params: [], payload: 100}\n")
	client := c.work(c.attach(begin(t, c.ca, "alice", identity.Client, "*"), a), "a")

	before := statusOf(t, a).Refused.Work
	_, err := client.Submit(ctx, worktypes.Spec{ID: worktypes.NewID(), Type: "echo", Params: map[string]string{"params": "x"}}, nil)
	if !errors.Is(err, worktypes.ErrForbidden) || !strings.Contains(err.Error(), `does not allow the parameter "params"`) {
		t.Errorf("a parameter that is not allowed: %v", err)
	}
	large := worktypes.NewID()
	job, err := client.Submit(ctx, worktypes.Spec{ID: large, Type: "echo"}, strings.NewReader(strings.Repeat("x", 101)))
	if err == nil {
		_, err = io.ReadAll(job.Results)
		job.Close()
	}
	if st, serr := client.Status(ctx, large); serr != nil || st.State != worktypes.Failed || !strings.Contains(st.Detail, "at most 100 bytes") {
		t.Errorf("a payload that is too large: %v; %+v, %v", err, st, serr)
	}
	within(t, "both are counted and in the log", func() bool {
		log := c.log["a"].String()
		return statusOf(t, a).Refused.Work == before+2 && strings.Count(log, "refused by the policy") == 2 &&
			strings.Contains(log, "does not allow the parameter") && strings.Contains(log, "at most 100 bytes")
	})

	first, second := worktypes.NewID(), worktypes.NewID()
	for _, id := range []string{first, second} {
		job, err := client.Submit(ctx, worktypes.Spec{ID: id, Type: "wait"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer job.Close()
	}
	state := func(id string) worktypes.Status {
		t.Helper()
		st, err := client.Status(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	within(t, "one runs, and the other is queued", func() bool {
		one, two := state(first), state(second)
		return one.State == worktypes.Running && two.State == worktypes.Pending && strings.HasPrefix(two.Detail, "Queued")
	})
	within(t, "both have ended, one after the other", func() bool {
		f, err := os.OpenFile(gate, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		return state(first).State == worktypes.Succeeded && state(second).State == worktypes.Succeeded
	})
}

// Only root can run jobs as somebody else: the node says so at its start, whoever
// runs this test.
func TestRunAsNeedsRoot(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		me   int
		want string
	}{
		{0, ""},
		{65534, ""},
		{1000, `only a node that runs as root can run jobs as user other; this one runs as uid 1000`},
	} {
		if err := mayRunAs(c.me, 65534, "other"); c.want == "" && err != nil || c.want != "" && (err == nil || err.Error() != c.want) {
			t.Errorf("uid %d: %v", c.me, err)
		}
	}
}
