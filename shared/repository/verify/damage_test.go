package verify_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// everything makes a repository that has objects of all kinds, two at least of each.
func everything(t *testing.T) *repotest.Fixture {
	f := history(t)
	for _, key := range repotest.Keys(f.Store, "/packs/")[:2] {
		i := strings.LastIndex(key, "/")
		chain := key[i-32 : i]
		pack, err := layout.ParseHash(key[i+1:])
		if err != nil {
			t.Fatal(err)
		}
		put(t, f, layout.DamagedKey(f.Source, pack), record.Damaged{Pack: pack.String(), Chain: chain, Time: f.Now, Problem: "test"})
		f.Store.SetModified(key, f.Now.Add(time.Hour)) // repaired
	}
	for n := uint64(1); n <= 4; n++ {
		m, err := f.Repo.Manifest(t.Context(), f.ID(n))
		if err != nil {
			t.Fatal(err)
		}
		hash := m.Hash.String()
		mark := fmt.Sprintf("%032x", n)
		put(t, f, layout.MarkKey(f.ID(n), mark), record.Mark{Sequence: n, Manifest: hash, Mark: record.Pin, Time: f.Now})
		put(t, f, layout.CondemnedKey(f.ID(n)), record.Condemned{Sequence: n, Manifest: hash, Time: f.Now})
		put(t, f, layout.ReceiptKey(f.ID(n), layout.ReceiptHost, f.Now, "bytes"), record.Receipt{Sequence: n, Manifest: hash, Level: "bytes"})
		if n <= 2 {
			put(t, f, layout.ExpiredKey(f.ID(n)), record.Expired{Sequence: n, Manifest: hash, Previous: m.Previous, Time: f.Now})
		}
	}
	f.Store.Tamper(layout.ManifestKey(f.ID(1)), nil)
	f.Store.Tamper(layout.CondemnedKey(f.ID(1)), nil)
	wantOK(t, run(t, f, f.Store, verify.Options{Level: verify.Content}))
	return f
}

func put(t *testing.T, f *repotest.Fixture, key string, v any) {
	t.Helper()
	if err := f.Repo.PutDocument(t.Context(), key, v); err != nil {
		t.Fatal(err)
	}
}

// kinds of objects below a source, and whether the removal of one shows. What nothing names can vanish unnoticed.
var kinds = map[string]bool{
	"/snapshots/": true, "/keys/": true, "/packs/": true, "/lists/": true, "/expired/": true,
	"/marks/": false, "/condemned/": false, "/receipts/": false, "/damaged/": false,
}

// TestEveryDamageIsFoundAndNamed damages each object in each way.
func TestEveryDamageIsFoundAndNamed(t *testing.T) {
	f := everything(t)
	for kind, removalShows := range kinds {
		t.Run(strings.Trim(kind, "/"), func(t *testing.T) {
			keys := repotest.Keys(f.Store, kind)
			if len(keys) < 2 {
				t.Fatalf("%d objects of this kind", len(keys))
			}
			for i, key := range keys {
				damageOne(t, f, key, keys[(i+1)%len(keys)], removalShows)
			}
		})
	}
}

func damageOne(t *testing.T, f *repotest.Fixture, key, other string, removalShows bool) {
	t.Helper()
	good, _ := f.Store.Object(key)
	flips := map[string][]byte{
		"truncated by one byte": good[:len(good)-1],
		"truncated to nothing":  {},
		"longer":                append(good[:len(good):len(good)], 0),
	}
	for i := range 5 {
		b := append([]byte(nil), good...)
		at := (len(b) - 1) * i / 4
		b[at] ^= 1 << (3 * i % 8)
		flips[fmt.Sprintf("bit flipped in byte %d", at)] = b
	}
	for what, b := range flips {
		store := f.Store.Clone()
		store.Tamper(key, b)
		wantFound(t, f, store, what, "", key)
	}
	if removalShows {
		store := f.Store.Clone()
		store.Tamper(key, nil)
		if at, problem := gap(f, key); at != "" {
			wantFound(t, f, store, "removed", problem, at)
		}
	}
	theirs, _ := f.Store.Object(other)
	store := f.Store.Clone()
	store.Tamper(key, theirs)
	problem := verify.Replayed
	if len(theirs) != len(good) && strings.Contains(key, "/packs/") {
		problem = verify.SizeDiffers
	}
	wantFound(t, f, store, "replaced by "+other, problem, key)
	store.Tamper(other, good)
	wantFound(t, f, store, "swapped with "+other, problem, key, other)
}

