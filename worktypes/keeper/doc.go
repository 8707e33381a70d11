// Package keeper is the small process that outlives the node: `ranvier keep`. It
// is the only one to start and to reap jobs, so that a node may be killed,
// upgraded and started again under a running job.
//
// Serve is that process; Client is the node's end and the worktypes.Keeper of its
// Manager. There is one keeper for a data directory. The two talk in lines of JSON over
// the unix socket <data dir>/keeper/socket (docs/work.md section 2.2).
//
// # At most once
//
// The keeper claims a unit's start record before it forks, a file that only one
// can make. It writes the exit record before it tells anybody of the end. So
// what either of the two knows is in the unit's directory, and survives both: a
// node that comes back asks the keeper, and where that is another one by now it
// reads what the old one has written. A job whose keeper was killed goes on; its
// exit status is lost.
//
// # Memory
//
// A job costs a struct and a file descriptor: there is one goroutine for the ends
// of all jobs, woken by SIGCHLD, and one for each connected node. While jobs
// are quiet nothing runs.
package keeper
