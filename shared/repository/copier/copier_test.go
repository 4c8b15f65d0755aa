package copier_test

import (
	"context"
	"errors"
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
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// history makes a repository with two chains, a mark, a receipt and a record of damage.
func history(t *testing.T) *repotest.Fixture {
	f := repotest.New(t)
	tree := repotest.Tree{"/srv/a": repotest.Noise(1, 30_000), "/srv/d/b": repotest.Noise(2, 20_000)}
	f.Backup(t, snapshot.Full, tree)
	f.Now = f.Now.Add(time.Hour)
	tree = tree.With("/srv/a", repotest.Noise(3, 31_000))
	m := f.Backup(t, snapshot.Incremental, tree)
	f.Now = f.Now.Add(time.Hour)
	f.Backup(t, snapshot.Full, tree.With("/srv/c", []byte("c")))
	key := layout.MarkKey(f.ID(2), strings.Repeat("ab", 16))
	put(t, f, key, record.Mark{Sequence: 2, Manifest: m.Hash.String(), Mark: record.Pin, Time: f.Now})
	put(t, f, layout.ReceiptKey(f.ID(2), layout.ReceiptHost, f.Now, "bytes"), record.Receipt{Sequence: 2, Level: "bytes"})
	return f
}

func put(t *testing.T, f *repotest.Fixture, key string, v any) {
	t.Helper()
	if err := f.Repo.PutDocument(t.Context(), key, v); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, f *repotest.Fixture, to objstore.Store) *copier.Result {
	t.Helper()
	res, err := copier.Run(t.Context(), f.Repo, to, copier.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func wantVerified(t *testing.T, f *repotest.Fixture, store objstore.Store) {
	t.Helper()
	res, err := verify.Run(t.Context(), f.Open(t, store), verify.Options{Level: verify.Content})
	if err != nil || len(res.Findings) > 0 {
		t.Errorf("verify: %v, %+v", err, res.Findings)
	}
}

func TestCopy(t *testing.T) {
	f := history(t)
	to := mem.New()
	var last copier.Progress
	res, err := copier.Run(t.Context(), f.Repo, to, copier.Options{Progress: func(p copier.Progress) { last = p }})
	if err != nil || !res.OK() {
		t.Fatalf("%v, %+v", err, res)
	}
	if diff := cmp.Diff([]snapshot.ID{f.ID(1), f.ID(2), f.ID(3)}, res.Committed); diff != "" {
		t.Error(diff)
	}
	if last.Objects != res.Objects || last.Bytes != res.Bytes || res.Bytes == 0 || last.TotalBytes == 0 {
		t.Errorf("progress %+v, result %+v", last, res)
	}
	repotest.WantSame(t, to, f.Store)
	wantVerified(t, f, to)
	f.CheckAll(t, to)

	// Again: nothing to do. Then only what is new.
	res = run(t, f, to)
	if res.Objects != 0 || len(res.Committed) != 0 || !res.OK() {
		t.Errorf("%+v", res)
	}
	f.Backup(t, snapshot.Incremental, f.Trees[3].With("/srv/e", repotest.Noise(8, 5000)))
	res = run(t, f, to)
	if len(res.Committed) != 1 || res.Objects > 4 || !res.OK() {
		t.Errorf("%+v", res)
	}
	repotest.WantSame(t, to, f.Store)
}

func TestCopyToDirectory(t *testing.T) {
	f := history(t)
	dir := t.TempDir()
	to, err := file.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	run(t, f, to)
	wantVerified(t, f, to)
	// And back from there.
	back := mem.New()
	res, err := copier.Run(t.Context(), f.Open(t, to), back, copier.Options{Sources: []snapshot.Source{f.Source}})
	if err != nil || !res.OK() {
		t.Fatalf("%v, %+v", err, res)
	}
	repotest.WantSame(t, back, f.Store)
}

// TestDamageDoesNotSpread damages each object of the original; the copy gets nothing of it, and everything that does
// not need it. When the object is in order again the next run completes the copy.
func TestDamageDoesNotSpread(t *testing.T) {
	f := history(t)
	for _, key := range f.Store.Keys() {
		if strings.HasPrefix(key, layout.AccessPrefix) || key == layout.RepositoryKey {
			continue
		}
		good, _ := f.Store.Object(key)
		flipped := append([]byte(nil), good...)
		flipped[len(flipped)/2] ^= 1
		for what, b := range map[string][]byte{"flipped": flipped, "truncated": good[:len(good)-1], "longer": append(flipped, 0), "missing": nil} {
			store, to := f.Store.Clone(), mem.New()
			store.Tamper(key, b)
			from := f.Open(t, store)
			res, err := copier.Run(t.Context(), from, to, copier.Options{})
			if err != nil {
				t.Fatalf("%s %s: %v", key, what, err)
			}
			if got, there := to.Object(key); there {
				t.Errorf("%s %s: copied all the same: %d bytes", key, what, len(got))
			}
			named := false
			for _, x := range res.Findings {
				named = named || x.Key == key && !x.InCopy
			}
			needed := strings.Contains(key, "/packs/") || strings.Contains(key, "/lists/") || strings.Contains(key, "/snapshots/")
			silent := what == "missing" && (!needed || strings.Contains(key, "/snapshots/"))
			if named == silent {
				t.Errorf("%s %s: named: %v; %+v", key, what, named, res.Findings)
			}
			if needed && !silent && len(res.Withheld) == 0 {
				t.Errorf("%s %s: nothing is withheld", key, what)
			}
			if got := len(f.CheckAll(t, to)); got != len(res.Committed) || got+len(res.Withheld) < 3 && !silent || got < 1 {
				t.Errorf("%s %s: %d snapshots in the copy; %+v", key, what, got, res)
			}
			store.Tamper(key, good)
			res, err = copier.Run(t.Context(), from, to, copier.Options{})
			if err != nil || !res.OK() {
				t.Errorf("%s %s: repaired: %v, %+v", key, what, err, res)
			}
			repotest.WantSame(t, to, f.Store)
		}
	}
}

func TestDamagedAccessIsNotCopied(t *testing.T) {
	f := history(t)
	for _, key := range []string{layout.AccessKey(1), layout.RepositoryKey} {
		store, to := f.Store.Clone(), mem.New()
		from := f.Open(t, store)
		b, _ := store.Object(key)
		b[len(b)/3] ^= 1
		store.Tamper(key, b)
		if _, err := copier.Run(t.Context(), from, to, copier.Options{}); err == nil || len(to.Keys()) != 0 {
			t.Errorf("%s: %v, %v", key, err, to.Keys())
		}
	}
}

func TestWrongObjectsInTheCopy(t *testing.T) {
	f := history(t)
	for _, part := range []string{"/packs/", "/lists/"} {
		key := repotest.Keys(f.Store, part)[0]
		to := mem.New()
		to.Tamper(key, []byte("short"))
		res := run(t, f, to)
		if len(res.Withheld) == 0 || len(res.Findings) != 1 || res.Findings[0].Key != key || !res.Findings[0].InCopy {
			t.Errorf("%+v", res)
		}
		f.CheckAll(t, to)
	}
}

func TestOtherRepositoryIsRefused(t *testing.T) {
	f, other := history(t), history(t)
	before := other.Store.Clone()
	_, err := copier.Run(t.Context(), f.Repo, other.Store, copier.Options{})
	var refused *copier.OtherRepositoryError
	if !errors.As(err, &refused) || refused.Want != f.Repo.ID() || refused.Have != other.Repo.ID().String() {
		t.Errorf("%v", err)
	}
	repotest.WantSame(t, other.Store, before)
}

func TestDivergedCopyIsRefused(t *testing.T) {
	f := history(t)
	// Two hosts go on from the same state, each in one of the stores.
	to := mem.New()
	run(t, f, to)
	f.Fork(t, to).Backup(t, snapshot.Full, repotest.Tree{"/srv/evil": []byte("evil")})
	_, err := copier.Run(t.Context(), f.Repo, to, copier.Options{})
	var diverged *copier.DivergedError
	if !errors.As(err, &diverged) || diverged.Key != layout.ManifestKey(f.ID(4)) || !strings.Contains(err.Error(), "rolled back") {
		t.Errorf("the copy is ahead: %v", err)
	}
	m := f.Backup(t, snapshot.Full, f.Trees[3])
	if m.Sequence != 4 {
		t.Fatalf("the original goes on with %d", m.Sequence)
	}
	f.Backup(t, snapshot.Incremental, f.Trees[3])
	before := to.Clone()
	_, err = copier.Run(t.Context(), f.Repo, to, copier.Options{})
	if !errors.As(err, &diverged) || diverged.Key != layout.ManifestKey(f.ID(4)) {
		t.Errorf("another manifest: %v", err)
	}
	repotest.WantSame(t, to, before)

	// An older manifest of the copy that was replaced is named too.
	to = mem.New()
	run(t, f, to)
	b, _ := to.Object(layout.ManifestKey(f.ID(2)))
	to.Tamper(layout.ManifestKey(f.ID(2)), append(b, '\n'))
	if _, err = copier.Run(t.Context(), f.Repo, to, copier.Options{}); !errors.As(err, &diverged) || diverged.Key != layout.ManifestKey(f.ID(2)) {
		t.Errorf("an older manifest: %v", err)
	}
	access := mem.New()
	run(t, f, access)
	err = f.Open(t, access).ChangeAccess(t.Context(), func(a *repository.Access) error {
		a.Recipients[0].Label = "copy only"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = copier.Run(t.Context(), f.Repo, access, copier.Options{}); !errors.As(err, &diverged) || diverged.Key != layout.AccessKey(2) {
		t.Errorf("access: %v", err)
	}
}

func TestStolenSnapshotIsNamed(t *testing.T) {
	f := history(t)
	to := mem.New()
	run(t, f, to)
	f.Store.Tamper(layout.ManifestKey(f.ID(2)), nil)
	res := run(t, f, to)
	if len(res.Findings) != 1 || res.Findings[0].Key != layout.ManifestKey(f.ID(2)) {
		t.Errorf("%+v", res)
	}
}

func TestExpiredInTheCopyStaysAway(t *testing.T) {
	f := history(t)
	to := mem.New()
	run(t, f, to)
	m, err := f.Repo.Manifest(t.Context(), f.ID(1))
	if err != nil {
		t.Fatal(err)
	}
	err = f.Open(t, to).PutDocument(t.Context(), layout.ExpiredKey(f.ID(1)), record.Expired{Sequence: 1, Manifest: m.Hash.String(), Time: f.Now})
	if err != nil {
		t.Fatal(err)
	}
	to.Tamper(layout.ManifestKey(f.ID(1)), nil)
	if res := run(t, f, to); res.Objects != 0 || !res.OK() {
		t.Errorf("%+v", res)
	}
	lag, err := copier.Lag(t.Context(), f.Repo, to, nil)
	if err != nil || len(lag) != 1 || len(lag[0].Missing) != 0 {
		t.Errorf("%v, %+v", err, lag)
	}
}

func TestLag(t *testing.T) {
	f := history(t)
	to := mem.New()
	lag, err := copier.Lag(t.Context(), f.Repo, to, nil)
	if err != nil || len(lag) != 1 || len(lag[0].Missing) != 3 || !lag[0].Since.Equal(f.Now.Add(-2*time.Hour)) || lag[0].Newest != 0 {
		t.Errorf("%v, %+v", err, lag)
	}
	run(t, f, to)
	f.Now = f.Now.Add(time.Hour)
	f.Backup(t, snapshot.Incremental, f.Trees[3])
	lag, err = copier.Lag(t.Context(), f.Repo, to, []snapshot.Source{f.Source})
	want := []copier.SourceLag{{Source: f.Source, Missing: []snapshot.ID{f.ID(4)}, Since: f.Now, Newest: 3}}
	if diff := cmp.Diff(want, lag); diff != "" || err != nil {
		t.Errorf("%v, %s", err, diff)
	}
	lag, err = copier.Lag(t.Context(), f.Open(t, to), f.Store, nil)
	if err != nil || len(lag[0].Ahead) != 1 || lag[0].Ahead[0] != f.ID(4) {
		t.Errorf("%v, %+v", err, lag)
	}
}

var errCrash = errors.New("crash")

// TestCrashAnywhere stops a copying run at each call of the target, before and after the call took effect, and at each
// call of the original. Whatever is left, all snapshots that the copy lists are complete, and the next run finishes.
func TestCrashAnywhere(t *testing.T) {
	f := history(t)
	for _, side := range []string{"target", "original"} {
		for _, persisted := range []bool{false, true} {
			if side == "original" && persisted {
				continue
			}
			crashes := 0
			for n := 1; ; n++ {
				from, to := f.Store.Clone(), mem.New()
				repo := f.Open(t, from)
				victim := to
				if side == "original" {
					victim = from
				}
				first := victim.Calls()
				victim.SetHook(func(c mem.Call) mem.Fault {
					switch {
					case c.Number < first+n:
						return mem.Fault{}
					case c.Number == first+n:
						return mem.Fault{Err: errCrash, Persisted: persisted}
					}
					return mem.Fault{Err: errCrash}
				})
				_, err := copier.Run(t.Context(), repo, to, copier.Options{Workers: 2})
				if err == nil {
					break
				}
				if !errors.Is(err, errCrash) {
					t.Fatalf("call %d: %v", n, err)
				}
				crashes++
				after := to.Clone()
				if _, there := after.Object(layout.AccessKey(1)); there {
					f.CheckAll(t, after)
				}
				res := run(t, f, after)
				if !res.OK() {
					t.Fatalf("call %d: %+v", n, res)
				}
				repotest.WantSame(t, after, f.Store)
			}
			if crashes < 10 {
				t.Errorf("%s, persisted %v: only %d crashes", side, persisted, crashes)
			}
		}
	}
}

// TestGapsAreExplainedFirst stops a copying run at each call of the target. Verification of what is left never finds a
// snapshot missing that retention has removed from the original.
func TestGapsAreExplainedFirst(t *testing.T) {
	f := history(t)
	m, err := f.Repo.Manifest(t.Context(), f.ID(2))
	if err != nil {
		t.Fatal(err)
	}
	put(t, f, layout.ExpiredKey(f.ID(2)), record.Expired{Sequence: 2, Manifest: m.Hash.String(), Previous: m.Previous, Time: f.Now})
	f.Store.Tamper(layout.ManifestKey(f.ID(2)), nil)
	for _, key := range repotest.Keys(f.Store, "/marks/") {
		f.Store.Tamper(key, nil)
	}
	for _, key := range repotest.Keys(f.Store, "/receipts/") {
		f.Store.Tamper(key, nil)
	}
	for n := 1; ; n++ {
		to := mem.New()
		to.SetHook(func(c mem.Call) mem.Fault {
			if c.Number >= n {
				return mem.Fault{Err: errCrash}
			}
			return mem.Fault{}
		})
		_, err := copier.Run(t.Context(), f.Open(t, f.Store.Clone()), to, copier.Options{Workers: 1})
		after := to.Clone()
		if _, there := after.Object(layout.AccessKey(1)); there {
			wantVerified(t, f, after)
		}
		if err == nil {
			return
		}
		if !errors.Is(err, errCrash) {
			t.Fatalf("call %d: %v", n, err)
		}
	}
}

// TestCopyIsPrunedMeanwhile announces a removal in the copy just before the copying run stores the original's
// announcement of the same.
func TestCopyIsPrunedMeanwhile(t *testing.T) {
	f := history(t)
	to := mem.New()
	run(t, f, to)
	m, err := f.Repo.Manifest(t.Context(), f.ID(1))
	if err != nil {
		t.Fatal(err)
	}
	key := layout.CondemnedKey(f.ID(1))
	announced := record.Condemned{Sequence: 1, Manifest: m.Hash.String(), Time: f.Now, Reasons: []string{"of the original"}}
	put(t, f, key, announced)
	pruned := f.Open(t, to)
	announced.Reasons = []string{"of the copy"}
	once := false
	to.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Put && c.Key == key && !once {
			once = true
			if err := pruned.PutDocument(t.Context(), key, announced); err != nil {
				t.Error(err)
			}
		}
		return mem.Fault{}
	})
	if res := run(t, f, to); !res.OK() || !once {
		t.Errorf("%+v", res)
	}
	wantVerified(t, f, to.Clone())
}

// overwriting is a store that passes over the condition of a Put.
type overwriting struct{ *mem.Store }

func (s overwriting) Put(ctx context.Context, key string, c objstore.Content) error {
	return errors.Join(s.Delete(ctx, key), s.Store.Put(ctx, key, c))
}

// TestNewPlaceIsProbed copies to a place that overwrites.
func TestNewPlaceIsProbed(t *testing.T) {
	f := repotest.New(t)
	f.Backup(t, "", repotest.Tree{repotest.Root + "/a": []byte("a")})
	to := overwriting{mem.New()}
	if _, err := copier.Run(t.Context(), f.Repo, to, copier.Options{Probe: true}); !errors.Is(err, objstore.ErrOverwrites) || len(to.Keys()) != 0 {
		t.Errorf("%v, and it has %v", err, to.Keys())
	}
	sound := mem.New()
	for range 2 { // a place that has the repository is not asked again
		if _, err := copier.Run(t.Context(), f.Repo, sound, copier.Options{Probe: true}); err != nil {
			t.Fatal(err)
		}
		sound.SetHook(func(c mem.Call) mem.Fault {
			if strings.HasPrefix(c.Key, objstore.ProbePrefix) {
				return mem.Fault{Err: errors.New("probed again")}
			}
			return mem.Fault{}
		})
	}
	repotest.WantSame(t, sound, f.Store)
}
