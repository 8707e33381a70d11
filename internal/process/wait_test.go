package process

import (
	"context"
	"errors"
	"testing"
)

func TestWaitForAProcessThatIsNoChild(t *testing.T) {
	t.Parallel()
	r, w := pipe(t)
	p := start(t, shell(`setsid sleep 600 & echo $!; wait`, w))
	w.Close()
	line, err := r.ReadString('\n')
	if err != nil {
		t.Fatal(line, err)
	}
	id, ok := FindMarked(t.Name())
	if !ok || id != p.Root() {
		t.Errorf("found %v, %v by its mark, want %v", id, ok, p.Root())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := id.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("wait for a process that runs: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- id.Wait(t.Context()) }()
	if err := NewFamily(id, t.Name()).Kill(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := id.look(t.Context()); err != nil || id.Alive() {
		t.Errorf("%v, alive: %v", err, id.Alive())
	}
	if err := (ID{id.PID, id.Start + 1}).Wait(t.Context()); err != nil {
		t.Errorf("another process of that pid: %v", err)
	}
	if Boot() == "" {
		t.Error("no boot id")
	}
}
