package compat_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/source/sqlite"
	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/prune"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/retention"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// goldenTime is when the logs of the golden repository begin. Its place says that it is a copy, so that it does not matter
// that their snapshots have arrived later than they were finished.
var goldenTime = time.Date(2026, 11, 20, 8, 0, 0, 123_456_789, time.UTC)

// logs makes a log of a database and one of a cluster.
func (m *maker) logs(t *testing.T) {
	must(t, os.WriteFile(filepath.Join(m.repository(), layout.CopyKey), []byte("a copy\n"), 0o600))
	m.open(t)
	m.database(t)
	m.cluster(t)
	m.parts(t)
}

// parts makes a chain of which the newest snapshot leaves a pack out.
func (m *maker) parts(t *testing.T) {
	o := m.begin(snapshot.Source{Host: "one", Name: "parts"}, "files", goldenTime)
	all := []thing{dirAt("/srv")}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		all = append(all, fileAt("/srv/"+name, strings.Repeat("part "+name+"\n", 30)))
		m.put(t, m.repo, o, "/srv", repository.Result{}, all)
	}
	m.put(t, m.repo, o, "/srv", repository.Result{}, slices.Delete(slices.Clone(all), 2, 3))
}

// database makes a log of a database: epochs that follow each other and fork, a segment, a transaction of several records,
// and snapshots at two places.
func (m *maker) database(t *testing.T) {
	m.db = snapshot.Source{Host: "one", Name: "db"}
	states := filepath.Join(m.dir, "states")
	must(t, os.Mkdir(states, 0o755))
	m.script(t, "golden.py", states)
	file := func(branch string, n int) []byte {
		b, err := os.ReadFile(filepath.Join(states, fmt.Sprintf("%s-%02d", branch, n)))
		must(t, err)
		return b
	}
	l := &logWriter{repo: m.repo, src: m.db, now: goldenTime}
	first := l.open(t, "", 0, nil)
	m.capture(t, l, file("main", 0), log.Place{Stream: first.Stream()})
	at := m.db.Name + "@1"
	follow := func(w *log.Writer, branch string, from, to int, before []byte) (last log.Place) {
		for n := from; n <= to; n++ {
			after := file(branch, n)
			last = l.commit(t, w, before, after)
			m.state(fmt.Sprintf("one/%s", at), last, after)
			before = after
			if n == 12 {
				m.capture(t, l, after, last)
				at = m.db.Name + "@2"
			}
			switch {
			case branch == "main" && n == 24: // nothing tells what came after it, until the fork
				m.expected.Moments = append(m.expected.Moments, moment{m.db.String(), l.now, sum(after)})
			case branch == "fork" || n == 8 || n == 23:
				m.expected.Moments = append(m.expected.Moments, moment{m.db.String(), l.now.Add(700 * time.Millisecond), sum(after)})
			}
		}
		return last
	}
	fork := follow(first, "main", 1, 18, file("main", 0))
	if n, err := first.Join(t.Context(), 0); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	left := follow(first, "main", 19, 20, file("main", 18))
	follow(l.open(t, first.Stream(), 1, &left), "main", 21, 24, file("main", 20))
	// A restart that did not know of the last records: from here on, its branch counts.
	l.now = l.now.Add(time.Minute)
	follow(l.open(t, first.Stream(), 3, &fork), "fork", 19, 21, file("main", 18))
	m.cut(t, l, file("main", 3), file("main", 4))
}

// capture makes a snapshot of a database that holds the log up to a place.
func (m *maker) capture(t *testing.T, l *logWriter, content []byte, at log.Place) {
	t.Helper()
	l.now = l.now.Add(100 * time.Millisecond)
	path := filepath.Join(m.dir, "db", "app.db")
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, content, 0o640))
	s, err := m.repo.Begin(t.Context(), m.begin(m.db, "sqlite", l.now))
	must(t, err)
	r, err := sqlite.Capture(t.Context(), sqlite.Options{Path: path, Temp: t.TempDir()}, s, nil, silent{})
	must(t, err)
	_, err = s.Commit(t.Context(), repository.Result{Roots: r.Roots, Counts: r.Counts, Started: l.now, Log: &at})
	must(t, err)
}

func (m *maker) begin(src snapshot.Source, kind string, now time.Time) repository.BeginOptions {
	return repository.BeginOptions{Source: src, Kind: kind, State: filepath.Join(m.dir, "state"), Tool: "golden", Now: func() time.Time { return now }}
}

// silent is told how a capture gets on.
type silent struct{}

func (silent) Add(_, _, _ uint64) {}
func (silent) Current(string)     {}

