package verify_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// history makes a repository with a chain of three snapshots and a second chain.
func history(t *testing.T) *repotest.Fixture {
	f := repotest.New(t)
	tree := repotest.Tree{
		"/srv/a.conf":          []byte("listen 80\n"),
		"/srv/bin/server":      repotest.Noise(1, 300<<10),
		"/srv/data/db/one":     repotest.Noise(2, 30<<10),
		"/srv/data/db/two":     []byte(strings.Repeat("row\n", 10_000)),
		"/srv/data/empty":      {},
		"/srv/name-\xff-bytes": []byte("not UTF-8"),
	}
	f.Backup(t, snapshot.Full, tree)
	f.Now = f.Now.Add(time.Hour)
	tree = tree.With("/srv/data/db/one", repotest.Noise(3, 31<<10))
	f.Backup(t, snapshot.Incremental, tree)
	f.Now = f.Now.Add(time.Hour)
	tree = tree.With("/srv/new", repotest.Noise(4, 10<<10)).With("/srv/a.conf", nil)
	f.Backup(t, snapshot.Incremental, tree)
	f.Now = f.Now.Add(time.Hour)
	f.Backup(t, snapshot.Full, tree.With("/srv/a.conf", []byte("listen 443\n")))
	f.Now = f.Now.Add(time.Hour)
	return f
}

func run(t *testing.T, f *repotest.Fixture, store *mem.Store, opts verify.Options) *verify.Result {
	t.Helper()
	if opts.Now == nil {
		opts.Now = func() time.Time { return f.Now }
	}
	res, err := verify.Run(t.Context(), f.Open(t, store), opts)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func wantOK(t *testing.T, res *verify.Result) {
	t.Helper()
	if !res.OK() || len(res.Findings) > 0 {
		t.Errorf("%s: %+v", res.Level, res.Findings)
	}
}

func find(res *verify.Result, key string) *verify.Finding {
	for i := range res.Findings {
		if res.Findings[i].Key == key {
			return &res.Findings[i]
		}
	}
	return nil
}

func failed(res *verify.Result) []uint64 {
	var out []uint64
	for _, s := range res.Snapshots {
		if !s.Pass {
			out = append(out, s.ID.Sequence)
		}
	}
	return out
}

func TestIntact(t *testing.T) {
	f := history(t)
	for _, level := range []verify.Level{verify.Structure, verify.Bytes, verify.Content} {
		var last verify.Progress
		res := run(t, f, f.Store, verify.Options{Level: level, Progress: func(p verify.Progress) { last = p }})
		wantOK(t, res)
		if len(res.Snapshots) != 4 || res.Packs != 4 || res.Bytes == 0 || res.Sources[0].UnnamedPacks != 0 {
			t.Errorf("%s: %+v", level, res)
		}
		if level == verify.Content && (res.Chunks == 0 || res.Snapshots[0].Entries == 0) {
			t.Errorf("content: %+v", res)
		}
		if level != verify.Structure && (last.Packs != last.TotalPacks || last.Bytes != res.Bytes) {
			t.Errorf("%s: progress ends with %+v", level, last)
		}
	}
}

func TestEachPackIsReadOnce(t *testing.T) {
	f := history(t)
	gets := map[string]int{}
	store := f.Store.Clone()
	repo := f.Open(t, store)
	store.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Get && strings.Contains(c.Key, "/packs/") {
			gets[c.Key]++
		}
		return mem.Fault{}
	})
	if _, err := verify.Run(t.Context(), repo, verify.Options{Level: verify.Bytes, Workers: 1}); err != nil {
		t.Fatal(err)
	}
	for key, n := range gets {
		if n != 1 {
			t.Errorf("%s: read %d times", key, n)
		}
	}
	if len(gets) != 4 {
		t.Errorf("%d packs read", len(gets))
	}
}

