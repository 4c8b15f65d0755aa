package verify_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore/file"
	"github.com/btcdecoded/holdfast/shared/repository/copier"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestDirectory damages files on a disk.
func TestDirectory(t *testing.T) {
	f := history(t)
	dir := t.TempDir()
	store, err := file.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := copier.Run(t.Context(), f.Repo, store, copier.Options{}); err != nil {
		t.Fatal(err)
	}
	repo := f.Open(t, store)
	opts := verify.Options{Level: verify.Content, Record: true, Now: time.Now}
	res, err := verify.Run(t.Context(), repo, opts)
	if err != nil {
		t.Fatal(err)
	}
	wantOK(t, res)
	for _, part := range []string{"/packs/", "/lists/", "/snapshots/", "/keys/"} {
		key := repotest.Keys(f.Store, part)[1]
		path := filepath.Join(dir, filepath.FromSlash(key))
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for problem, b := range map[string][]byte{"flipped": append([]byte{good[0] ^ 1}, good[1:]...), "truncated": good[:len(good)/2], "gone": nil} {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if b != nil {
				if err := os.WriteFile(path, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			res, err := verify.Run(t.Context(), repo, opts)
			if err != nil || res.OK() || find(res, key) == nil {
				t.Errorf("%s %s: %v, %+v", key, problem, err, res)
			}
			if err := os.WriteFile(path, good, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if res, err = verify.Run(t.Context(), repo, opts); err != nil || !res.OK() {
			t.Errorf("%s put back: %v, %+v", key, err, res)
		}
	}
}

func BenchmarkContent(b *testing.B) {
	f := repotest.New(b)
	const size = 128 << 20
	f.Backup(b, snapshot.Full, repotest.Tree{"/srv/big": repotest.Noise(1, size)})
	for _, level := range []verify.Level{verify.Bytes, verify.Content} {
		b.Run(string(level), func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				res, err := verify.Run(b.Context(), f.Repo, verify.Options{Level: level})
				if err != nil || !res.OK() {
					b.Fatal(err, res)
				}
			}
		})
	}
}
