package compat_test

import (
	"context"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/hostagent/restorer"
	"github.com/btcdecoded/holdfast/hostagent/restorer/sqlite"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/test/trees"
)

// testGolden reads the golden repository with both programs, and adds to a copy of it.
func testGolden(t *testing.T, p programs) {
	e := readExpected(t)
	b := goldenBench(t, p, "identity")
	wantAllKinds(t, objects{b.repository()})
	for _, level := range []string{"structure", "bytes", "content"} {
		if out, code := b.run(t, "verify", "--level", level, "--no-receipts"); code != 0 {
			t.Errorf("verify --level %s: exit code %d\n%s", level, code, out)
		}
	}
	t.Run("snapshots", func(t *testing.T) { b.goldenSnapshots(t, e) })
	t.Run("states", func(t *testing.T) { b.goldenStates(t, e) })
	t.Run("moments", func(t *testing.T) { b.goldenMoments(t, e) })
	t.Run("reader", func(t *testing.T) { b.goldenReader(t, e) })
	t.Run("second identity", func(t *testing.T) {
		second := goldenBench(t, p, "second-identity")
		if out, code := second.run(t, "verify", "--level", "content", "--no-receipts"); code != 0 {
			t.Errorf("exit code %d\n%s", code, out)
		}
	})
	t.Run("goes on", func(t *testing.T) { testGoesOn(t, goldenBench(t, p, "identity"), e) })
}

// wantAllKinds checks that there is at least one of each kind of object, and of what documents may have or not.
func wantAllKinds(t *testing.T, o objects) {
	t.Helper()
	for _, part := range []string{
		"repository.json", "access/copy", "access/0000000002", "/snapshots/", "/keys/", "/packs/", "/lists/", "/receipts/cloud/", "/receipts/host/", "-key-",
		"/marks/", "/condemned/0", "/expired/0", "/head.json", "/joined/", "/condemned/log/", "/expired/log/", "/damaged/log/",
	} {
		o.keys(t, part)
	}
	var documents strings.Builder
	for _, key := range o.keys(t, ".json") {
		documents.Write(o.read(t, key))
	}
	for _, member := range []string{
		`"type":"full"`, `"type":"differential"`, `"type":"incremental"`, `"type":"kms"`, `"recipient":"age1pq1`, `"without":[`, `"report":{`, `"unfinished":true`,
		`"tags":[`, `"log":{`, `"postgres":{`, `"continues":{`, `"only":[`, `"until":"`, `"ends":"`, `"reached":"`, `"steps":[`, `"mark":"hold"`, `"mark":"pin"`, `"mark":"tag"`,
		`"kind":"sqlite"`, `"kind":"files"`, `"kind":"postgres"`, `"features":[]`,
	} {
		if !strings.Contains(documents.String(), member) {
			t.Errorf("no document has %s", member)
		}
	}
}

// goldenBench returns a bench with a copy of the golden repository, and one of its identities.
func goldenBench(t *testing.T, p programs, identity string) bench {
	t.Helper()
	b := bench{programs: p, dir: trees.TempDir(t)}
	must(t, os.CopyFS(filepath.Join(b.dir, "repository"), os.DirFS(filepath.Join(golden, "repository"))))
	secret, err := os.ReadFile(filepath.Join(golden, identity))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(b.dir, "identity"), secret, 0o600))
	return b
}

// goldenSnapshots compares each snapshot with what was put into it, as it is read and as it is restored.
func (b bench) goldenSnapshots(t *testing.T, e expected) {
	repo := newLogWriter(t, b).repo
	sources, err := repo.Sources(t.Context())
	must(t, err)
	var names []string
	for _, src := range sources {
		manifests, err := repo.Manifests(t.Context(), src)
		must(t, err)
		for _, m := range manifests {
			names = append(names, m.ID().String())
			for _, d := range differences(e.Snapshots[m.ID().String()], entriesOf(t, repo, m)) {
				t.Errorf("%s: %s", m.ID(), d)
			}
			target := filepath.Join(b.dir, "restored", m.ID().String())
			s, err := repo.Snapshot(t.Context(), m)
			must(t, err)
			_, err = restorer.Restore(t.Context(), s, restorer.Options{Target: target, Workers: 1}, nil)
			must(t, err)
			compareRestored(t, m.ID().String(), target, e.Snapshots[m.ID().String()])
		}
	}
	slices.Sort(names)
	if diff := cmp.Diff(e.names(), names); diff != "" {
		t.Errorf("snapshots: %s", diff)
	}
}

