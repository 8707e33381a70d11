package process_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/process"
)

func TestStarted(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	got, err := process.Started(cmd.Process.Pid)
	if off := got.Sub(before); err != nil || off < -time.Second || off > 10*time.Second {
		t.Errorf("started %v after it was started, %v", off, err)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := process.Started(cmd.Process.Pid); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after its end: %v", err)
	}
}

func TestKillSessionEndsTheLeaderAndItsChildren(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sh", "-c", "trap '' TERM; setsid sleep 1000 & echo $!; wait")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 16)); err != nil { // the child is there
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	if err := process.KillSession(t.Context(), cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	<-done
	if err := process.KillSession(t.Context(), cmd.Process.Pid); err != nil {
		t.Errorf("once more: %v", err)
	}
	if err := process.KillSession(t.Context(), os.Getpid()); err == nil {
		t.Error("killed itself")
	}
}
