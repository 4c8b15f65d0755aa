package verify_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
)

// attempt is a verification of content that goes on with what earlier ones have left.
type attempt struct {
	result *verify.Result
	total  int // packs that it had to open
	began  time.Time
}

// resumed verifies; after so many packs it is cut off, negative: never.
func resumed(t *testing.T, f *repotest.Fixture, path string, after int) (a attempt) {
	t.Helper()
	r, err := verify.OpenResume(path, f.Now, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	a.began = r.Began()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a.result, err = verify.Run(ctx, f.Repo, verify.Options{
		Level: verify.Content, Workers: 1, Resume: r, Now: func() time.Time { return f.Now },
		Progress: func(p verify.Progress) {
			if a.total = p.TotalPacks; p.Packs == after {
				cancel()
			}
		},
	})
	if (err != nil) != (after >= 0) {
		t.Fatalf("cut off after %d packs: %v", after, err)
	}
	if err := r.Close(err == nil); err != nil {
		t.Error(err)
	}
	return a
}

// many is a source with several packs.
func many(t *testing.T) *repotest.Fixture {
	t.Helper()
	f := repotest.New(t)
	tree := repotest.Tree{}
	for i := range 6 {
		tree = tree.With("/srv/"+string(rune('a'+i)), repotest.Noise(uint64(i), 200<<10))
		f.Backup(t, "", tree)
		f.Now = f.Now.Add(time.Hour)
	}
	return f
}

// TestResume cuts a verification off at each pack. The next one opens the others, finds what a whole run finds, and says
// since when.
func TestResume(t *testing.T) {
	f := many(t)
	whole := run(t, f, f.Store, verify.Options{Level: verify.Content})
	wantOK(t, whole)
	path := filepath.Join(t.TempDir(), "resume")
	for after := 1; after < whole.Packs-1; after++ {
		began := f.Now
		resumed(t, f, path, after)
		f.Now = f.Now.Add(time.Hour)
		if again := resumed(t, f, path, 1); again.total != whole.Packs-after {
			t.Errorf("cut off after %d packs: %d of %d are opened", after, again.total, whole.Packs)
		}
		f.Now = f.Now.Add(time.Hour)
		last := resumed(t, f, path, -1)
		wantOK(t, last.result)
		if last.total != whole.Packs-after-1 {
			t.Errorf("cut off after %d packs and another: %d of %d are opened", after, last.total, whole.Packs)
		}
		if r := last.result; r.Packs != whole.Packs || r.Bytes != whole.Bytes || r.Chunks != whole.Chunks || !r.Started.Equal(began) {
			t.Errorf("cut off after %d packs: %d packs, %d bytes, %d chunks since %v, want %d, %d, %d since %v",
				after, r.Packs, r.Bytes, r.Chunks, r.Started, whole.Packs, whole.Bytes, whole.Chunks, began)
		}
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("what is remembered stays after the end: %v", err)
		}
		f.Now = f.Now.Add(time.Hour)
	}
}

// TestResumeReadsAgain: what was damaged, what was written again since, and what was read too long ago.
func TestResumeReadsAgain(t *testing.T) {
	f := many(t)
	keys := repotest.Keys(f.Store, "/packs/")
	path := filepath.Join(t.TempDir(), "resume")

	// A pack that is damaged is not remembered, so that each run finds it.
	good, _ := f.Store.Object(keys[0])
	bad := append([]byte(nil), good...)
	bad[len(bad)/2] ^= 1
	f.Store.Tamper(keys[0], bad)
	for range 3 {
		resumed(t, f, path, 2)
	}
	if r := resumed(t, f, path, -1).result; r.OK() || find(r, keys[0]) == nil {
		t.Errorf("the damage is not found: %+v", r.Findings)
	}
	f.Store.Tamper(keys[0], good)

	// What is written again since it was opened is something else.
	resumed(t, f, path, len(keys)-1)
	f.Now = f.Now.Add(time.Minute)
	for _, key := range keys {
		b, _ := f.Store.Object(key)
		if key == keys[0] {
			b = bad
		}
		f.Store.Tamper(key, nil)
		if err := f.Store.Put(t.Context(), key, objstore.Bytes(b)); err != nil {
			t.Fatal(err)
		}
	}
	if a := resumed(t, f, path, -1); a.total != len(keys) || a.result.OK() || find(a.result, keys[0]) == nil {
		t.Errorf("%d of %d packs are opened, which were all written since: %+v", a.total, len(keys), a.result.Findings)
	}
	f.Store.Tamper(keys[0], good)

	// What was opened long ago, or by a clock that was ahead, does not count.
	for name, later := range map[string]time.Duration{"long ago": 25 * time.Hour, "ahead": -time.Hour} {
		resumed(t, f, path, 3)
		f.Now = f.Now.Add(later)
		if a := resumed(t, f, path, -1); a.total != len(keys) || !a.began.Equal(f.Now) {
			t.Errorf("%s: %d of %d packs are opened, since %v", name, a.total, len(keys), a.began)
		}
		f.Now = f.Now.Add(-later)
	}
}

// TestResumeDamaged cuts and damages what is remembered, at many places: then more is read, and the result is the same.
func TestResumeDamaged(t *testing.T) {
	f := many(t)
	path := filepath.Join(t.TempDir(), "resume")
	resumed(t, f, path, 4)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(text); i += 1 + len(text)/12 {
		for _, cut := range []bool{true, false} {
			changed := append([]byte(nil), text...)
			changed[i] ^= 1
			if cut {
				changed = changed[:i]
			}
			if err := os.WriteFile(path, changed, 0o600); err != nil {
				t.Fatal(err)
			}
			wantOK(t, resumed(t, f, path, -1).result)
		}
	}
}

func FuzzResume(f *testing.F) {
	f.Add([]byte("holdfast verify 1\n"))
	f.Add([]byte("holdfast verify 1\n\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x12\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "resume")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		now := time.Unix(1, 0)
		r, err := verify.OpenResume(path, now, 24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		packs := r.Packs()
		if err := r.Close(false); err != nil {
			t.Fatal(err)
		}
		again, err := verify.OpenResume(path, now, 24*time.Hour)
		if err != nil || again.Packs() != packs {
			t.Fatalf("%d packs, then %d: %v", packs, again.Packs(), err)
		}
		_ = again.Close(true)
	})
}
