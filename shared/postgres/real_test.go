package postgres_test

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/test/cluster"
)

// TestRealFiles reads what real servers of each version have written, and compares with what they, or PostgreSQL's own
// programs, say of it.
func TestRealFiles(t *testing.T) {
	for _, v := range cluster.Versions(t) {
		t.Run(strconv.Itoa(v), func(t *testing.T) {
			t.Parallel()
			s := cluster.Start(t, cluster.Options{Version: v, Checksums: true, SegmentSize: 1, Config: map[string]string{"autovacuum": "off", "wal_keep_size": "256MB"}})
			s.Psql(`CREATE EXTENSION pageinspect;
				CREATE TABLE t (n int PRIMARY KEY, text text);
				INSERT INTO t SELECT n, repeat(md5(n::text), 5) FROM generate_series(1, 20000) n; VACUUM t;
				CREATE UNLOGGED TABLE u AS SELECT * FROM t LIMIT 10;
				SELECT pg_switch_wal();
				INSERT INTO t SELECT -n, 'small' FROM generate_series(1, 5000) n;
				SELECT pg_logical_emit_message(false, 'large', repeat('x', 3000000)); -- a record over three segments
				CHECKPOINT; INSERT INTO t VALUES (0, 'the last')`)
			checkControl(t, s)
			checkPages(t, s)
			s.Stop("fast")
			control := checkControl(t, s)
			checkWAL(t, s, control)
			checkStandby(t, s)
		})
	}
}