// compareRestored compares what was restored with nodes of a snapshot with one root: all of it as root, else what any user
// may restore.
func compareRestored(t *testing.T, name, target string, want []node) {
	t.Helper()
	root := want[0].path()
	if want[0]["type"] != "d" {
		root = filepath.Dir(root)
	}
	nodes, err := trees.Read(target)
	must(t, err)
	there := map[string]node{}
	for _, n := range nodesOf(root, nodes) {
		there[n.path()] = n
	}
	for _, n := range want {
		got, ok := there[n.path()]
		members := []string{"type", "size", "sha256", "target", "linked"}
		switch {
		case !ok && n["type"] == "s":
			continue // nobody listens there any more: Holdfast leaves it out
		case os.Geteuid() == 0:
			members = append(members, "mode", "uid", "gid", "mtime", "rdev", "xattrs")
		case !ok && (n["type"] == "c" || n["type"] == "b"):
			continue
		}
		for _, member := range members {
			if member == "mtime" && filepath.Base(n.path()) == "future" {
				continue // not all file systems can
			}
			if have, due := fmt.Sprint(node{"x": got[member]}), fmt.Sprint(node{"x": n[member]}); have != due {
				t.Errorf("%s: restored, %q has %s %s, want %s", name, n.path(), member, have, due)
			}
		}
	}
}

// goldenStates restores the state after each record.
func (b bench) goldenStates(t *testing.T, e expected) {
	repo := newLogWriter(t, b).repo
	for i, s := range e.States {
		id, err := snapshot.ParseID(s.Snapshot)
		must(t, err)
		m, err := repo.Manifest(t.Context(), id)
		must(t, err)
		streams, err := log.Streams(t.Context(), repo, id.Source)
		must(t, err)
		records := log.NewReader(repo, id.Source, streams).Records(t.Context(), log.Range{
			From: *m.Log, Through: log.Place{Stream: s.Stream, Epoch: s.Epoch, Sequence: s.Sequence},
		})
		if s.WAL != nil {
			if diff := cmp.Diff(s.WAL, walOf(t, records, streams)); diff != "" {
				t.Errorf("%s: %s", s, diff)
			}
			continue
		}
		path := filepath.Join(b.dir, fmt.Sprintf("state-%d", i))
		_, err = sqlite.ToFile(t.Context(), path, func(context.Context) (*sqlite.Source, error) { return sourceOf(t, repo, m, records) }, sqlite.Options{})
		must(t, err)
		content, err := os.ReadFile(path)
		must(t, err)
		if sum(content) != s.Database {
			t.Errorf("%s: the database is another one", s)
		}
	}
}

// sourceOf is what a database is built from.
func sourceOf(t *testing.T, repo *repository.Repository, m *repository.Stored, records iter.Seq2[*log.Record, error]) (*sqlite.Source, error) {
	base, err := repo.Snapshot(t.Context(), m)
	must(t, err)
	src := &sqlite.Source{Base: base, Time: m.Finished}
	for e, err := range base.Entries(t.Context(), "") {
		must(t, err)
		src.Entry = e
	}
	src.Records = func(yield func(sqlite.Record, error) bool) {
		for r, err := range records {
			if err != nil {
				yield(sqlite.Record{}, err)
				return
			}
			if !yield(sqlite.Record{Time: r.Time, More: r.More, PageSize: r.PageSize, Pages: r.Pages, Each: r.Each}, nil) {
				return
			}
		}
	}
	return src, nil
}

// walOf returns the sums of the files that records of WAL make.
func walOf(t *testing.T, records iter.Seq2[*log.Record, error], streams []log.Stream) map[string]string {
	t.Helper()
	timelines := map[string]uint32{}
	for _, s := range streams {
		timelines[s.ID] = s.Epochs[0].Described.Postgres.Timeline
	}
	files := walFiles{}
	for r, err := range records {
		must(t, err)
		if r.History != nil {
			files[fmt.Sprintf("%08X.history", r.History.Timeline)] = r.History.Content
			continue
		}
		files.add(timelines[r.Place.Stream], r.WAL.Start, r.WAL.Bytes)
	}
	return files.sums()
}

