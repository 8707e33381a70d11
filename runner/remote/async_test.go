package remote_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/ranvier-mesh/ranvier/runner"
	"github.com/ranvier-mesh/ranvier/runner/remote"
)

// TestAsyncIsCanceled: a job whose peer accepts the connection and then says
// nothing runs until it is canceled.
func TestAsyncIsCanceled(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	job := remote.Async(t.Context(), remote.Options{
		Options:     runner.Options{PrivateDataDir: t.TempDir(), Module: "ping"},
		ViaReceptor: "n", ReceptorPeer: []string{l.Addr().String()},
	})
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	select {
	case <-job.Done():
		t.Error("done without an answer")
	default:
	}
	job.Cancel()
	if _, err := job.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

func TestAsyncTellsWhatIsWrong(t *testing.T) {
	t.Parallel()
	job := remote.Async(t.Context(), remote.Options{Options: runner.Options{PrivateDataDir: t.TempDir()}, ViaReceptor: "n"})
	if _, err := job.Wait(); !errors.Is(err, runner.ErrOptions) {
		t.Errorf("ended with %v", err)
	}
}
