package repair_test

import (
	"testing"

	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/repair"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
)

// TestGapStays wants that the record of WAL that does not go on, by which whoever writes the log makes a base backup, stays:
// the bytes are in order, and nothing is mended.
func TestGapStays(t *testing.T) {
	f := repotest.New(t)
	w := f.OpenWAL(t, 1, "", 0, nil)
	f.Log = &log.Place{Stream: w.Stream()}
	f.Backup(t, "", repotest.Tree{"/srv/db": []byte("base")})
	end := f.WriteWAL(t, w, 0x100000, 0x140000, 0x180000)
	f.WriteWAL(t, f.OpenWAL(t, 1, w.Stream(), 1, &end), 0x190000, 0x1A0000, 0x1B0000)
	for range 2 {
		if _, err := verify.Run(t.Context(), f.Repo, verify.Options{Level: verify.Content, Record: true}); err != nil {
			t.Fatal(err)
		}
		if keys := repotest.Keys(f.Store, "/damaged/log/"); len(keys) != 1 {
			t.Fatalf("what is on record: %q", keys)
		}
		if res := run(t, f, f.Store, repair.Options{From: f.Store.Clone()}); res.Count(repair.Left) != 1 || res.Count(repair.Cleared) != 0 {
			t.Errorf("%+v", res)
		}
	}
}
