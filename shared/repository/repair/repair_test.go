package repair_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/file"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/copier"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repair"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// history makes a repository with two chains, two access documents, a mark and a receipt.
func history(t *testing.T) *repotest.Fixture {
	t.Helper()
	f := repotest.New(t)
	tree := repotest.Tree{"/srv/a": repotest.Noise(1, 30_000), "/srv/d/b": repotest.Noise(2, 20_000)}
	f.Backup(t, snapshot.Full, tree)
	f.Now = f.Now.Add(time.Hour)
	tree = tree.With("/srv/a", repotest.Noise(3, 31_000))
	m := f.Backup(t, snapshot.Incremental, tree)
	f.Now = f.Now.Add(time.Hour)
	f.Backup(t, snapshot.Full, tree.With("/srv/c", []byte("c")))
	put(t, f, layout.MarkKey(f.ID(2), strings.Repeat("ab", 16)), record.Mark{Sequence: 2, Manifest: m.Hash.String(), Mark: record.Pin, Time: f.Now})
	put(t, f, layout.ReceiptKey(f.ID(2), layout.ReceiptHost, f.Now, "bytes"), record.Receipt{Sequence: 2, Level: "bytes"})
	if err := f.Repo.ChangeAccess(t.Context(), func(a *repository.Access) error { a.Recipients[0].Label = "first"; return nil }); err != nil {
		t.Fatal(err)
	}
	return f
}