// commit stores what has changed between two states of a database as one record.
func (l *logWriter) commit(t *testing.T, w *log.Writer, before, after []byte) log.Place {
	t.Helper()
	const page = 4096
	l.now = l.now.Add(1500 * time.Millisecond)
	each := func(yield func(uint32, []byte) error) error {
		for at := 0; at < len(after); at += page {
			now := after[at : at+page]
			if at+page <= len(before) && bytes.Equal(before[at:at+page], now) {
				continue
			}
			if err := yield(uint32(at/page+1), now); err != nil { //nolint:gosec // small
				return err
			}
		}
		return nil
	}
	place, err := w.Append(t.Context(), log.Record{Time: l.now, PageSize: page, Pages: uint32(len(after) / page), Position: []byte("golden"), Each: each}) //nolint:gosec // small
	must(t, err)
	return place
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

func (m *maker) state(from string, at log.Place, content []byte) {
	m.expected.States = append(m.expected.States, state{Snapshot: from, Stream: at.Stream, Epoch: at.Epoch, Sequence: at.Sequence, Database: sum(content)})
}

// cut makes a stream of which retention has removed the beginning, and has announced more; and a record of damage in it.
func (m *maker) cut(t *testing.T, l *logWriter, a, b []byte) {
	t.Helper()
	w := l.open(t, "", 0, nil)
	for range 3 {
		l.commit(t, w, a, b)
		l.commit(t, w, b, a)
	}
	put := func(key string, v any) { must(t, m.repo.PutDocument(t.Context(), key, v)) }
	put(layout.ExpiredLogKey(m.db, w.Stream(), 1, 3), record.LogCut{Stream: w.Stream(), Epoch: 1, Sequence: 3, Time: l.now})
	for n := uint64(1); n <= 3; n++ {
		must(t, m.repo.Store().Delete(t.Context(), layout.LogKey(m.db, layout.LogObject{Stream: w.Stream(), Epoch: 1, First: n, Last: n})))
	}
	put(layout.CondemnedLogKey(m.db, w.Stream(), 1, 4), record.LogCut{Stream: w.Stream(), Epoch: 1, Sequence: 4, Time: l.now})
	bad := layout.LogObject{Stream: w.Stream(), Epoch: 1, First: 2, Last: 2}
	put(layout.DamagedLogKey(m.db, bad), record.LogDamaged{Stream: w.Stream(), Epoch: 1, First: 2, Last: 2, Time: l.now, Problem: "it was missing"})
}

// thing is an entry of a snapshot that is written by hand; content of files.
type thing struct {
	snapshot.Entry
	content string
}

// put makes a snapshot of things by hand.
func (m *maker) put(t *testing.T, repo *repository.Repository, o repository.BeginOptions, root string, result repository.Result, things []thing) {
	t.Helper()
	s, err := repo.Begin(t.Context(), o)
	must(t, err)
	var nodes []node
	for i := range things {
		e := things[i].Entry
		e.UID, e.GID, e.User, e.Group = 105, 113, "postgres", "postgres"
		if e.Type == snapshot.File {
			result.Counts.Files++
			e.Size, e.Mode = uint64(len(things[i].content)), 0o600
			for at := 0; at < len(things[i].content); at += 8192 { // a chunk for each page, so that pages that are the same are shared
				ref, err := s.Chunk(t.Context(), snapshot.Content, []byte(things[i].content[at:min(at+8192, len(things[i].content))]))
				must(t, err)
				e.Extents = append(e.Extents, snapshot.Extent{Ref: ref, Length: uint64(ref.Plain)})
			}
		} else {
			result.Counts.Directories++
			e.Type, e.Mode = snapshot.Directory, 0o700
		}
		result.Counts.Bytes += e.Size
		must(t, s.Emit(t.Context(), &e))
		nodes = append(nodes, nodeOf(&e, sum([]byte(things[i].content)), nil))
	}
	result.Roots, result.Started = []string{root}, o.Now()
	stored, err := s.Commit(t.Context(), result)
	must(t, err)
	m.expected.Snapshots[stored.ID().String()] = nodes
}

func fileAt(path, content string) thing {
	return thing{snapshot.Entry{Path: path, Type: snapshot.File, MTime: snapshot.Time{Sec: goldenTime.Unix(), Nsec: 5}}, content}
}

func dirAt(path string) thing { return thing{Entry: snapshot.Entry{Path: path}} }

// walFiles are the files that WAL makes, by their names.
type walFiles map[string][]byte

func (f walFiles) add(timeline uint32, start postgres.LSN, content []byte) {
	const segment = 1 << 20
	number, at := uint64(start)/segment, int(uint64(start)%segment) //nolint:gosec // small
	name := fmt.Sprintf("%08X%08X%08X", timeline, number/4096, number%4096)
	b := append(f[name], make([]byte, max(0, at+len(content)-len(f[name])))...)
	copy(b[at:], content)
	f[name] = b
}

func (f walFiles) sums() map[string]string {
	out := map[string]string{}
	for name, b := range f {
		out[name] = sum(b)
	}
	return out
}

// cluster makes a log of WAL over two timelines, and base backups that it goes on from. What is in them is made up: a
// real cluster is too large.
func (m *maker) cluster(t *testing.T) {
	m.pg = snapshot.Source{Host: "one", Name: "pg"}
	l := &logWriter{repo: m.repo, src: m.pg, now: goldenTime}
	var files walFiles
	var base string
	wal := func(w *log.Writer, timeline uint32, from, to postgres.LSN) log.Place {
		content := []byte(strings.Repeat(fmt.Sprintf("WAL from %s on, made up. ", from), int(to-from)/20))[:to-from] //nolint:gosec // small
		at := l.put(t, w, log.Record{WAL: &log.WAL{Start: from, Bytes: content}})
		if base != "" {
			files.add(timeline, from, content)
			m.expected.States = append(m.expected.States, state{Snapshot: base, Stream: at.Stream, Epoch: at.Epoch, Sequence: at.Sequence, WAL: files.sums()})
		}
		return at
	}
	first := l.openWAL(t, 1, "", 0, nil)
	at := wal(first, 1, 0x16_00100000, 0x16_00180000)
	m.base(t, l, at, 1)
	base, files = "one/pg@1", walFiles{}
	wal(first, 1, 0x16_00180000, 0x16_00200000)
	at = wal(first, 1, 0x16_00200000, 0x16_00230000)
	if n, err := first.Join(t.Context(), 2); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	for n := uint64(1); n <= 3; n++ { // as retention does, which has proven that the segment has them
		must(t, m.repo.Store().Delete(t.Context(), layout.LogKey(m.pg, layout.LogObject{Stream: first.Stream(), Epoch: 1, First: n, Last: n})))
	}
	at = wal(l.openWAL(t, 1, first.Stream(), 1, &at), 1, 0x16_00230000, 0x16_00280000)
	m.base(t, l, at, 2)
	base, files = "one/pg@2", walFiles{}
	next := l.openWAL(t, 2, "", 0, &at)
	history := []byte("1\t16/27F000\tno recovery target specified\n")
	l.put(t, next, log.Record{History: &log.History{Timeline: 2, Content: history}})
	files["00000002.history"] = history
	wal(next, 2, 0x16_00200000, 0x16_00300000)
	wal(next, 2, 0x16_00300000, 0x16_00312345)
}

// base makes a base backup; a page of it is another one each time.
func (m *maker) base(t *testing.T, l *logWriter, at log.Place, n uint64) {
	t.Helper()
	l.now = l.now.Add(time.Second)
	const root = "/var/lib/postgresql/15/main"
	table := strings.Repeat("a page of a table, made up. ", 1200)[:32768]
	table = table[:8192] + fmt.Sprintf("changed by %08d", n) + table[8192+19:]
	label := fmt.Sprintf("START WAL LOCATION: 16/%d00028 (file 00000001000000160000000%d)\nSTART TIMELINE: 1\n", n, n)
	things := []thing{
		dirAt(root), fileAt(root+"/PG_VERSION", "15\n"), fileAt(root+"/backup_label", label), fileAt(root+"/backup_manifest", `{"PostgreSQL-Backup-Manifest-Version": 1}`),
		dirAt(root + "/base"), dirAt(root + "/base/5"), fileAt(root+"/base/5/16384", table), dirAt(root + "/global"), fileAt(root+"/global/pg_control", strings.Repeat("\x01\x00", 4096)),
		dirAt(root + "/pg_tblspc"), dirAt(root + "/pg_tblspc/16400"), dirAt(root + "/pg_tblspc/16400/PG_15_202209061"), dirAt(root + "/pg_wal"), fileAt(root+"/tablespace_map", "16400 /srv/space\n"),
	}
	start := postgres.LSN(0x16_00000028 + n<<20)
	m.put(t, m.repo, m.begin(m.pg, "postgres", l.now), root, repository.Result{Log: &at, Postgres: &snapshot.Postgres{
		System: 1<<64 - 2, Version: "15.18 (Debian 15.18-0+deb12u1)", Timeline: 1, SegmentSize: 1 << 20, Start: start, Stop: start + 0x100,
	}}, things)
}

// removals makes what retention leaves behind: an announcement, and a record of a removal.
func (m *maker) removals(t *testing.T) {
	src := snapshot.Source{Host: "one", Name: "files"}
	run := func(n uint64, wait time.Duration) {
		o := prune.Options{
			Decisions: []retention.Decision{{Sequence: n, Reasons: []string{"no rule keeps it"}}}, Force: true, Wait: wait, Age: time.Nanosecond, Now: time.Now,
		}
		_, err := prune.Run(t.Context(), m.repo, src, o)
		must(t, err)
	}
	run(2, time.Nanosecond)
	run(2, time.Nanosecond)
	m.mustRun(t, "unpin", "files@1") // what is announced is not pinned
	run(1, prune.Wait)
}

// otherHost lets the agent of another host make a snapshot, with a signer that may do no more than that.
func (m *maker) otherHost(t *testing.T, repo *repository.Repository) {
	o := m.begin(snapshot.Source{Host: "two", Name: "etc"}, "files", goldenTime)
	m.put(t, repo, o, "/etc", repository.Result{Tags: []string{"of host two"}}, []thing{dirAt("/etc"), fileAt("/etc/hostname", "two\n")})
}

// cloud lets a signer that may do nothing else sign a receipt of the control plane, and that a pack failed a check.
func (m *maker) cloud(t *testing.T) {
	repo := m.signer(t, "verifier", "*", "receipts/cloud,damaged")
	src := snapshot.Source{Host: "one", Name: "db"}
	stored, err := repo.Manifest(t.Context(), snapshot.ID{Source: src, Sequence: 2})
	must(t, err)
	reached := goldenTime.Add(time.Minute)
	must(t, repo.PutDocument(t.Context(), layout.ReceiptKey(stored.ID(), layout.ReceiptCloud, goldenTime, "restore"), record.Receipt{
		Sequence: 2, Manifest: stored.Hash.String(), Level: "restore", Result: record.Pass, Started: goldenTime, Finished: reached, Bytes: 4096,
		Problems: []string{}, Copy: "s3://bucket/prefix", Reached: &reached, Records: 3,
		Steps: []record.Step{{Name: "build", Result: record.Pass, Seconds: 1.25}, {Name: "prove", Result: record.Pass, Seconds: 0.5}},
	}))
	must(t, repo.PutDocument(t.Context(), layout.DamagedKey(src, snapshot.Hash{7}), record.Damaged{
		Pack: snapshot.Hash{7}.String(), Chain: stored.Chain, Time: goldenTime, Problem: "its bytes do not match its name",
	}))
}

// fakeKMS stands for AWS KMS, which nobody who reads the golden repository can ask.
type fakeKMS struct{}

func (fakeKMS) Encrypt(_ context.Context, _ string, _ []byte, _ map[string]string) ([]byte, error) {
	return []byte("what only the service opens"), nil
}

func (fakeKMS) Decrypt(context.Context, string, []byte, map[string]string) ([]byte, error) {
	return nil, keyring.ErrNoKMS
}

// kms makes a snapshot that is sealed for a key of KMS too, which is removed again.
func (m *maker) kms(t *testing.T) {
	const arn = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	m.open(t)
	must(t, m.repo.ChangeAccess(t.Context(), func(a *repository.Access) error {
		a.Recipients = append(a.Recipients, repository.AccessRecipient{Type: keyring.TypeKMS, Recipient: arn})
		return nil
	}))
	m.identity.UseKMS(fakeKMS{})
	o := m.begin(snapshot.Source{Host: "one", Name: "kms"}, "files", goldenTime)
	m.put(t, m.repo, o, "/srv", repository.Result{}, []thing{dirAt("/srv"), fileAt("/srv/file", "sealed for a key of KMS too\n")})
	m.mustRun(t, "key", "remove", "--quiet", arn)
}

// entriesOf describes what is in a snapshot.
func entriesOf(t *testing.T, repo *repository.Repository, m *repository.Stored) []node {
	t.Helper()
	s, err := repo.Snapshot(t.Context(), m)
	must(t, err)
	first := map[[2]uint64]string{}
	var out []node
	for e, err := range s.Entries(t.Context(), "") {
		must(t, err)
		h := sha256.New()
		must(t, s.Extents(t.Context(), e, func(x snapshot.Extent) error {
			if x.Hole {
				h.Write(make([]byte, x.Length))
				return nil
			}
			plain, err := s.Chunk(t.Context(), snapshot.Content, x.Ref)
			if err == nil {
				h.Write(plain[x.Offset:][:x.Length])
			}
			return err
		}))
		out = append(out, nodeOf(e, hex.EncodeToString(h.Sum(nil)), first))
	}
	return out
}
