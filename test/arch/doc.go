// Package arch holds the tests that keep the layers of the code as DESIGN.md draws them: imports point down only,
// packages that decide do no I/O, nothing registers itself. It has no code of its own.
package arch
