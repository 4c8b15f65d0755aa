// Package compat holds a second, independent reader of repositories, and the
// tests that set it against Holdfast.
//
// The reader, in the directory reader, is Python and was written from
// docs/format.md alone. It restores what Holdfast wrote and verifies all of
// it, so what it needs must stand in that document: when the two disagree, one
// of them is mended. The tests install what it needs
// (requirements.txt) into the checkout's .cache once. By hand, with these
// packages:
//
//	cd test/compat && python -B -m reader REPOSITORY IDENTITY verify
//	cd test/compat && python -B -m reader REPOSITORY IDENTITY restore HOST/SOURCE@N DIR
package compat
