package postgres_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/test/cluster"
)

// restore starts a server on what the repository has: the snapshot and the log that are chosen for a time, zero: the newest.
func (w *world) restore(at time.Time) *cluster.Server {
	w.t.Helper()
	return w.restoreFrom(0, at)
}

// restoreFrom is restore from a snapshot of a number; 0: from the one that is chosen.
func (w *world) restoreFrom(number uint64, at time.Time) *cluster.Server {
	w.t.Helper()
	ctx := context.Background()
	repo := w.fix.Open(w.t, w.fix.Store)
	manifests, err := repo.Manifests(ctx, w.src)
	if err != nil {
		w.t.Fatal(err)
	}
	var points []recovery.Point
	for _, m := range manifests {
		if number == 0 || number == m.Sequence {
			points = append(points, recovery.FromManifest(m.Manifest, time.Now()))
		}
	}
	streams, err := log.Streams(ctx, repo, w.src)
	if err != nil {
		w.t.Fatal(err)
	}
	reader := log.NewReader(repo, w.src, streams)
	chosen, err := reader.Select(ctx, points, log.Epochs(streams), recovery.Selector{At: at})
	if err != nil {
		w.t.Fatal(err)
	}
	account := cluster.Account(w.t)
	place := account.Dir(w.t)
	data, archive := filepath.Join(place, "data"), filepath.Join(place, "archive")
	if err := os.Mkdir(archive, 0o755); err != nil {
		w.t.Fatal(err)
	}
	for _, m := range manifests {
		if m.Sequence == chosen.Point.Sequence {
			w.layOut(repo, m, data)
		}
	}
	if chosen.Log != nil {
		w.unpack(reader, streams, log.RangeOf(*chosen.Log), archive)
	}
	account.Give(w.t, archive)
	if err := os.Remove(filepath.Join(data, "standby.signal")); err != nil && !errors.Is(err, os.ErrNotExist) { // of a standby that was backed up
		w.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "recovery.signal"), nil, 0o600); err != nil {
		w.t.Fatal(err)
	}
	s := cluster.Open(w.t, data, cluster.Options{Config: map[string]string{
		"restore_command": "cp " + archive + "/%f %p", "recovery_target_timeline": "latest", "primary_conninfo": "", "primary_slot_name": "",
	}})
	for end := time.Now().Add(limit); s.Psql("SELECT pg_is_in_recovery()") != "f"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatal("recovery does not end")
		}
	}
	return s
}

// layOut writes the files of a snapshot.
func (w *world) layOut(repo *repository.Repository, m *repository.Stored, dir string) {
	w.t.Helper()
	ctx := context.Background()
	snap, err := repo.Snapshot(ctx, m)
	if err != nil {
		w.t.Fatal(err)
	}
	root, err := snap.Root(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	// Small files share chunks: each is read once.
	chunks := map[snapshot.Ref][]byte{}
	content := func(e *snapshot.Entry) (out []byte, err error) {
		err = snap.Extents(ctx, e, func(x snapshot.Extent) error {
			plain := chunks[x.Ref]
			if plain == nil {
				var err error
				if plain, err = snap.Chunk(ctx, snapshot.Content, x.Ref); err != nil {
					return err
				}
				chunks[x.Ref] = slices.Clone(plain)
			}
			out = append(out, plain[x.Offset:uint64(x.Offset)+x.Length]...)
			return nil
		})
		return out, err
	}
	at := func(p string) string { return filepath.Join(dir, strings.TrimPrefix(p, root.Roots[0])) }
	for e, err := range snap.Entries(ctx, "") {
		if err != nil {
			w.t.Fatal(err)
		}
		if !strings.HasPrefix(e.Path, root.Roots[0]) {
			continue // directories above
		}
		if e.Type == snapshot.Directory {
			err = os.MkdirAll(at(e.Path), 0o700)
		}
		if e.Type == snapshot.File {
			var b []byte
			if b, err = content(e); err == nil {
				err = os.WriteFile(at(e.Path), b, 0o600)
			}
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// unpack makes files of pg_wal of the records of a log.
func (w *world) unpack(reader *log.Reader, streams []log.Stream, rg log.Range, archive string) {
	w.t.Helper()
	heads := map[string]*log.Epoch{}
	for _, s := range streams {
		for _, e := range s.Epochs {
			heads[s.ID] = e
		}
	}
	var at time.Time
	files := map[string]int64{}
	for rec, err := range reader.Records(context.Background(), rg) {
		if err != nil {
			w.t.Fatal(err)
		}
		if rec.Time.Before(at) {
			w.t.Fatalf("record %d of %s is older than the one before it, of %s", rec.Sequence, rec.Time, at)
		}
		at = rec.Time
		head := heads[rec.Place.Stream].Described.Postgres
		if rec.History != nil {
			name := filepath.Join(archive, postgres.HistoryName(rec.History.Timeline))
			if err := os.WriteFile(name, rec.History.Content, 0o644); err != nil {
				w.t.Fatal(err)
			}
			continue
		}
		name := postgres.SegmentName(head.Timeline, rec.WAL.Start, head.SegmentSize)
		f, err := os.OpenFile(filepath.Join(archive, name), os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			w.t.Fatal(err)
		}
		_, err = f.WriteAt(rec.WAL.Bytes, int64(rec.WAL.Start-rec.WAL.Start.SegmentStart(head.SegmentSize)))
		if err := errors.Join(err, f.Close()); err != nil {
			w.t.Fatal(err)
		}
		files[name] = int64(head.SegmentSize)
	}
	for name, size := range files {
		if err := os.Truncate(filepath.Join(archive, name), size); err != nil {
			w.t.Fatal(err)
		}
	}
}

// rows are what a server has.
func (w *world) rows(s *cluster.Server) map[string]bool {
	w.t.Helper()
	out := map[string]bool{}
	for _, row := range strings.Fields(s.Psql("SELECT client || '|' || n FROM acked")) {
		out[row] = true
	}
	return out
}

// wantRows wants rows of a restored server, and stops it.
func (w *world) wantRows(s *cluster.Server, want map[string]bool) {
	w.t.Helper()
	got := w.rows(s)
	missing := 0
	for row := range want {
		if !got[row] {
			if missing++; missing < 5 {
				w.t.Errorf("row %s was acknowledged and durable, and is not there", row)
			}
		}
	}
	if missing > 0 {
		w.t.Fatalf("%d rows of %d are missing, of %d that are there", missing, len(want), len(got))
	}
	s.Stop("immediate") // its time is others' time
}

// wantSound wants that a restored server has no damaged index.
func wantSound(s *cluster.Server) {
	s.Psql("CREATE EXTENSION amcheck; SELECT bt_index_check(c.oid) FROM pg_class c JOIN pg_am a ON a.oid = c.relam AND a.amname = 'btree' WHERE c.relkind = 'i' AND c.relpersistence = 'p'")
}