// goldenMoments restores databases by time, as a user does.
func (b bench) goldenMoments(t *testing.T, e expected) {
	for i, m := range e.Moments {
		path := filepath.Join(b.dir, fmt.Sprintf("moment-%d", i))
		if out, code := b.run(t, "restore", m.Source, "--at", m.At.Format(time.RFC3339Nano), "--to", path); code != 0 {
			t.Errorf("%s: exit code %d\n%s", m.At, code, out)
			continue
		}
		content, err := os.ReadFile(path)
		must(t, err)
		if sum(content) != m.Database {
			t.Errorf("%s at %s is another database", m.Source, m.At)
		}
	}
}

// goldenReader lets the reader do all of it once more.
func (b bench) goldenReader(t *testing.T, e expected) {
	dir := filepath.Join(b.dir, "read")
	identity := filepath.Join(b.dir, "identity")
	b.script(t, "goldencheck.py", b.repository(), identity, filepath.Join(golden, "expected.json"), dir)
	for _, name := range e.names() {
		compareRestored(t, name, filepath.Join(dir, name), e.Snapshots[name])
	}
	s := e.States[0]
	path := filepath.Join(b.dir, "one-state")
	out, code := b.read(t, "state", s.Snapshot, s.Stream, fmt.Sprint(s.Epoch), fmt.Sprint(s.Sequence), path)
	if content, err := os.ReadFile(path); code != 0 || err != nil || sum(content) != s.Database {
		t.Errorf("state: exit code %d, %v\n%s", code, err, out)
	}
}

// testGoesOn adds to a copy of the golden repository what a program of today writes: an older snapshot stays what it is,
// and all of it verifies.
func testGoesOn(t *testing.T, b bench, e expected) {
	must(t, os.MkdirAll(b.tree(), 0o700))
	for i, kind := range []string{"incremental", "full", "differential", "incremental"} {
		b.script(t, "golden.py", filepath.Join(b.tree(), "database"), fmt.Sprint(i+1))
		write(t, filepath.Join(b.tree(), "sparse"), int64(i)<<22, random(uint64(i), 1000)) //nolint:gosec // small
		for _, name := range []string{"files", "new"} {
			b.mustRun(t, "backup", "--quiet", "--files", b.tree(), "--name", name, "--type", kind)
		}
	}
	l := newLogWriter(t, b)
	l.src = snapshot.Source{Host: "one", Name: "db"}
	last := e.States[len(e.States)-1]
	for _, s := range e.States {
		if s.Database != "" {
			last = s
		}
	}
	m, err := l.repo.Manifest(t.Context(), snapshot.ID{Source: l.src, Sequence: 2})
	must(t, err)
	streams, err := log.Streams(t.Context(), l.repo, l.src)
	must(t, err)
	var at log.Place
	for r, err := range log.NewReader(l.repo, l.src, streams).Records(t.Context(), log.Range{
		From: *m.Log, Through: log.Place{Stream: last.Stream, Epoch: last.Epoch, Sequence: last.Sequence},
	}) {
		must(t, err)
		at = r.Place
	}
	l.now = time.Now().UTC()
	w := l.open(t, last.Stream, last.Epoch, &at)
	l.append(t, w, 4096, 1, 3)
	if out, code := b.run(t, "verify", "--level", "content", "--no-receipts"); code != 0 {
		t.Errorf("verify: exit code %d\n%s", code, out)
	}
	if out, code := b.read(t, "verify"); code != 0 || out != "" {
		t.Errorf("the reader finds, with exit code %d:\n%s", code, out)
	}
	for _, name := range []string{"one/files@3", "one/long@1"} {
		out, code := b.read(t, "entries", name)
		if code != 0 || len(strings.Split(strings.TrimSpace(out), "\n")) != len(e.Snapshots[name]) {
			t.Errorf("entries %s: exit code %d\n%s", name, code, out)
		}
	}
}
