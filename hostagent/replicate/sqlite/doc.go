// Package sqlite follows live SQLite databases: what an application commits is in the repository's log within the interval
// of the policy. A [Follower] follows one database: make it by [New], then call its Run.
//
// How it works: a tail reads the committed frames of the write-ahead log every few milliseconds, without any lock. The
// newest version of each page goes into a spool, in memory and, beyond a limit, on disk. Once in an interval the spool is
// cut, and becomes one record of the log: one point in time to which the database can be restored. Beside this stand
// snapshots, which begin a stream of records and are made again on schedule.
//
// What it promises, besides what every follower does:
//
//   - The application's database is only read. Its writers, and its checkpoints, never wait.
//   - Nothing is uploaded twice after a kill, as long as the database has not gone through a reset of its log meanwhile.
//   - What a power failure takes from the database, because its application does not sync each commit, stays restorable if it
//     was shipped, and is never mixed with what is committed then.
//   - While the store is away, records become fewer and larger: points in time are lost, never the newest state. If the
//     spool reaches its limit, or would take what others need of the disk, the log of the database is read on once the
//     store is back; if that was reset meanwhile, a snapshot makes up for it.
package sqlite
