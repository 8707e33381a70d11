package remote_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/worktypes"
	"github.com/ranvier-mesh/ranvier/worktypes/remote"
)

// stuck gives a part of a payload, and then nothing until it is let go.
type stuck struct {
	io.ReadSeeker
	part int
	came chan<- struct{}
	free <-chan struct{}
}

func (s *stuck) Read(b []byte) (int, error) {
	if s.part == 0 {
		close(s.came)
		<-s.free
		return 0, errors.New("the submitter is gone")
	}
	n, err := s.ReadSeeker.Read(b[:min(s.part, len(b))])
	s.part -= n
	return n, err
}

// A submitter that is killed in the middle of a payload and started again does
// not wait for the end of its former connection, of which nobody knows that it is dead.
func TestNewerUploadSupersedes(t *testing.T) {
	overBoth(t, func(t *testing.T, n *node) {
		n.server.Park = time.Minute
		all := bytes.Repeat([]byte("payload "), 64<<10)
		ref := &worktypes.PayloadRef{Size: int64(len(all)), SHA256: sha256.Sum256(all)}
		spec := shell("cat")
		came, free, first := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		go func() {
			_, err := n.client().SubmitInput(deadline(t), spec, remote.Input{Ref: ref, Payload: func(remote.Takes) io.Reader {
				return &stuck{bytes.NewReader(all), len(all) / 2, came, free}
			}})
			first <- err
		}()
		<-came
		job, err := n.client().SubmitInput(deadline(t), spec, remote.Input{Ref: ref, Payload: func(remote.Takes) io.Reader {
			return bytes.NewReader(all)
		}})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(job.Results); !bytes.Equal(got, all) || err != nil {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		close(free)
		if err := <-first; err == nil {
			t.Error("the former connection has submitted")
		}
	})
}
