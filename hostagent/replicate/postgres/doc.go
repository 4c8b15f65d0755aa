// Package postgres follows live PostgreSQL clusters: the WAL that a server writes is in the repository's log within the
// interval of the policy, long before a segment is full. A [Follower] follows one cluster: make it by [New], then call its
// Run. Who can't stream lets archive_command call [Push] with each full segment instead.
//
// How it works: a permanent physical slot keeps WAL on the server until it is durable in the repository, and only what is
// durable there is acknowledged. The stream is cut into records by interval, at 4 MiB and where a WAL segment ends: the
// bytes as they are, each record one put. Beside this stand base backups, of which one begins a lineage of the log.
//
// # Lineages and streams
//
// A lineage is WAL without a gap. It has one stream of the log for each timeline that it went through; on promotion the
// next stream goes on after the last record of the one before, with the history file first and then from the start of the
// segment in which the timelines part. Where the server's history left ours before what is stored, the next stream goes on
// from the start of that segment: what is behind it stays, on a branch that has ended. A new lineage, with a base backup,
// begins where WAL is missing: the slot was lost, or the state of this host.
//
// What it promises, besides what every follower does:
//
//   - No WAL is acknowledged that is not durable in the repository.
//   - Before it goes on, it proves that the server has the same WAL right before as was stored: a server that was put back to
//     an older state, or another one under the same address, is not appended to what was there.
//   - WAL of another system identifier is refused. A server on an older timeline, or one that does not have yet what is
//     stored, is waited for.
//   - Memory is bounded: while the store is away, the server is not read, and its slot keeps the WAL. How much that is, and
//     what limits it, is in the status.
//   - A slot that it did not make is never removed.
package postgres
