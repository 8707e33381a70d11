// Package worktypes does jobs on one node: it keeps them as units on disk,
// starts their processes, and gives out their output while it grows.
//
// A unit is one job in one directory. A Type turns a unit's Spec into the
// command to run; a Registry is the types of a node; a Manager owns a data
// directory and everything in it. The package knows no network: package
// worktypes/remote serves a Manager to other nodes. See docs/work.md.
//
// # States
//
//	          Submit
//	             │
//	             ▼   Start        exit status 0
//	          Pending ────▶ Running ────▶ Succeeded
//	           │  │         │ │ │
//	payload    │  │ Cancel  │ │ │ any other exit, the node stopped,
//	aborted, ──┘  │         │ │ │ or nobody can know (LOST)
//	cannot be  │  │  Cancel │ │ └───────▶ Failed
//	started    │  └──┬──────┘ │             ▲
//	           │     ▼        │ cannot be   │
//	           │  Canceled    └─started─────┤
//	           └────────────────────────────┘
//
// Succeeded, Failed and Canceled are terminal: nothing changes any more but by
// Release, which removes the unit. A unit is started at most once.
//
// # Who owns what
//
// A unit's status changes under the unit's lock in one function
// (unit.transition), which writes it to disk first. While a job runs, the
// goroutine unit.supervise owns its process and is the only one to end the
// Running state. The job writes to its stdout file itself; readers follow the
// file, woken by the kernel (follower) and by the unit's end.
package worktypes
