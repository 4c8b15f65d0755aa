package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/btcdecoded/holdfast/shared/postgres"
)

// BackupOptions say what a base backup is to have. It always has a manifest with CRC32C, the map of tablespaces, and the WAL
// that it needs; it never waits until that is archived.
type BackupOptions struct {
	Label  string // at most 1000 bytes
	Spread bool   // begin with a checkpoint that takes its time; else at once
	Verify bool   // the server checks pages as well, and tells in the end whether one was wrong: see [IsCorrupted]
}

// Tablespace is one of a base backup.
type Tablespace struct {
	OID      uint32 // 0: the data directory itself
	Location string // where it is on the server; empty for the data directory
	Size     uint64 // bytes, estimated; 0: not known
}

// Archive is one of the parts in which a base backup comes: a tar of a tablespace, or the manifest.
type Archive struct {
	Tablespace

	Manifest bool // not a tar: the backup manifest
}

// Backup is a base backup on its way: for each archive that [Backup.Next] tells, read to its end; then [Backup.Finish]. Its
// methods are called by one goroutine.
type Backup struct {
	Start       postgres.LSN // where recovery from it begins
	Timeline    uint32
	Tablespaces []Tablespace // in the order in which they come; the data directory is the last

	c      *Conn
	ctx    context.Context // of the whole backup: Read has no other
	done   func()
	opened int          // archives of old servers that have begun
	queue  []Archive    // what has begun and was not told yet
	data   []byte       // of the message at hand
	last   postgres.LSN // where the backup ends; set when the server has said so
	lastID uint32       // the timeline of that
	copied bool         // all archives have ended
	failed error        // why nothing more comes
}

const backupOp = "base backup"

// BaseBackup begins a base backup (BASE_BACKUP). The context is that of the whole of it. Errors: [*Error].
func (c *Conn) BaseBackup(ctx context.Context, o BackupOptions) (*Backup, error) {
	done, err := c.guard(ctx)
	if err != nil {
		return nil, err
	}
	b := &Backup{c: c, ctx: ctx, done: done}
	if err := c.send(backupOp, c.backupCommand(o)); err != nil {
		return nil, b.end(err)
	}
	position, err := b.result(2)
	if err != nil {
		return nil, b.end(err)
	}
	if len(position) != 1 {
		return nil, b.end(broken(backupOp, "%d rows that say where it begins", len(position)))
	}
	if b.Start, b.Timeline, err = parsePosition(position[0]); err != nil {
		return nil, b.end(broken(backupOp, "%w", err))
	}
	spaces, err := b.result(3)
	if err != nil {
		return nil, b.end(err)
	}
	for _, row := range spaces {
		t, err := parseTablespace(row)
		if err != nil {
			return nil, b.end(broken(backupOp, "%w", err))
		}
		b.Tablespaces = append(b.Tablespaces, t)
	}
	return b, nil
}

// backupCommand is the command in the grammar of the server's version.
func (c *Conn) backupCommand(o BackupOptions) string {
	if c.version.Major < 15 {
		command := "BASE_BACKUP LABEL " + literal(o.Label) + " PROGRESS"
		if !o.Spread {
			command += " FAST"
		}
		command += " WAL NOWAIT TABLESPACE_MAP"
		if !o.Verify {
			command += " NOVERIFY_CHECKSUMS"
		}
		return command + " MANIFEST 'yes' MANIFEST_CHECKSUMS 'CRC32C'"
	}
	checkpoint := "fast"
	if o.Spread {
		checkpoint = "spread"
	}
	return fmt.Sprintf("BASE_BACKUP (LABEL %s, PROGRESS true, CHECKPOINT '%s', WAL true, WAIT false, TABLESPACE_MAP true, "+
		"VERIFY_CHECKSUMS %t, MANIFEST 'yes', MANIFEST_CHECKSUMS 'CRC32C')", literal(o.Label), checkpoint, o.Verify)
}

