// Command bench measures Holdfast against its peers (restic, kopia, borg) and against what the machine can do at best
// (tar with zstd, cp, find), on a corpus that it builds out of what every machine has. A stranger can repeat all that
// docs/performance.md says:
//
//	go run ./test/bench              the comparison; writes docs/performance.md, its plot, and results.json beside this file
//	go run ./test/bench -size 60MB -rounds 1     a trial; leaves the documents alone
//	go run ./test/bench -scale       memory and time as the number of files and the data grow
//	go run ./test/bench -chain       restore after one and after 101 incrementals
//	go run ./test/bench -s3          a store that is 25 ms away: time, requests, price
//	go run ./test/bench -months      90 days of changes with retention: bytes that stay
//
// Peers are installed once, at pinned versions, into .cache/peers. Each measured run is one process, started from the
// same saved state, with everything it reads in the page cache. It ends with an error if any tool fails or any restore
// differs.
package main
