// Package soak has the tests that break things at random for as long as they are told to: processes are killed, objects
// damaged, networks cut, clocks set wrong, and what a disk had not synced is dropped. What must hold, always: nothing that
// was acknowledged is lost, every listed snapshot restores byte for byte, and damage is found and named.
//
// Flags after -args say how much: -kills, -damages, -troubles, -jumps, -outages, and of followed databases -follows, -swaps,
// -cuts, -clones and -fills; -filesystems xfs,btrfs also has root try those. The defaults are a sample of a few minutes, always
// with the same dice. `make soak` throws them anew: its seed is printed, and -seed repeats it, as far as processes that run at
// the same time can be repeated.
//
//	go test ./test/soak -timeout 0 -v -args -seed 0 -kills 1000 -damages 10000 -troubles 60 -jumps 8 -outages 1000
package soak
