// Package integration has the tests that run the real binary against real file systems, servers and faults of the
// machine. Each test sets up what it needs; nothing is skipped.
package integration