// result reads one set of rows.
func (b *Backup) result(columns int) (rows [][][]byte, err error) {
	for {
		kind, body, err := b.message()
		if err != nil {
			return nil, err
		}
		switch kind {
		case 'T':
		case 'D':
			row, err := parseRow(body, columns)
			if err != nil {
				return nil, broken(backupOp, "%w", err)
			}
			rows = append(rows, cloneRow(row))
		case 'C':
			return rows, nil
		default:
			return nil, broken(backupOp, "message %q in place of a row", kind)
		}
	}
}

func cloneRow(row [][]byte) [][]byte {
	out := make([][]byte, len(row))
	for i, v := range row {
		out[i] = bytes.Clone(v)
	}
	return out
}

// message reads the next message that matters. An error of the server comes as an error.
func (b *Backup) message() (kind byte, body []byte, err error) {
	for {
		kind, body, err := b.c.frames.next()
		if err != nil {
			return 0, nil, explain(backupOp, cut(err))
		}
		switch kind {
		case 'E':
			return 0, nil, b.c.failed(backupOp, body)
		case 'N', 'S':
			if err := b.c.aside(backupOp, kind, body); err != nil {
				return 0, nil, err
			}
		default:
			return kind, body, nil
		}
	}
}

// end gives the connection back after an error.
func (b *Backup) end(err error) error {
	if b.done != nil {
		b.done()
		b.done = nil
	}
	err = ended(b.ctx, err)
	if b.failed == nil {
		b.failed = err
	}
	return err
}

func parsePosition(row [][]byte) (at postgres.LSN, timeline uint32, err error) {
	if at, err = postgres.ParseLSN(string(row[0])); err != nil {
		return 0, 0, err
	}
	n, err := strconv.ParseUint(string(row[1]), 10, 32)
	if err != nil {
		return 0, 0, fmt.Errorf("timeline: %w", err)
	}
	return at, uint32(n), nil
}

// parseTablespace reads a row: oid, location, size in KiB. The data directory has neither oid nor location.
func parseTablespace(row [][]byte) (t Tablespace, err error) {
	if row[0] != nil {
		oid, err := strconv.ParseUint(string(row[0]), 10, 32)
		if err != nil || oid == 0 {
			return t, fmt.Errorf("tablespace with the oid %q", row[0])
		}
		t.OID, t.Location = uint32(oid), string(row[1])
	}
	if row[2] != nil {
		size, err := strconv.ParseUint(string(row[2]), 10, 53)
		if err != nil {
			return t, fmt.Errorf("tablespace of %q KiB", row[2])
		}
		t.Size = size << 10
	}
	return t, nil
}

// Next goes on to the next archive; what is left of the one before is skipped. Errors: io.EOF after the last.
func (b *Backup) Next() (Archive, error) {
	if b.failed != nil {
		return Archive{}, b.failed
	}
	for len(b.queue) == 0 {
		if b.copied {
			return Archive{}, io.EOF
		}
		if err := b.more(); err != nil {
			return Archive{}, b.end(err)
		}
	}
	a := b.queue[0]
	b.queue = b.queue[1:]
	return a, nil
}

// Read reads of the archive at hand. Errors: io.EOF at its end, [*Error] for what the server says or the connection does.
func (b *Backup) Read(p []byte) (int, error) {
	for len(b.data) == 0 {
		switch {
		case b.failed != nil:
			return 0, b.failed
		case b.copied || len(b.queue) > 0:
			return 0, io.EOF
		}
		if err := b.more(); err != nil {
			return 0, b.end(err)
		}
	}
	n := copy(p, b.data)
	b.data = b.data[n:]
	return n, nil
}

// more reads one message of the copies.
func (b *Backup) more() error {
	b.data = nil
	kind, body, err := b.message()
	if err != nil {
		return err
	}
	old := b.c.version.Major < 15
	switch kind {
	case 'd':
		if old {
			b.data = body
			return nil
		}
		return b.tagged(body)
	case 'H':
		if old {
			return b.another()
		}
		return nil
	case 'c':
		// Old servers send one copy for each archive, of which the manifest is the last.
		b.copied = !old || b.opened > len(b.Tablespaces)
		return nil
	}
	return broken(backupOp, "message %q in place of data", kind)
}

