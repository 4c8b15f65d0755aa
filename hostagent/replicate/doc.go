// Package replicate follows live SQLite databases: what an application commits is in the repository's log within the
// interval of the policy. A [Follower] follows one database, a [Group] all of a host. Make one by [New], then call its
// Run.
//
// How it works: a tail reads the committed frames of the write-ahead log every few milliseconds, without any lock. The
// newest version of each page goes into a spool, in memory and, beyond a limit, on disk. Once in an interval the spool is
// cut, and becomes one record of the log: one point in time to which the database can be restored. Beside this stand
// snapshots, which begin a stream of records and are made again on schedule.
//
// What it promises:
//
//   - The application's database is only read. Its writers, and its checkpoints, never wait.
//   - A commit counts as durable when the record that holds it is in the store, and all records before it. Lag is the age of
//     the oldest commit that is not durable.
//   - Nothing is appended across a gap: where commits may have been missed, a snapshot begins a new stream. What was read
//     before the gap is still shipped.
//   - A process that is killed goes on where it was. What had become durable unnoticed is found by a listing, and nothing
//     is uploaded twice, as long as the database has not gone through a reset of its log meanwhile.
//   - While the store is away, records become fewer and larger: points in time are lost, never the newest state. If the
//     spool reaches its limit, a snapshot makes up for it once the store is back.
//   - Where two hosts write the same stream, such as a machine and its clone, whoever sees the other stops and says so.
//   - An idle database costs no request.
package replicate