// gap says where the removal of an object shows, and as what; nowhere for a manifest and a record of its removal of
// which the other is there.
func gap(f *repotest.Fixture, key string) (string, verify.Problem) {
	switch key {
	case layout.ManifestKey(f.ID(2)), layout.ExpiredKey(f.ID(2)):
		return "", ""
	case layout.ExpiredKey(f.ID(1)):
		return layout.ManifestKey(f.ID(1)), verify.Missing
	case layout.ManifestKey(f.ID(4)):
		return key, verify.RolledBack
	}
	return key, verify.Missing
}

// wantFound verifies at level content and wants a finding on each of the keys, and verdicts that agree with a restore.
func wantFound(t *testing.T, f *repotest.Fixture, store *mem.Store, what string, problem verify.Problem, keys ...string) {
	t.Helper()
	expect := map[snapshot.Source]verify.Seen{f.Source: {Sequence: 4}}
	res := run(t, f, store, verify.Options{Level: verify.Content, Expect: expect})
	for _, key := range keys {
		at := find(res, key)
		if at == nil || at.Warning || res.OK() {
			t.Errorf("%s %s: not found; %+v", key, what, res.Findings)
			continue
		}
		if problem != "" && at.Problem != problem {
			t.Errorf("%s %s: %s, want %s", key, what, at.Problem, problem)
		}
	}
	if len(res.Findings) > 3 {
		t.Errorf("%s %s: one damage, %d findings: %+v", keys[0], what, len(res.Findings), res.Findings)
	}
	if needed := []string{"/snapshots/", "/keys/", "/packs/", "/lists/"}; slices.ContainsFunc(needed, func(part string) bool { return strings.Contains(keys[0], part) }) {
		checkAgainstRestore(t, f, store, res, strings.Contains(keys[0], "/packs/"))
	}
}

// TestStructureFindsWhatAListingShows: without reading packs, what is missing, too short or too long is found.
func TestStructureFindsWhatAListingShows(t *testing.T) {
	f := history(t)
	for _, key := range repotest.Keys(f.Store, "/packs/") {
		good, _ := f.Store.Object(key)
		for problem, b := range map[verify.Problem][]byte{verify.Missing: nil, verify.SizeDiffers: good[:len(good)-1]} {
			store := f.Store.Clone()
			store.Tamper(key, b)
			res := run(t, f, store, verify.Options{Level: verify.Structure})
			at := find(res, key)
			if at == nil || at.Problem != problem || len(at.Snapshots) == 0 || at.FileCount == 0 && len(at.Spans) == 0 {
				t.Errorf("%s: %+v", problem, res.Findings)
			}
			checkAgainstRestore(t, f, store, res, false)
		}
	}
}

