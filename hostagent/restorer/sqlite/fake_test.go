package sqlite

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// fake is a snapshot of one file, in memory, in chunks of some pages.
type fake struct {
	chunks  map[snapshot.Hash][]byte
	damaged bool
}

const fakeChunk = 48 << 10

func (f *fake) Extents(_ context.Context, e *snapshot.Entry, fn func(snapshot.Extent) error) error {
	for _, x := range e.Extents {
		if err := fn(x); err != nil {
			return err
		}
	}
	return nil
}

var errDamaged = errors.New("a pack is damaged")

func (f *fake) Chunks(_ context.Context, refs []repository.KindRef, fn func(i int, plain []byte, err error) error) error {
	for i, r := range refs {
		var err error
		if f.damaged {
			err = errDamaged
		}
		if err := fn(i, f.chunks[r.ID], err); err != nil {
			return err
		}
	}
	return nil
}

// source is a base with this content, and records.
func source(content []byte, records ...Record) *Source {
	f := &fake{chunks: map[snapshot.Hash][]byte{}}
	e := &snapshot.Entry{Path: "/db", Type: snapshot.File, Mode: 0o640, UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Size: uint64(len(content))}
	for rest := content; len(rest) > 0; {
		n := min(len(rest), fakeChunk)
		part := rest[:n]
		rest = rest[n:]
		if len(bytes.Trim(part, "\x00")) == 0 {
			e.Extents = append(e.Extents, snapshot.Extent{Hole: true, Length: uint64(n)})
			continue
		}
		id := snapshot.Hash(sha256.Sum256(part))
		f.chunks[id] = part
		e.Extents = append(e.Extents, snapshot.Extent{Ref: snapshot.Ref{ID: id, Plain: uint32(n)}, Length: uint64(n)})
	}
	return &Source{Base: f, Entry: e, Time: stamp(0), Records: sequence(records, nil)}
}

// sequence gives records, and then the error unless it is nil.
func sequence(records []Record, end error) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for _, r := range records {
			if !yield(r, nil) {
				return
			}
		}
		if end != nil {
			yield(Record{}, end)
		}
	}
}

func opener(s *Source) Opener { return func(context.Context) (*Source, error) { return s, nil } }

func stamp(n int) time.Time {
	return time.Date(2026, 1, 31, 9, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Second)
}

// difference is the record that makes after out of before: the pages that differ, and the size.
func difference(before, after []byte, pageSize, n int) Record {
	r := Record{Time: stamp(n), PageSize: uint32(pageSize), Pages: uint32(len(after) / pageSize)}
	r.Each = func(page func(uint32, []byte) error) error {
		for at := 0; at < len(after); at += pageSize {
			if at+pageSize <= len(before) && bytes.Equal(before[at:at+pageSize], after[at:at+pageSize]) {
				continue
			}
			if err := page(uint32(at/pageSize)+1, after[at:at+pageSize]); err != nil {
				return err
			}
		}
		return nil
	}
	return r
}

// sqlite runs the sqlite3 program of Debian, another implementation than the one that proves.
func sqlite(t *testing.T, path, sql string) string {
	t.Helper()
	out, err := trySQLite(path, sql)
	if err != nil {
		t.Fatalf("%s: %v\n%s", sql, err, out)
	}
	return out
}

func trySQLite(path, sql string) (string, error) {
	cmd := exec.Command("sqlite3", "-bail", path)
	cmd.Stdin = strings.NewReader(sql + "\n")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// connection is a sqlite3 program that keeps a database open.
type connection struct {
	in  io.WriteCloser
	cmd *exec.Cmd
}

// connect opens a database and keeps it open, after the statements were run.
func connect(t *testing.T, path, sql string) *connection {
	t.Helper()
	cmd := exec.Command("sqlite3", "-bail", path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &connection{in, cmd}
	t.Cleanup(c.kill)
	if _, err := fmt.Fprintf(in, "%s\n.print ready\n", sql); err != nil {
		t.Fatal(err)
	}
	var seen []byte
	for buf := make([]byte, 1024); !bytes.Contains(seen, []byte("ready\n")); {
		n, err := out.Read(buf)
		seen = append(seen, buf[:n]...)
		if err != nil {
			t.Fatalf("%s: %v\n%s", sql, err, seen)
		}
	}
	return c
}

// kill ends the program without its closing the database.
func (c *connection) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
	_ = c.in.Close()
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// names lists a directory.
func names(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

// restoredBytes is a database with one table "new" of n rows.
func restoredBytes(t *testing.T, n int) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "new.db")
	sqlite(t, path, fmt.Sprintf("PRAGMA page_size=1024; CREATE TABLE new(x); WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<%d) INSERT INTO new SELECT randomblob(300) FROM c;", n))
	return read(t, path)
}
