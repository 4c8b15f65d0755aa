// Package tail follows the write-ahead log of a SQLite database that another process uses: [Open], [Tail.Start] or
// [Tail.Resume], then [Tail.Poll] again and again, with [Tail.Wait] between.
//
// # What it does to the application
//
// Nothing. Files are opened read-only; no lock is taken, and none is waited for; no byte is written, no SQLite library is
// involved, no checkpoint is run or held up. Whether somebody else holds a lock is asked for (F_OFD_GETLK).
//
// # What is promised
//
//  1. Only committed transactions are delivered, each once and whole, in their order. What counts as committed is what the
//     application's own processes agree on (the wal-index); frames behind that, which a writer may yet overwrite or a
//     killed one has left, are not touched. Where nobody is connected, or there is no wal-index (exclusive locking mode),
//     it is what the next process to open the database would find: the log up to its last valid commit.
//  2. Nothing is missed unnoticed. Each Poll that succeeds has proven that between the position before and the one after
//     there was no other commit; where that can't be proven it fails with a [GapError], even if nothing may be missing. Then
//     a new base is needed: Start, copy the file, Poll.
//  3. A copy of the database file that was made without a lock after Start, overlaid with all pages that were delivered
//     since, cut or grown to the Pages of the newest batch, is the database as of that batch, as long as no Poll failed
//     and the last one, after the copy was made, had no More.
//     The page of the lock bytes ([sqlite.LockPage]) has no content, pages behind the end are to be dropped.
//  4. Before a gap that has nothing to do with the log (the file was removed, replaced or went to another journal mode)
//     what the old log still holds is delivered.
//
// # How it is proven
//
//   - Same generation of the log (salts): the frames' checksums continue from ours, up to the one in the wal-index.
//   - The log was reset: commits are counted. The wal-index counts them across resets; those of the new generation are in the
//     log, and those of the old one that were not read yet are often still behind them, for a log is overwritten from its
//     beginning. Any that is missing is a gap; so is what can't be told from a killed process's frames that were never
//     published, which takes two resets. A recovery sets the count back; inotify tells of one, as it begins with the
//     -shm file being emptied.
//   - An index that was recovered from an empty log has no salts, and looks like any other such one: then it is the count of
//     recoveries or the database file that tells.
//   - The last process closed the database, the log is gone: the files that are held open still have what it held, and the
//     database file was not written to after the log was removed, by the two inodes' times.
//   - No log, or all of it is in the database file: that file's size and times are the same ([Stamp]).
//
// # What costs points in time, or a new base
//
//   - A commit, a checkpoint and the overwriting of the log all between two polls. [Tail.Wait] wakes when a checkpoint begins
//     to write to the database, which is before the log can be reset; so this takes checkpoints of less than a
//     millisecond, or a machine that does not give us a processor in time.
//   - Without a wal-index a reset is provable only while our place in the old generation is not overwritten.
//   - A recovery and a reset between two polls; a database that is opened, written, and closed between two polls.
//   - A clock that is set back while the last process closes; times of the closing process that fall into one tick of
//     the kernel's clock (Linux before 6.13; only where nothing is synced).
//   - Resume knows less than a tail that lives: the position must still be in the log, or the database file unchanged.
//
// BUG: a wal-index that is recovered without being emptied (a process was killed between the two stores of its 48-byte
// header while another lives) sets the count back unseen. To be misled by it takes a log that is reset before the next
// poll, too, after as many commits as the count was before.
//
// BUG: a connection with psow=0 and synchronous=FULL may repeat frames, which can't be told from transactions that wrote the
// same again. If a database has both, the repeated frames count as commits, and hide as many that were missed.
//
// BUG: in exclusive locking mode a transaction whose frames are all written and whose sync then fails is taken for committed,
// as a recovery would, until the application overwrites it; then there is a gap.
package tail