func TestLargeFilesWithMaps(t *testing.T) {
	f := repotest.New(t)
	big := repotest.Noise(9, 17<<20)
	f.Backup(t, snapshot.Full, repotest.Tree{"/srv/big": big, "/srv/small": repotest.Noise(5, 1000)})
	changed := slices.Clone(big)
	changed[12<<20]++
	f.Backup(t, snapshot.Incremental, repotest.Tree{"/srv/big": changed, "/srv/small": repotest.Noise(5, 1000)})
	wantOK(t, run(t, f, f.Store, verify.Options{Level: verify.Content}))
	for i := range 3 {
		// Content packs and the ones with maps and trees, at several places each.
		for _, key := range repotest.Keys(f.Store, "/packs/") {
			store := f.Store.Clone()
			b, _ := store.Object(key)
			b[len(b)*(2*i+1)/6] ^= 4
			store.Tamper(key, b)
			restores := restored(t, f, store)
			for _, level := range []verify.Level{verify.Bytes, verify.Content} {
				res := run(t, f, store, verify.Options{Level: level})
				at := find(res, key)
				if at == nil || at.Problem != verify.BytesDiffer || res.OK() {
					t.Fatalf("%s %s: %+v", level, key, res.Findings)
				}
				compareWithRestore(t, restores, res, level == verify.Content)
			}
		}
	}
}

// errNoManifest says that a snapshot can't be restored for want of its manifest.
var errNoManifest = errors.New("its manifest can not be read")

// restored restores each snapshot that there ever was and tells what came of it.
func restored(t *testing.T, f *repotest.Fixture, store *mem.Store) map[snapshot.ID]error {
	t.Helper()
	r := f.Open(t, store)
	out := map[snapshot.ID]error{}
	for n := range f.Trees {
		m, err := r.Manifest(t.Context(), f.ID(n))
		if err != nil {
			out[f.ID(n)] = fmt.Errorf("%w: %w", errNoManifest, err)
			continue
		}
		_, out[f.ID(n)] = repotest.Restore(t.Context(), r, m)
	}
	return out
}

// checkAgainstRestore compares the verdicts with what a restore really gives. At level content they are exact.
func checkAgainstRestore(t *testing.T, f *repotest.Fixture, store *mem.Store, res *verify.Result, exact bool) {
	t.Helper()
	compareWithRestore(t, restored(t, f, store), res, exact)
}

func compareWithRestore(t *testing.T, restores map[snapshot.ID]error, res *verify.Result, exact bool) {
	t.Helper()
	for _, s := range res.Snapshots {
		err, known := restores[s.ID]
		switch {
		case !known:
			t.Errorf("there never was a snapshot %s", s.ID)
		case err != nil && s.Pass:
			t.Errorf("%s passes, but can not be restored: %v", s.ID, err)
		case err == nil && !s.Pass && exact:
			t.Errorf("%s fails, but can be restored: %v", s.ID, s.Problems)
		}
	}
}

