// Package replicate is what the followers of live databases have in common: what is committed to a database that is in use
// is in the repository's log within the interval of the policy. Followers are made by the packages below this one, sqlite
// and postgres; a [Group] has all of a host at work. Whoever wants to know how a source does calls [Read].
//
// A follower is built on a [Keeper], which holds the lock of its source's state directory and keeps two files there: its mark
// ([Marks]), from which it goes on after it was killed, and its status, which its [Reporter] writes. When it ships is told by a
// [Pace]; an [Upkeep] looks after what it has shipped.
//
// What every follower promises:
//
//   - A commit counts as durable when the record that holds it is in the store, and all records before it. Lag is the age of
//     the oldest commit that is not durable.
//   - Nothing is appended across a gap: where commits may have been missed, a snapshot begins a new stream. What was read
//     before the gap is still shipped.
//   - A process that is killed goes on where it was. What had become durable unnoticed is found by a listing.
//   - Where two hosts write the same stream, such as a machine and its clone, whoever sees the other stops and says so.
//   - An idle database costs no request.
package replicate
