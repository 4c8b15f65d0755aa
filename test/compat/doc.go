// Package compat holds a second, independent reader of repositories, and the
// tests that set it against Holdfast.
//
// The reader, in the directory reader, is Python and was written from
// docs/format.md alone. It restores what Holdfast wrote and verifies all of
// it, so what it needs must stand in that document: when the two disagree, one
// of them is mended. The directory golden has a repository that was written
// when the format was frozen, once and for good: both programs read it, and a
// program of today adds to a copy of it. The tests install what the reader needs
// (requirements.txt) into the checkout's .cache once. By hand, with these
// packages:
//
//	cd test/compat && python -B -m reader REPOSITORY IDENTITY verify
//	cd test/compat && python -B -m reader REPOSITORY IDENTITY restore HOST/SOURCE@N DIR
package compat