func TestAffectedFiles(t *testing.T) {
	f := history(t)
	m, err := f.Repo.Manifest(t.Context(), f.ID(2))
	if err != nil {
		t.Fatal(err)
	}
	s, err := f.Repo.Snapshot(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.Lookup(t.Context(), "/srv/bin/server")
	if err != nil {
		t.Fatal(err)
	}
	ref := e.Extents[1].Ref
	info, _ := s.Pack(ref.Pack)
	chain, _ := layout.ParseChain(m.Chain)
	key := layout.PackKey(f.Source, chain, info.ID)
	b, _ := f.Store.Object(key)
	b[ref.Offset+ref.Sealed/2] ^= 1
	f.Store.Tamper(key, b)

	res := run(t, f, f.Store, verify.Options{Level: verify.Content})
	at := find(res, key)
	if at == nil {
		t.Fatalf("%+v", res.Findings)
	}
	want := verify.Finding{
		Key: key, Problem: verify.BytesDiffer, Snapshots: []snapshot.ID{f.ID(1), f.ID(2), f.ID(3)},
		Files: []string{"/srv/bin/server"}, FileCount: 1,
	}
	if diff := cmp.Diff(want, *at); diff != "" {
		t.Error(diff)
	}
	// Without chunks, everything in the pack counts as hit.
	res = run(t, f, f.Store, verify.Options{Level: verify.Bytes, MaxFiles: 2})
	if at = find(res, key); at == nil || at.FileCount < 4 || len(at.Files) != 2 || len(at.Snapshots) != 3 {
		t.Errorf("level bytes: %+v", at)
	}
	if diff := cmp.Diff([]uint64{1, 2, 3}, failed(res)); diff != "" {
		t.Error(diff)
	}
}

func TestWithoutKey(t *testing.T) {
	f := history(t)
	signer, _ := f.Identity.Signer()
	reader, err := keyring.ParseIdentity(strings.NewReader("trust " + signer.Public().String() + " *\n"))
	if err != nil {
		t.Fatal(err)
	}
	repo, err := repository.Open(t.Context(), f.Store, reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verify.Run(t.Context(), repo, verify.Options{Level: verify.Content}); !errors.Is(err, keyring.ErrNoIdentity) {
		t.Errorf("content without a key: %v", err)
	}
	key := repotest.Keys(f.Store, "/packs/")[0]
	b, _ := f.Store.Object(key)
	f.Store.Tamper(key, b[:len(b)-1])
	calls := f.Store.Count(mem.Put)
	res, err := verify.Run(t.Context(), repo, verify.Options{Level: verify.Bytes, Record: true})
	if err != nil {
		t.Fatal(err)
	}
	if at := find(res, key); at == nil || at.Problem != verify.SizeDiffers || !at.FilesUnknown || len(at.Snapshots) == 0 {
		t.Errorf("%+v", res.Findings)
	}
	if res.Recorded || f.Store.Count(mem.Put) != calls {
		t.Error("wrote without a signer")
	}
}

func TestRecords(t *testing.T) {
	f := history(t)
	key := repotest.Keys(f.Store, "/packs/")[0]
	good, _ := f.Store.Object(key)
	bad := slices.Clone(good)
	bad[100] ^= 1
	f.Store.Tamper(key, bad)
	res := run(t, f, f.Store, verify.Options{Level: verify.Bytes, Record: true})
	if !res.Recorded || res.OK() {
		t.Errorf("%+v", res)
	}
	results := map[string]int{}
	for _, k := range repotest.Keys(f.Store, "/receipts/") {
		var r record.Receipt
		if _, err := f.Repo.Document(t.Context(), k, &r); err != nil {
			t.Fatal(err)
		}
		results[r.Level+" "+r.Result]++
		if (r.Result == record.Fail) != (len(r.Problems) > 0) || r.Packs == 0 || r.Bytes == 0 {
			t.Errorf("%+v", r)
		}
	}
	fails := len(failed(res))
	if diff := cmp.Diff(map[string]int{"bytes fail": fails, "bytes pass": 4 - fails}, results); diff != "" || fails == 0 || fails == 4 {
		t.Errorf("%d fail: %s", fails, diff)
	}
	damaged := repotest.Keys(f.Store, "/damaged/")
	if len(damaged) != 1 || !strings.HasSuffix(key, strings.TrimSuffix(damaged[0][strings.LastIndex(damaged[0], "/")+1:], ".json")) {
		t.Errorf("records of damage: %v", damaged)
	}
	// The pack looks intact to a listing, which therefore says that it failed before; repaired, it is silent.
	f.Now = f.Now.Add(time.Hour)
	res = run(t, f, f.Store, verify.Options{Level: verify.Structure, Record: true})
	if at := find(res, key); at == nil || at.Problem != verify.KnownDamaged || !at.Warning || !res.OK() {
		t.Errorf("%+v", res.Findings)
	}
	f.Store.Tamper(key, good)
	f.Store.SetModified(key, f.Now)
	wantOK(t, run(t, f, f.Store, verify.Options{Level: verify.Structure}))
	wantOK(t, run(t, f, f.Store, verify.Options{Level: verify.Content}))
}

func TestUnnamedPacksAreNoErrors(t *testing.T) {
	f := history(t)
	f.Abandon(t, repotest.Tree{"/srv/x": repotest.Noise(77, 1<<20)})
	res := run(t, f, f.Store, verify.Options{Level: verify.Content})
	if len(res.Findings) > 0 || res.Sources[0].UnnamedPacks != 1 || res.Sources[0].UnnamedBytes < 1<<20 {
		t.Errorf("%+v", res)
	}
}

func TestUnknownObjectsAreWarnings(t *testing.T) {
	f := history(t)
	key := layout.SourcePrefix(f.Source) + "snapshots/last.json"
	f.Store.Tamper(key, []byte("x"))
	res := run(t, f, f.Store, verify.Options{Level: verify.Structure})
	if at := find(res, key); at == nil || !at.Warning || !res.OK() || len(res.Findings) != 1 {
		t.Errorf("%+v", res.Findings)
	}
}

func TestSelection(t *testing.T) {
	f := history(t)
	key := repotest.Keys(f.Store, "/packs/")
	for _, k := range key {
		b, _ := f.Store.Object(k)
		if m, _ := f.Repo.Manifest(t.Context(), f.ID(4)); !strings.Contains(k, m.Chain) {
			f.Store.Tamper(k, b[1:])
		}
	}
	res := run(t, f, f.Store, verify.Options{Level: verify.Content, Snapshots: []snapshot.ID{f.ID(4)}})
	wantOK(t, res)
	if len(res.Snapshots) != 1 || res.Packs != 1 {
		t.Errorf("%+v", res)
	}
	_, err := verify.Run(t.Context(), f.Repo, verify.Options{Level: verify.Bytes, Snapshots: []snapshot.ID{f.ID(9)}})
	if !errors.Is(err, repository.ErrNoSnapshot) {
		t.Errorf("unknown snapshot: %v", err)
	}
	other := snapshot.Source{Host: "other", Name: "x"}
	res = run(t, f, f.Store, verify.Options{Level: verify.Bytes, Sources: []snapshot.Source{other}})
	if len(res.Snapshots) != 0 || !res.OK() {
		t.Errorf("%+v", res)
	}
}

func TestSampleRotationFindsDamage(t *testing.T) {
	f := history(t)
	for _, key := range repotest.Keys(f.Store, "/packs/") {
		store := f.Store.Clone()
		b, _ := store.Object(key)
		b[60] ^= 1
		store.Tamper(key, b)
		for _, level := range []verify.Level{verify.Bytes, verify.Content} {
			hits, read := 0, 0
			for day := range uint64(5) {
				res := run(t, f, store, verify.Options{Level: level, Sample: verify.Sample{K: 1, N: 5, Cursor: 20_000 + day}})
				if res.Sample != "1/5" {
					t.Errorf("sample %q", res.Sample)
				}
				read += res.Packs
				if find(res, key) != nil {
					hits++
				}
			}
			// At level content a tree chunk in a pack outside of the sample may be met as well.
			if hits < 1 || read != 4 || level == verify.Bytes && hits != 1 {
				t.Errorf("%s: found in %d of 5 runs, %d packs read", level, hits, read)
			}
		}
	}
}

// TestNothingIsClaimedThatWasNotChecked fails each single call of the store: the run ends with an error, or it does not
// say that all is well.
func TestNothingIsClaimedThatWasNotChecked(t *testing.T) {
	f := everything(t)
	for _, level := range []verify.Level{verify.Structure, verify.Bytes, verify.Content} {
		calls := 0
		for n := 1; ; n++ {
			store := f.Store.Clone()
			repo := f.Open(t, store)
			first, fired := store.Calls(), ""
			store.SetHook(func(c mem.Call) mem.Fault {
				if c.Number != first+n {
					return mem.Fault{}
				}
				fired = string(c.Op) + " " + c.Key
				return mem.Fault{Err: errors.New("connection reset")}
			})
			res, err := verify.Run(t.Context(), repo, verify.Options{Level: level})
			if fired == "" {
				break
			}
			calls++
			if err == nil && res.OK() {
				t.Errorf("%s: %s failed, and nobody noticed", level, fired)
			}
		}
		if calls < 20 {
			t.Errorf("%s: only %d calls", level, calls)
		}
	}
}

func ExampleParseSample() {
	s, err := verify.ParseSample("1/30", 20_000)
	fmt.Println(s, err)
	// Output: 1/30 <nil>
}