// another begins the next archive of an old server.
func (b *Backup) another() error {
	b.opened++
	switch n := len(b.Tablespaces); {
	case b.opened <= n:
		b.queue = append(b.queue, Archive{Tablespace: b.Tablespaces[b.opened-1]})
	case b.opened == n+1:
		b.queue = append(b.queue, Archive{Manifest: true})
	default:
		return broken(backupOp, "more archives than %d tablespaces and a manifest", n)
	}
	return nil
}

// tagged reads a message whose first byte says what it is.
func (b *Backup) tagged(body []byte) error {
	if len(body) == 0 {
		return broken(backupOp, "an empty message")
	}
	switch rest := body[1:]; body[0] {
	case 'd':
		b.data = rest
	case 'n':
		a, err := b.archive(rest)
		if err != nil {
			return err
		}
		b.queue = append(b.queue, a)
	case 'm':
		b.queue = append(b.queue, Archive{Manifest: true})
	case 'p':
		if len(rest) != 8 || int64(binary.BigEndian.Uint64(rest)) < 0 {
			return broken(backupOp, "progress of %d bytes", len(rest))
		}
	default:
		return broken(backupOp, "data of the unknown type %q", body[0])
	}
	return nil
}

// archive reads what begins an archive: its name, and the tablespace's location.
func (b *Backup) archive(body []byte) (Archive, error) {
	name, rest, ok := bytes.Cut(body, []byte{0})
	location, rest, ok2 := bytes.Cut(rest, []byte{0})
	if !ok || !ok2 || len(rest) > 0 {
		return Archive{}, broken(backupOp, "an archive without a name")
	}
	oid := uint64(0)
	if stem := strings.TrimSuffix(string(name), ".tar"); stem != "base" {
		var err error
		if oid, err = strconv.ParseUint(stem, 10, 32); err != nil || oid == 0 {
			return Archive{}, broken(backupOp, "an archive with the name %q", name)
		}
	}
	for _, t := range b.Tablespaces {
		if t.OID == uint32(oid) {
			return Archive{Tablespace: t}, nil
		}
	}
	return Archive{}, broken(backupOp, "an archive of tablespace %d at %q, which was not announced", oid, location)
}

// Finish reads to the end of the command and returns up to where WAL is needed. Nothing of the backup counts before it has
// returned without an error, or with one that [IsCorrupted]: then all has come, the position counts, and pages are wrong.
func (b *Backup) Finish() (stop postgres.LSN, timeline uint32, err error) {
	for {
		_, err := b.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, 0, err
		}
	}
	position, err := b.result(2)
	if err != nil {
		return 0, 0, b.end(err)
	}
	if len(position) != 1 {
		return 0, 0, b.end(broken(backupOp, "%d rows that say where it ends", len(position)))
	}
	if b.last, b.lastID, err = parsePosition(position[0]); err != nil {
		return 0, 0, b.end(broken(backupOp, "%w", err))
	}
	for {
		kind, body, err := b.message()
		if err != nil {
			err = b.end(err)
			if codeOf(err) == codeCorrupted {
				return b.last, b.lastID, &corruptedError{err}
			}
			return 0, 0, err
		}
		switch kind {
		case 'C':
		case 'Z':
			var ready pgproto3.ReadyForQuery
			if err := ready.Decode(body); err != nil {
				return 0, 0, b.end(broken(backupOp, "%w", err))
			}
			b.done()
			b.done = nil
			return b.last, b.lastID, nil
		default:
			return 0, 0, b.end(broken(backupOp, "message %q in place of the end", kind))
		}
	}
}

// corruptedError says that pages of a backup were wrong, and that all of it has come nevertheless.
type corruptedError struct{ error }

func (e *corruptedError) Unwrap() error { return e.error }

// IsCorrupted reports whether an error of [Backup.Finish] says that all has come, with pages that were wrong on the server.
func IsCorrupted(err error) bool {
	var e *corruptedError
	return errors.As(err, &e)
}
