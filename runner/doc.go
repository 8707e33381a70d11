// Package runner is ansible-runner as a library, without a mesh: a job is a
// private data directory, which [Transmit] turns into a stream of bytes, a
// worker turns into the job's events and artifacts, another stream, and
// [Process] turns into files, output and a result. Both streams are those of
// the Python tool ansible-runner, so that each end can be either's
// (docs/runner.md).
//
// The phases know nothing of each other but the stream. What carries the
// streams between machines is the caller's: a pipe, an ssh session, a mesh.
package runner
