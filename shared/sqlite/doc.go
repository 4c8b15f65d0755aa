// Package sqlite reads the bytes of SQLite's files: the header of a database ([ParseHeader]; what is none: [Identify]), the
// write-ahead log ([ParseWALHeader], [Chain]), the head of its index ([ParseIndex]) and the rollback journal ([ReadJournal]).
// It takes bytes and does no I/O of its own, knows no SQL and never looks inside a page.
//
// The formats are SQLite's and stable since 2010: https://www.sqlite.org/fileformat2.html,
// https://www.sqlite.org/walformat.html; where those are silent (hot journals, padding) the source is pager.c and wal.c.
package sqlite