func read(t *testing.T, s *cluster.Server, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.Dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// checkControl compares pg_control with what the server says, or if it does not run, pg_controldata.
func checkControl(t *testing.T, s *cluster.Server) *postgres.Control {
	t.Helper()
	c, err := postgres.ParseControl(read(t, s, "global/pg_control"))
	if err != nil {
		t.Fatal(err)
	}
	if c.SegmentSize != 1<<20 || c.BlockSize != postgres.BlockSize || c.WALBlockSize != postgres.BlockSize || c.RelationSegment != postgres.RelationSegment ||
		!c.Checksums || c.WALLevel != postgres.Replica || c.MaxConnections != 60 || c.MaxWALSenders != 10 {
		t.Errorf("pg_control: %+v", c)
	}
	if s.Running() {
		want := s.Psql(`SELECT system_identifier, pg_control_version, catalog_version_no FROM pg_control_system();
			SELECT checkpoint_lsn, redo_lsn, timeline_id, prev_timeline_id, extract(epoch FROM checkpoint_time)::bigint FROM pg_control_checkpoint()`)
		got := fmt.Sprintf("%d|%d|%d\n%s|%s|%d|%d|%d", c.System, c.Version, c.Catalog, c.Checkpoint, c.Redo, c.Timeline, c.PreviousTimeline, c.CheckpointTime.Unix())
		if got != want || c.State != postgres.InProduction && c.State != postgres.InArchiveRecovery {
			t.Errorf("pg_control says %s, %s, the server %s", got, c.State, want)
		}
	} else if c.State != postgres.ShutDown {
		t.Errorf("the server has ended and is %s", c.State)
	}
	if s.Version != cluster.System(t) {
		return c
	}
	said := s.Run("pg_controldata", s.Dir)
	for _, want := range []string{
		fmt.Sprintf("Database system identifier:           %d\n", c.System), "Database cluster state:               " + strings.Fields(c.State.String())[0],
		fmt.Sprintf("Latest checkpoint location:           %s\n", c.Checkpoint), fmt.Sprintf("Bytes per WAL segment:                %d\n", c.SegmentSize),
		fmt.Sprintf("Minimum recovery ending location:     %s\n", c.MinRecovery), fmt.Sprintf("Backup start location:                %s\n", c.BackupStart),
		fmt.Sprintf("max_locks_per_xact setting:           %d\n", c.MaxLocks), fmt.Sprintf("max_worker_processes setting:         %d\n", c.MaxWorkers),
	} {
		if !strings.Contains(said, want) {
			t.Errorf("pg_controldata does not say %q:\n%s", want, said)
		}
	}
	return c
}

// checkPages computes the checksums of all pages of the cluster, and asks the server for some.
func checkPages(t *testing.T, s *cluster.Server) {
	t.Helper()
	pages, relations := 0, 0
	err := filepath.WalkDir(s.Dir, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(s.Dir, path)
		r, ok := postgres.ParseRelation(rel)
		if err != nil || d.IsDir() || !ok {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		relations++
		for n := 0; n+postgres.BlockSize <= len(b); n += postgres.BlockSize {
			page, block := b[n:n+postgres.BlockSize], r.FirstBlock(postgres.RelationSegment)+uint32(n/postgres.BlockSize)
			if err := postgres.CheckPage(page, block, 0); err != nil {
				t.Errorf("%s: %v", rel, err)
			}
			h := postgres.ParsePage(page)
			if h.New() {
				continue
			}
			if pages++; pages%8 != 0 {
				continue
			}
			if h.Size != postgres.BlockSize || h.Version != 4 || h.Lower > h.Upper || h.Upper > h.Special {
				t.Errorf("%s: block %d: %+v", rel, block, h)
			}
			var damaged *postgres.ChecksumError
			page[5000] ^= 1
			if err := postgres.CheckPage(page, block, 0); !errors.As(err, &damaged) || damaged.Block != block {
				t.Errorf("%s: a flipped bit: %v", rel, err)
			}
			if err := postgres.CheckPage(page, block, h.LSN); h.LSN != 0 && err != nil {
				t.Errorf("%s: a page that was changed meanwhile: %v", rel, err)
			}
			page[5000] ^= 1
			if err := postgres.CheckPage(page, block+1, 0); err == nil {
				t.Errorf("%s: block %d may stand elsewhere", rel, block)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if pages < 500 || relations < 200 {
		t.Errorf("%d pages of %d files", pages, relations)
	}
	path := s.Psql("SELECT pg_relation_filepath('t')")
	b := read(t, s, path)
	for _, block := range []uint32{0, 7, 100} {
		page := b[block*postgres.BlockSize:][:postgres.BlockSize]
		want := s.Psql(fmt.Sprintf("SELECT lsn, page_checksum(page, %d), lower, upper, special, pagesize, version FROM get_raw_page('t', %[1]d) page, page_header(page)", block))
		h := postgres.ParsePage(page)
		if got := fmt.Sprintf("%s|%d|%d|%d|%d|%d|%d", h.LSN, int16(h.Checksum), h.Lower, h.Upper, h.Special, h.Size, h.Version); got != want {
			t.Errorf("block %d is %s, the server says %s", block, got, want)
		}
	}
}

// segments are the segments of a timeline that are in pg_wal, in order.
func segments(t *testing.T, s *cluster.Server, timeline uint32) []postgres.Name {
	t.Helper()
	all, err := os.ReadDir(filepath.Join(s.Dir, "pg_wal"))
	if err != nil {
		t.Fatal(err)
	}
	var out []postgres.Name
	for _, e := range all {
		if n, err := postgres.ParseName(e.Name(), 1<<20); err == nil && n.Kind == postgres.Segment && n.Timeline == timeline {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b postgres.Name) int { return int(int64(a.Start) - int64(b.Start)) })
	return out
}

// walk follows the WAL of a timeline from the first segment in pg_wal on, in pieces of a size, to its end.
func walk(t *testing.T, s *cluster.Server, o postgres.Origin, piece int) *postgres.Walker {
	t.Helper()
	all := segments(t, s, o.Timeline)
	w := postgres.NewWalker(o, all[0].Start)
	for i, n := range all {
		if i > 0 && all[i-1].Start+1<<20 != n.Start {
			t.Fatalf("segments %s and %s do not follow each other", all[i-1].Start, n.Start)
		}
		b := read(t, s, filepath.Join("pg_wal", n.String(1<<20)))
		for len(b) > 0 {
			k := min(piece, len(b))
			if _, err := w.Write(b[:k]); err != nil {
				var wal *postgres.WALError
				if !errors.As(err, &wal) || w.End() == 0 {
					t.Fatal(err)
				}
				return w
			}
			b = b[k:]
		}
	}
	return w
}

// checkWAL follows all WAL of a server that was shut down: the last record is the checkpoint of that.
func checkWAL(t *testing.T, s *cluster.Server, c *postgres.Control) {
	t.Helper()
	o := postgres.Origin{System: c.System, Timeline: c.Timeline, SegmentSize: c.SegmentSize}
	for _, piece := range []int{1 << 20, 8192, 777} {
		if w := walk(t, s, o, piece); w.Last() != c.Checkpoint {
			t.Errorf("in pieces of %d: the last record is at %s, ends at %s, not at %s", piece, w.Last(), w.End(), c.Checkpoint)
		}
	}
	w := walk(t, s, o, 4096)
	if s.Version == cluster.System(t) {
		_, err := s.TryRun("pg_waldump", "-p", filepath.Join(s.Dir, "pg_wal"), "-s", segments(t, s, o.Timeline)[0].Start.String())
		if err == nil || !strings.Contains(err.Error(), "at "+w.End().String()) {
			t.Errorf("we find the end at %s, pg_waldump: %v", w.End(), err)
		}
	}
	name := postgres.SegmentName(o.Timeline, w.End()-1, o.SegmentSize)
	b := read(t, s, "pg_wal/"+name)
	start := (w.End() - 1).SegmentStart(o.SegmentSize)
	if err := o.Check(start, b[:w.End()-start]); err != nil {
		t.Errorf("pages: %v", err)
	}
	damageWAL(t, o, start, b, w)
}

// damageWAL tries what must not pass for WAL that goes on.
func damageWAL(t *testing.T, o postgres.Origin, start postgres.LSN, b []byte, whole *postgres.Walker) {
	t.Helper()
	end := func(o postgres.Origin, b []byte) (postgres.LSN, error) {
		w := postgres.NewWalker(o, start)
		_, err := w.Write(b)
		return w.End(), err
	}
	if at, _ := end(o, b); at != whole.End() {
		t.Errorf("from the segment on alone the end is %s", at)
	}
	flipped := slices.Clone(b)
	flipped[whole.Last()-start+30] ^= 4
	if at, err := end(o, flipped); at >= whole.End() || err == nil || !strings.Contains(err.Error(), "CRC") {
		t.Errorf("a flipped bit: the end is %s: %v", at, err)
	}
	other := o
	other.System++
	if at, err := end(other, b); at != 0 || err == nil || !strings.Contains(err.Error(), "another cluster") || other.Check(start, b) == nil {
		t.Errorf("another system: the end is %s: %v", at, err)
	}
	swapped := slices.Clone(b)
	copy(swapped[8192:], b[16384:24576])
	if _, err := end(o, swapped); err == nil || !strings.Contains(err.Error(), "the page is of") || o.Check(start, swapped) == nil {
		t.Errorf("a page in the place of another: %v", err)
	}
	zeroed := slices.Clone(b)
	clear(zeroed[8192:16384])
	if _, err := end(o, zeroed); err == nil {
		t.Error("a page of zeros passes")
	}
}

// checkStandby reads what a promotion leaves: a history, and WAL of a new timeline that begins in the old one's segment.
func checkStandby(t *testing.T, s *cluster.Server) {
	t.Helper()
	s.Restart()
	standby := s.Standby(t)
	checkLabel(t, standby)
	s.Psql("INSERT INTO t SELECT n + 100000, 'before' FROM generate_series(1, 100) n")
	standby.Follow(s)
	standby.Promote()
	standby.Psql("INSERT INTO t SELECT n + 200000, 'after' FROM generate_series(1, 10000) n; CHECKPOINT")
	checkControl(t, standby)
	standby.Stop("fast")
	c := checkControl(t, standby)
	h, err := postgres.ParseHistory(2, read(t, standby, "pg_wal/"+postgres.HistoryName(2)))
	if err != nil {
		t.Fatal(err)
	}
	parent, at := h.Parent()
	if parent != 1 || len(h.Entries) != 1 || h.Entries[0].Reason == "" || h.At(at-1) != 1 || h.At(at) != 2 || c.Timeline != 2 {
		t.Errorf("history %+v", h)
	}
	first := segments(t, standby, 2)[0]
	if first.Start != at.SegmentStart(1<<20) {
		t.Errorf("timeline 2 branched off at %s and begins at %s", at, first.Start)
	}
	if w := walk(t, standby, postgres.Origin{System: c.System, Timeline: 2, SegmentSize: 1 << 20}, 5000); w.Last() != c.Checkpoint || w.Timeline() != 2 {
		t.Errorf("the last record of timeline %d is at %s, not %s", w.Timeline(), w.Last(), c.Checkpoint)
	}
	if err := (postgres.Origin{System: c.System, Timeline: 1, SegmentSize: 1 << 20}).Check(c.Checkpoint.SegmentStart(1<<20), read(t, standby, "pg_wal/"+postgres.SegmentName(2, c.Checkpoint, 1<<20))); err == nil {
		t.Error("WAL of timeline 2 passes for timeline 1")
	}
	// A crash: WAL goes on behind what was not finished.
	standby.Restart()
	standby.Psql("INSERT INTO t SELECT n + 300000, 'crash' FROM generate_series(1, 1000) n")
	standby.Kill9()
	standby.Restart()
	standby.Psql("INSERT INTO t SELECT n + 400000, 'crash' FROM generate_series(1, 1000) n")
	standby.Stop("fast")
	c = checkControl(t, standby)
	if w := walk(t, standby, postgres.Origin{System: c.System, Timeline: 2, SegmentSize: 1 << 20}, 1<<20); w.Last() != c.Checkpoint {
		t.Errorf("after a crash the last record is at %s, not %s", w.Last(), c.Checkpoint)
	}
}

func checkLabel(t *testing.T, s *cluster.Server) {
	t.Helper()
	l, err := postgres.ParseLabel(read(t, s, "backup_label.old"))
	if err != nil {
		t.Fatal(err)
	}
	if l.Name != "copy" || l.From != "primary" || l.Timeline != 1 || l.Start == 0 || l.Checkpoint < l.Start || l.Segment != postgres.SegmentName(1, l.Start, 1<<20) {
		t.Errorf("label %+v", l)
	}
}

// TestBackup reads what pg_basebackup has stored.
func TestBackup(t *testing.T) {
	s := cluster.Start(t, cluster.Options{})
	space := s.Owner.Dir(t)
	s.Psql("CREATE TABLESPACE other LOCATION '" + space + "'")
	s.Psql("CREATE TABLE t TABLESPACE other AS SELECT generate_series(1, 1000)")
	dir := s.Owner.Dir(t)
	to := filepath.Join(dir, "backup")
	s.Run("pg_basebackup", "-D", to, "-T", space+"="+filepath.Join(dir, "space"), "-X", "fetch", "-c", "fast", "-l", "a label")
	b, err := os.ReadFile(filepath.Join(to, "backup_manifest"))
	if err != nil {
		t.Fatal(err)
	}
	s.Run("pg_verifybackup", "-q", to) // for whom it is good, it is for us
	m, err := postgres.ParseManifest(b)
	if err != nil {
		t.Fatal(err)
	}
	relations := 0
	for _, f := range m.Files {
		info, err := os.Stat(filepath.Join(to, f.Path))
		if err != nil || info.Size() != f.Size || f.Modified.IsZero() || f.Algorithm != "CRC32C" || len(f.Checksum) != 4 {
			t.Errorf("%+v: %v", f, err)
		}
		content, err := os.ReadFile(filepath.Join(to, f.Path))
		sum := binary.LittleEndian.AppendUint32(nil, crc32.Checksum(content, crc32.MakeTable(crc32.Castagnoli)))
		if err != nil || !bytes.Equal(sum, f.Checksum) {
			t.Errorf("%s: %x, %v", f.Path, sum, err)
		}
		if r, ok := postgres.ParseRelation(f.Path); ok {
			relations++
			if strings.HasPrefix(f.Path, "pg_tblspc/") != (r.Tablespace >= 16384) {
				t.Errorf("%s is %+v", f.Path, r)
			}
		}
	}
	label, err := os.ReadFile(filepath.Join(to, "backup_label"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := postgres.ParseLabel(label)
	if err != nil || l.Name != "a label" || l.Method != "streamed" || l.IncrementalFrom != 0 {
		t.Errorf("%+v, %v", l, err)
	}
	if len(m.Files) < 900 || relations < 800 || len(m.Ranges) != 1 || m.Ranges[0].Timeline != 1 || m.Ranges[0].Start != l.Start || m.Ranges[0].End <= l.Start {
		t.Errorf("%d files, %d of relations, WAL %v", len(m.Files), relations, m.Ranges)
	}
	for i := 0; i < len(b); i += 4999 {
		changed := slices.Clone(b)
		changed[i] ^= 1
		if _, err := postgres.ParseManifest(changed); err == nil {
			t.Fatalf("a manifest with another byte %d passes", i)
		}
	}
	spaces := fromTar(t, s, filepath.Join(dir, "tar"), "tablespace_map")
	all, err := postgres.ParseTablespaceMap(spaces)
	if err != nil || len(all) != 1 || string(postgres.AppendTablespaceMap(nil, all)) != string(spaces) {
		t.Errorf("%v, %v of %q", all, err, spaces)
	}
}

// fromTar returns a file of a backup in tar format.
func fromTar(t *testing.T, s *cluster.Server, to, name string) []byte {
	t.Helper()
	s.Run("pg_basebackup", "-D", to, "-F", "tar", "-X", "none", "-c", "fast", "--no-manifest")
	f, err := os.Open(filepath.Join(to, "base.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == name {
			b, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
}
