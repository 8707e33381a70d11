// Package remote is the work service: it lets a node submit, follow, cancel and
// release work units of another over any net.Conn, one request a connection.
// Server answers for a worktypes.Manager; Client asks. See docs/work.md section
// 4, which is normative.
//
// A Server's connection is served by up to three goroutines: one writes the
// unit's output, one its states, and one reads what the client still says. What
// they write goes through one lock, frame by frame. A Client's Job has
// no goroutine at all: it is driven by whoever reads its results.
package remote
