// Package runner is ansible-runner as a library, without a mesh: a job is a
// private data directory, which [Transmit] turns into a stream of bytes, a
// worker turns into the job's events and artifacts, another stream, and
// [Process] turns into files, output and a result. Both streams are those of
// the Python tool ansible-runner, so that each end can be either's
// (docs/runner.md).
//
// The phases know nothing of each other but the stream. What carries the
// streams between machines is the caller's: a pipe, an ssh session, a mesh.
// [Run] is all three on this machine, [Async] the same in the background.
//
// The package keeps nothing between calls: any number of jobs may run at the
// same time, also in one private data directory with an ident each. A job's
// handlers are called one at a time. What went wrong is told by types
// ([LinkError], [TruncatedError], [LostEventsError], [MalformedError],
// [WorkerError], [WorkError], [ArtifactsError]) and by values ([ErrOptions],
// [ErrNoPrivateDataDir], [ErrNoResult], [ErrArchiveUnsafe],
// [ErrArchiveTooLarge]); each function lists its own.
package runner