// TestDamagedRepositoryDocuments: without them a repository does not open, and the error names them.
func TestDamagedRepositoryDocuments(t *testing.T) {
	f := history(t)
	err := f.Repo.ChangeAccess(t.Context(), func(a *repository.Access) error {
		a.Recipients[0].Label = "office"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{layout.RepositoryKey, layout.AccessKey(1), layout.AccessKey(2)} {
		good, _ := f.Store.Object(key)
		for i := range good {
			b := append([]byte(nil), good...)
			b[i] ^= 2
			store := f.Store.Clone()
			store.Tamper(key, b)
			if _, err := repository.Open(t.Context(), store, f.Identity); err == nil || !strings.Contains(err.Error(), key) {
				t.Fatalf("%s, byte %d: %v", key, i, err)
			}
		}
		// Damaged after it was opened.
		store := f.Store.Clone()
		repo := f.Open(t, store)
		store.Tamper(key, good[1:])
		res, err := verify.Run(t.Context(), repo, verify.Options{Level: verify.Structure})
		if err != nil || res.OK() {
			t.Errorf("%s: %v, %+v", key, err, res)
		}
	}
	store := f.Store.Clone()
	repo := f.Open(t, store)
	store.Tamper(layout.AccessKey(2), nil)
	res, err := verify.Run(t.Context(), repo, verify.Options{Level: verify.Structure})
	if at := find(res, layout.AccessKey(2)); err != nil || at == nil || at.Problem != verify.RolledBack {
		t.Errorf("%v, %+v", err, res.Findings)
	}
}

// TestForeignSigner: a document signed by a key that nobody trusts for this host is refused.
func TestForeignSigner(t *testing.T) {
	f := history(t)
	key := layout.ManifestKey(f.ID(3))
	doc, _ := f.Store.Object(key)
	payload, _, err := keyring.Peek(doc)
	if err != nil {
		t.Fatal(err)
	}
	store := f.Store.Clone()
	store.Tamper(key, keyring.Sign(keyring.NewSigner(), f.Repo.ID(), key, payload))
	res := run(t, f, store, verify.Options{Level: verify.Structure})
	at := find(res, key)
	if at == nil || at.Problem != verify.Untrusted || len(at.Snapshots) != 1 || at.Snapshots[0] != f.ID(3) {
		t.Errorf("%+v", res.Findings)
	}
	// The same manifest under the next number: a replay.
	store = f.Store.Clone()
	store.Tamper(layout.ManifestKey(f.ID(5)), doc)
	res = run(t, f, store, verify.Options{Level: verify.Structure})
	if at := find(res, layout.ManifestKey(f.ID(5))); at == nil || at.Problem != verify.Replayed || !strings.Contains(at.Detail, key) {
		t.Errorf("%+v", res.Findings)
	}
}

// TestLyingWriter: a trusted host can sign nonsense; it is found.
func TestLyingWriter(t *testing.T) {
	f := history(t)
	m, err := f.Repo.Manifest(t.Context(), f.ID(4))
	if err != nil {
		t.Fatal(err)
	}
	edits := map[string]func(*snapshot.Manifest){
		"previous":   func(m *snapshot.Manifest) { m.Previous = strings.Repeat("0", 64) },
		"next pack":  func(m *snapshot.Manifest) { m.NextPack = 1 },
		"list bytes": func(m *snapshot.Manifest) { m.Lists[0].Bytes++ },
		"list size":  func(m *snapshot.Manifest) { m.Lists[0].Size++ },
		"root":       func(m *snapshot.Manifest) { m.Root.Offset++ },
		"root id":    func(m *snapshot.Manifest) { m.Root.ID = strings.Repeat("1", 64) },
		"report":     func(m *snapshot.Manifest) { m.Report.Offset++ },
		"without":    func(m *snapshot.Manifest) { m.Without = [][2]uint64{{m.Root.Pack, m.Root.Pack}} },
	}
	for what, edit := range edits {
		changed := *m.Manifest
		changed.Lists = append([]snapshot.List(nil), m.Lists...)
		report := *m.Report
		changed.Report = &report
		edit(&changed)
		store := f.Store.Clone()
		store.Tamper(layout.ManifestKey(f.ID(4)), nil)
		if err := f.Open(t, store).PutDocument(t.Context(), layout.ManifestKey(f.ID(4)), changed); err != nil {
			t.Fatal(err)
		}
		res := run(t, f, store, verify.Options{Level: verify.Content})
		if at := failed(res); len(at) != 1 || at[0] != 4 {
			t.Errorf("%s: %v fail; %+v", what, at, res.Findings)
		}
	}
}