func put(t *testing.T, f *repotest.Fixture, key string, v any) {
	t.Helper()
	if err := f.Repo.PutDocument(t.Context(), key, v); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, f *repotest.Fixture, store objstore.Store, opts repair.Options) *repair.Result {
	t.Helper()
	res, err := repair.Run(t.Context(), store, f.Identity, opts)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func outcomes(r *repair.Result) map[string]repair.Outcome {
	out := map[string]repair.Outcome{}
	for _, i := range r.Items {
		out[i.Key] = i.Outcome
	}
	return out
}

func wantVerified(t *testing.T, f *repotest.Fixture, store objstore.Store) {
	t.Helper()
	res, err := verify.Run(t.Context(), f.Open(t, store), verify.Options{Level: verify.Content})
	if err != nil || len(res.Findings) > 0 {
		t.Errorf("verify: %v, %+v", err, res.Findings)
	}
}

// flip returns b with one bit flipped in the middle.
func flip(b []byte) []byte {
	out := slices.Clone(b)
	out[len(out)/2] ^= 1
	return out
}

// markDamaged puts the pack under key on record.
func markDamaged(t *testing.T, f *repotest.Fixture, key string) string {
	t.Helper()
	chain, id, err := layout.ParsePack(f.Source, key)
	if err != nil {
		t.Fatal(err)
	}
	mark := layout.DamagedKey(f.Source, id)
	put(t, f, mark, record.Damaged{Pack: id.String(), Chain: chain.String(), Time: f.Now, Problem: "test"})
	return mark
}

func TestNothingToDo(t *testing.T) {
	f := history(t)
	for _, opts := range []repair.Options{{}, {Check: true}, {From: f.Store.Clone()}, {From: f.Store.Clone(), Check: true}} {
		before := f.Store.Clone()
		if res := run(t, f, f.Store, opts); len(res.Items) > 0 || !res.OK() || (res.Packs == 3) != opts.Check {
			t.Errorf("%+v", res)
		}
		repotest.WantSame(t, f.Store, before)
	}
}

// TestClear has records of a pack that is in order, of one that is damaged and of one that nothing names any more.
func TestClear(t *testing.T) {
	f := history(t)
	packs := repotest.Keys(f.Store, "/packs/")
	fine, bad := markDamaged(t, f, packs[0]), markDamaged(t, f, packs[1])
	chain, _, _ := layout.ParsePack(f.Source, packs[0])
	gone := markDamaged(t, f, layout.PackKey(f.Source, chain, snapshot.Hash{1}))
	good, _ := f.Store.Object(packs[1])
	f.Store.Tamper(packs[1], flip(good))
	before := f.Store.Clone()
	want := map[string]repair.Outcome{packs[0]: repair.Cleared, packs[1]: repair.Left, gone: repair.Cleared}
	res := run(t, f, f.Store, repair.Options{DryRun: true})
	if diff := cmp.Diff(want, outcomes(res)); diff != "" || res.OK() {
		t.Error(diff)
	}
	repotest.WantSame(t, f.Store, before)
	res = run(t, f, f.Store, repair.Options{})
	if diff := cmp.Diff(want, outcomes(res)); diff != "" {
		t.Error(diff)
	}
	if left := repotest.Keys(f.Store, "/damaged/"); !slices.Equal(left, []string{bad}) || slices.Contains(left, fine) {
		t.Errorf("left: %v", left)
	}
	// The pack can be read again: it had been a passing trouble.
	f.Store.Tamper(packs[1], good)
	if res = run(t, f, f.Store, repair.Options{}); res.Count(repair.Cleared) != 1 || !res.OK() {
		t.Errorf("%+v", res)
	}
	if left := repotest.Keys(f.Store, "/damaged/"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestPutBack damages each object in each way. With a copy all is as it was.
func TestPutBack(t *testing.T) {
	f := history(t)
	for _, key := range f.Store.Keys() {
		good, _ := f.Store.Object(key)
		for what, b := range map[string][]byte{"flipped": flip(good), "truncated": good[:len(good)-1], "longer": append(flip(good), 0), "missing": nil} {
			if what == "missing" && strings.Contains(key, "/receipts/") {
				continue // nothing rests on one
			}
			store := f.Store.Clone()
			store.Tamper(key, b)
			damaged := store.Clone()
			opts := repair.Options{From: f.Store, Check: true, DryRun: true}
			dry := run(t, f, store, opts)
			repotest.WantSame(t, store, damaged)
			opts.DryRun = false
			res := run(t, f, store, opts)
			if diff := cmp.Diff(dry.Items, res.Items); diff != "" {
				t.Errorf("%s %s: the dry run says something else: %s", key, what, diff)
			}
			if diff := cmp.Diff(map[string]repair.Outcome{key: repair.PutBack}, outcomes(res)); diff != "" {
				t.Errorf("%s %s: %s", key, what, diff)
			}
			repotest.WantSame(t, store, f.Store)
		}
	}
}

// TestEverythingAtOnce leaves nothing in order but what proves that it is the same repository.
func TestEverythingAtOnce(t *testing.T) {
	f := history(t)
	store := f.Store.Clone()
	for i, key := range store.Keys() {
		good, _ := store.Object(key)
		switch {
		case key == layout.AccessKey(1):
		case i%2 == 0 && !strings.Contains(key, "/receipts/"):
			store.Tamper(key, nil)
		default:
			store.Tamper(key, flip(good))
		}
	}
	if res := run(t, f, store, repair.Options{From: f.Store, Check: true}); !res.OK() {
		t.Errorf("%+v", res)
	}
	repotest.WantSame(t, store, f.Store)
	f.CheckAll(t, store)
}

func TestDirectories(t *testing.T) {
	f := history(t)
	open := func() objstore.Store {
		s, err := file.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := copier.Run(t.Context(), f.Repo, s, copier.Options{}); err != nil {
			t.Fatal(err)
		}
		return s
	}
	store, from := open(), open()
	for i, key := range f.Store.Keys() {
		if key == layout.AccessKey(1) || strings.Contains(key, "/receipts/") {
			continue
		}
		if err := store.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if good, _ := f.Store.Object(key); i%2 == 0 {
			if err := store.Put(t.Context(), key, objstore.Bytes(flip(good))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if res := run(t, f, store, repair.Options{From: from, Check: true}); !res.OK() || res.Count(repair.PutBack) < 10 {
		t.Errorf("%+v", res)
	}
	wantVerified(t, f, store)
	f.CheckAll(t, store)
}

// TestWithoutCopy damages a pack: it is named with what it hits and put on record, the next backup stores its chunks
// again, and later a copy makes it good.
func TestWithoutCopy(t *testing.T) {
	f := repotest.New(t)
	tree := repotest.Tree{"/srv/a": repotest.Noise(1, 300_000)}
	first := f.Backup(t, snapshot.Full, tree)
	f.Backup(t, snapshot.Incremental, tree.With("/srv/b", repotest.Noise(2, 50_000)))
	from := f.Store.Clone()
	packs, err := f.Repo.Lists(t.Context(), first.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	live := func() []uint64 {
		affected, err := repair.Affected(t.Context(), f.Repo, f.Source)
		if err != nil {
			t.Fatal(err)
		}
		var out []uint64
		for n := uint64(1); n <= 3; n++ {
			if slices.Contains(affected[n], packs[0].ID) {
				out = append(out, n)
			}
		}
		return out
	}
	chain, _ := layout.ParseChain(first.Chain)
	key := layout.PackKey(f.Source, chain, packs[0].ID)
	good, _ := f.Store.Object(key)
	f.Store.Tamper(key, flip(good))
	if len(live()) > 0 {
		t.Error("affected before anybody has looked")
	}
	if res := run(t, f, f.Store, repair.Options{}); len(res.Items) > 0 {
		t.Errorf("without reading: %+v", res)
	}
	res := run(t, f, f.Store, repair.Options{Check: true})
	if len(res.Items) != 1 || res.Marked != 1 || res.OK() {
		t.Fatalf("%+v", res)
	}
	item := res.Items[0]
	if item.Key != key || item.Problem != "its bytes do not match its name" || !slices.Equal(item.Snapshots, []snapshot.ID{f.ID(1), f.ID(2)}) {
		t.Errorf("%+v", item)
	}
	if !slices.Equal(item.Files, []string{"/srv/a"}) || item.FileCount != 1 || item.FilesUnknown {
		t.Errorf("files %v of %d, unknown: %v", item.Files, item.FileCount, item.FilesUnknown)
	}
	if got := live(); !slices.Equal(got, []uint64{1, 2}) {
		t.Errorf("affected: %v", got)
	}
	f.Backup(t, snapshot.Incremental, tree)
	if got := live(); !slices.Equal(got, []uint64{1, 2}) {
		t.Errorf("after the next backup: %v", got)
	}
	if res = run(t, f, f.Store, repair.Options{From: from}); res.Count(repair.PutBack) != 1 || !res.OK() {
		t.Errorf("%+v", res)
	}
	if got := live(); len(got) > 0 || len(repotest.Keys(f.Store, "/damaged/")) > 0 {
		t.Errorf("after repair: %v", got)
	}
	wantVerified(t, f, f.Store)
	f.CheckAll(t, f.Store)
}

// TestKeysAreMadeAgain needs no copy: manifests repeat the keys.
func TestKeysAreMadeAgain(t *testing.T) {
	f := history(t)
	want := f.Store.Clone()
	keys := repotest.Keys(f.Store, "/keys/")
	good, _ := f.Store.Object(keys[0])
	f.Store.Tamper(keys[0], flip(good))
	f.Store.Tamper(keys[1], nil)
	if res := run(t, f, f.Store, repair.Options{}); res.Count(repair.PutBack) != 2 || !res.OK() {
		t.Errorf("%+v", res)
	}
	repotest.WantSame(t, f.Store, want)
}

// TestTreeIsLost says that it can not tell the files.
func TestTreeIsLost(t *testing.T) {
	f := history(t)
	for _, key := range repotest.Keys(f.Store, "/packs/") {
		f.Store.Tamper(key, nil)
	}
	res := run(t, f, f.Store, repair.Options{})
	for _, i := range res.Items {
		if i.Outcome != repair.Left || !i.FilesUnknown || len(i.Snapshots) == 0 {
			t.Errorf("%+v", i)
		}
	}
	if len(res.Items) != 3 || res.Marked != 3 {
		t.Errorf("%+v", res)
	}
}

// TestCopyIsDamagedToo puts nothing back that is not proven.
func TestCopyIsDamagedToo(t *testing.T) {
	f := history(t)
	for _, key := range f.Store.Keys() {
		if strings.HasPrefix(key, layout.AccessPrefix) || key == layout.RepositoryKey || strings.Contains(key, "/receipts/") || strings.Contains(key, "/keys/") {
			continue
		}
		good, _ := f.Store.Object(key)
		store, from := f.Store.Clone(), f.Store.Clone()
		store.Tamper(key, flip(good))
		from.Tamper(key, append(flip(good), 'x'))
		res := run(t, f, store, repair.Options{From: from, Check: true})
		if res.OK() || outcomes(res)[key] != repair.Left {
			t.Errorf("%s: %+v", key, res)
		}
		if got, _ := store.Object(key); string(got) != string(flip(good)) {
			t.Errorf("%s was changed", key)
		}
		for _, i := range res.Items {
			if i.Key == key && i.Reason == "" {
				t.Errorf("%s: no reason", key)
			}
		}
	}
}

// TestIncompleteSnapshotStaysAway does not list a snapshot again whose packs are nowhere.
func TestIncompleteSnapshotStaysAway(t *testing.T) {
	f := history(t)
	key, pack := layout.ManifestKey(f.ID(3)), ""
	m, err := f.Repo.Manifest(t.Context(), f.ID(3))
	if err != nil {
		t.Fatal(err)
	}
	pack = repotest.Keys(f.Store, "/packs/"+m.Chain)[0]
	store, from := f.Store.Clone(), f.Store.Clone()
	store.Tamper(key, nil)
	store.Tamper(pack, nil)
	from.Tamper(pack, nil)
	res := run(t, f, store, repair.Options{From: from})
	if got := outcomes(res); got[key] != repair.Left || got[pack] != repair.Left {
		t.Errorf("%v", got)
	}
	if _, there := store.Object(key); there {
		t.Error("the manifest is there")
	}
}

func TestRetentionIsRespected(t *testing.T) {
	f := history(t)
	from := f.Store.Clone()
	m, err := f.Repo.Manifest(t.Context(), f.ID(1))
	if err != nil {
		t.Fatal(err)
	}
	put(t, f, layout.ExpiredKey(f.ID(1)), record.Expired{Sequence: 1, Manifest: m.Hash.String(), Time: f.Now})
	f.Store.Tamper(layout.ManifestKey(f.ID(1)), nil)
	if res := run(t, f, f.Store, repair.Options{From: from}); len(res.Items) > 0 {
		t.Errorf("%+v", res)
	}
}

func TestOtherRepository(t *testing.T) {
	f, other := history(t), history(t)
	if _, err := repair.Run(t.Context(), f.Store, f.Identity, repair.Options{From: other.Store}); err == nil {
		t.Error("a repository of somebody else was taken for a copy")
	}
	for _, store := range []*mem.Store{mem.New(), other.Store} {
		before := store.Clone()
		if _, err := repair.Run(t.Context(), store, f.Identity, repair.Options{From: f.Store}); !errors.Is(err, repair.ErrNotCopy) {
			t.Errorf("%v", err)
		}
		repotest.WantSame(t, store, before)
	}
}

func TestDiverged(t *testing.T) {
	f := history(t)
	store := f.Store.Clone()
	fork := f.Fork(t, store)
	f.Backup(t, snapshot.Full, repotest.Tree{"/srv/x": []byte("one")})
	fork.Backup(t, snapshot.Full, repotest.Tree{"/srv/x": []byte("other")})
	before := store.Clone()
	if _, err := repair.Run(t.Context(), store, f.Identity, repair.Options{From: f.Store}); !errors.Is(err, repair.ErrDiverged) {
		t.Errorf("%v", err)
	}
	repotest.WantSame(t, store, before)
	// Also where it shows only by the links.
	store.Tamper(layout.ManifestKey(f.ID(4)), nil)
	f.Backup(t, snapshot.Full, repotest.Tree{"/srv/x": []byte("five")})
	fork.Backup(t, snapshot.Full, repotest.Tree{"/srv/x": []byte("6")})
	if _, err := repair.Run(t.Context(), store, f.Identity, repair.Options{From: f.Store}); !errors.Is(err, repair.ErrDiverged) {
		t.Errorf("%v", err)
	}
}
