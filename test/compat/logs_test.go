package compat_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore/file"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/test/trees"
)

// logWriter writes logs into a bench's repository, and notes what the reader should see of them.
type logWriter struct {
	repo  *repository.Repository
	src   snapshot.Source
	now   time.Time
	lines []string
}

func newLogWriter(t *testing.T, b bench) *logWriter {
	t.Helper()
	store, err := file.Open(b.repository())
	if err != nil {
		t.Fatal(err)
	}
	id, err := keyring.LoadIdentity(filepath.Join(b.dir, "identity"))
	if err != nil {
		t.Fatal(err)
	}
	repo, err := repository.Open(t.Context(), store, id)
	if err != nil {
		t.Fatal(err)
	}
	src, err := snapshot.ParseSource(source)
	if err != nil {
		t.Fatal(err)
	}
	return &logWriter{repo: repo, src: src, now: time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)}
}

func (l *logWriter) open(t *testing.T, stream string, after uint64, continues *log.Place) *log.Writer {
	t.Helper()
	w, err := log.Create(t.Context(), l.repo, l.src, log.Options{
		Stream: stream, After: after, Continues: continues, Opened: l.now, Tool: "test", Temp: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// append stores a record of some pages and returns its place.
func (l *logWriter) append(t *testing.T, w *log.Writer, size uint32, numbers ...uint32) log.Place {
	t.Helper()
	l.now = l.now.Add(1500 * time.Millisecond)
	content := sha256.New()
	var names []string
	each := func(yield func(uint32, []byte) error) error {
		for _, n := range numbers {
			if err := yield(n, random(uint64(n), int(size))); err != nil {
				return err
			}
		}
		return nil
	}
	place, err := w.Append(t.Context(), log.Record{Time: l.now, PageSize: size, Pages: 1000, Position: []byte("here"), Each: each})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range numbers {
		names = append(names, fmt.Sprint(n))
		content.Write(random(uint64(n), int(size)))
	}
	if len(names) == 0 {
		names = []string{"-"}
	}
	l.lines = append(l.lines, fmt.Sprintf("%s %d %d %d 0 %s %d 1000 %s %s", place.Stream, place.Epoch, place.Sequence, l.now.UnixNano(), place.Record,
		size, strings.Join(names, ","), hex.EncodeToString(content.Sum(nil))))
	return place
}

// testLogs has the reader read logs that Holdfast wrote, and both find what is wrong with others.
func testLogs(t *testing.T, p programs) {
	b := newBench(t, p, trees.TempDir(t))
	write(t, filepath.Join(b.tree(), "file"), 0, random(1, 1000))
	b.backup(t)
	l := newLogWriter(t, b)
	w := l.open(t, "00112233445566778899aabbccddeeff", 0, nil)
	var end log.Place
	for n := range uint32(20) {
		end = l.append(t, w, 512, 1, 2+n)
	}
	if n, err := w.Join(t.Context(), 0); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	second := l.open(t, w.Stream(), 1, &end)
	l.append(t, second, 65536, 7, 999)
	l.append(t, second, 4096)
	if out, code := b.read(t, "verify"); code != 0 || out != "" {
		t.Errorf("the reader finds, with exit code %d:\n%s", code, out)
	}
	out, code := b.read(t, "records")
	if want := strings.Join(l.lines, "\n") + "\n"; code != 0 || strings.TrimSpace(out) != strings.TrimSpace(want) {
		t.Errorf("exit code %d:\n%s\nwant\n%s", code, out, want)
	}
	// Retention has removed the first ten, as a record says.
	cut := func(dir string) {
		o := objects{dir}
		for n := 1; n <= 10; n++ {
			o.remove(t, fmt.Sprintf("/0000000001/%010d-", n), 0)
		}
		o.remove(t, "/joined/", 0)
	}
	piece := func(epoch, n uint64) string {
		return layout.LogKey(l.src, layout.LogObject{Stream: w.Stream(), Epoch: epoch, First: n, Last: n})
	}
	for name, tt := range map[string]struct {
		do    func(o objects) string
		sound bool
	}{
		"removed by retention": {func(o objects) string {
			cut(o.dir)
			on := newLogWriter(t, b.on(o.dir))
			doc := record.LogCut{Stream: w.Stream(), Epoch: 1, Sequence: 10, Time: on.now}
			if err := on.repo.PutDocument(t.Context(), layout.ExpiredLogKey(l.src, w.Stream(), 1, 10), doc); err != nil {
				t.Fatal(err)
			}
			return ""
		}, true},
		"removed by somebody": {func(o objects) string { cut(o.dir); return piece(1, 1) }, false},
		"piece, bit flipped":  {func(o objects) string { return o.flip(t, piece(2, 21), 0, 0.5) }, false},
		"piece, truncated":    {func(o objects) string { return o.truncate(t, piece(2, 21), 0) }, false},
		"piece, removed":      {func(o objects) string { return o.remove(t, piece(2, 21), 0) }, false},
		"pieces, swapped": {func(o objects) string {
			a, b := o.read(t, piece(1, 5)), o.read(t, piece(1, 6))
			o.write(t, piece(1, 5), b)
			o.write(t, piece(1, 6), a)
			return piece(1, 5)
		}, false},
		"piece of another epoch": {func(o objects) string {
			o.write(t, piece(2, 21), o.read(t, piece(1, 20)))
			return piece(2, 21)
		}, false},
		"segment, bit flipped": {func(o objects) string { return o.flip(t, "/joined/", 0, 0.5) }, false},
		"head, bit flipped":    {func(o objects) string { return o.flip(t, "/0000000002/head", 0, 0.5) }, false},
		"head, removed":        {func(o objects) string { return o.remove(t, "/0000000002/head", 0) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			on := b.on(filepath.Join(t.TempDir(), "repository"))
			if err := os.CopyFS(on.copy, os.DirFS(b.repository())); err != nil {
				t.Fatal(err)
			}
			named := tt.do(objects{on.copy})
			out, code := on.read(t, "verify")
			if tt.sound != (code == 0) || !strings.Contains(out, named) {
				t.Errorf("the reader does not name %s, but ends with exit code %d and\n%s", named, code, out)
			}
			out, code = on.run(t, "verify", "--level", "content", "--no-receipts")
			if tt.sound != (code == 0) || !strings.Contains(out, named) {
				t.Errorf("holdfast does not name %s, but ends with exit code %d and\n%s", named, code, out)
			}
		})
	}
}

// openWAL opens an epoch of a log of a timeline.
func (l *logWriter) openWAL(t *testing.T, timeline uint32, stream string, after uint64, continues *log.Place) *log.Writer {
	t.Helper()
	w, err := log.Create(t.Context(), l.repo, l.src, log.Options{
		Kind: log.KindPostgres, Postgres: &record.PostgresLog{System: 1<<64 - 2, Timeline: timeline, SegmentSize: 1 << 20},
		Stream: stream, After: after, Continues: continues, Opened: l.now, Tool: "test", Temp: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// put stores a record of WAL or a history, and notes what the reader should see of it.
func (l *logWriter) put(t *testing.T, w *log.Writer, r log.Record) log.Place {
	t.Helper()
	l.now = l.now.Add(time.Second)
	r.Time = l.now
	place, err := w.Append(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	what, content := "", []byte(nil)
	if r.WAL != nil {
		what, content = fmt.Sprintf("%X", uint64(r.WAL.Start)), r.WAL.Bytes
	} else {
		what, content = fmt.Sprintf("history %d", r.History.Timeline), r.History.Content
	}
	sum := sha256.Sum256(content)
	l.lines = append(l.lines, fmt.Sprintf("%s %d %d %d 0 %s %s %d %s", place.Stream, place.Epoch, place.Sequence, l.now.UnixNano(), place.Record,
		what, len(content), hex.EncodeToString(sum[:])))
	return place
}

func wal(from, to uint64) log.Record {
	return log.Record{WAL: &log.WAL{Start: postgres.LSN(from), Bytes: random(from, int(to-from))}} //nolint:gosec // small
}

// testWAL has the reader read WAL over epochs and timelines, and both find what is wrong with it.
func testWAL(t *testing.T, p programs) {
	b := newBench(t, p, trees.TempDir(t))
	write(t, filepath.Join(b.tree(), "file"), 0, random(1, 1000))
	b.backup(t)
	l := newLogWriter(t, b)
	w := l.openWAL(t, 1, "", 0, nil)
	l.put(t, w, wal(0x16_00100000, 0x16_00100001))
	end := l.put(t, w, wal(0x16_00100001, 0x16_00200000))
	if _, err := w.Join(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	left := l.put(t, l.openWAL(t, 1, w.Stream(), 1, &end), wal(0x16_00200000, 0x16_00280000))
	second := l.openWAL(t, 2, "", 0, &left)
	l.put(t, second, log.Record{History: &log.History{Timeline: 2, Content: []byte("1\t16/27F000\tno recovery target specified\n")}})
	l.put(t, second, wal(0x16_00200000, 0x16_00300000))
	if out, code := b.read(t, "verify"); code != 0 || out != "" {
		t.Errorf("the reader finds, with exit code %d:\n%s", code, out)
	}
	if out, code := b.run(t, "verify", "--level", "content", "--no-receipts"); code != 0 {
		t.Errorf("holdfast finds, with exit code %d:\n%s", code, out)
	}
	out, code := b.read(t, "records")
	if want := strings.Join(l.lines, "\n"); code != 0 || strings.TrimSpace(out) != want {
		t.Errorf("exit code %d:\n%s\nwant\n%s", code, out, want)
	}
	for name, put := range map[string]func(l *logWriter) log.Place{
		"missing": func(l *logWriter) log.Place {
			return l.put(t, l.openWAL(t, 1, w.Stream(), 2, &left), wal(0x16_00290000, 0x16_00290001))
		},
		"twice": func(l *logWriter) log.Place {
			return l.put(t, l.openWAL(t, 1, w.Stream(), 2, &left), wal(0x16_00270000, 0x16_00290001))
		},
		"missing over timelines": func(l *logWriter) log.Place {
			third := l.openWAL(t, 3, "", 0, &left)
			l.put(t, third, log.Record{History: &log.History{Timeline: 3, Content: []byte("1\t16/27F000\t\n2\t16/3FF000\n")}})
			return l.put(t, third, wal(0x16_00300000, 0x16_00300001))
		},
		"of another timeline": func(l *logWriter) log.Place {
			third := l.openWAL(t, 3, "", 0, &left)
			l.put(t, third, log.Record{History: &log.History{Timeline: 3, Content: []byte("2\t16/27F000\t\n")}})
			return l.put(t, third, wal(0x16_00200000, 0x16_00200001))
		},
	} {
		t.Run(name, func(t *testing.T) {
			on := b.on(filepath.Join(t.TempDir(), "repository"))
			if err := os.CopyFS(on.copy, os.DirFS(b.repository())); err != nil {
				t.Fatal(err)
			}
			at := put(newLogWriter(t, on))
			named := fmt.Sprintf("/%010d/", at.Epoch)
			if out, code := on.read(t, "verify"); code == 0 || !strings.Contains(out, at.Stream+named) {
				t.Errorf("the reader ends with exit code %d and\n%s", code, out)
			}
			if out, code := on.run(t, "verify", "--level", "content", "--no-receipts"); code == 0 || !strings.Contains(out, at.Stream+named) {
				t.Errorf("holdfast ends with exit code %d and\n%s", code, out)
			}
		})
	}
}
