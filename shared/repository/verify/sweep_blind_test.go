package verify_test

import (
	"testing"

	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
)

// TestSweepWithoutList hides a list while the first packs of a sweep are read: what only that list names was not among
// them, and no snapshot passes because the list is back at the end.
func TestSweepWithoutList(t *testing.T) {
	for i := range len(repotest.Keys(history(t).Store, "/packs/")) {
		for j := range len(repotest.Keys(history(t).Store, "/lists/")) {
			f := history(t)
			repo := cloud(t, f)
			pack, list := repotest.Keys(f.Store, "/packs/")[i], repotest.Keys(f.Store, "/lists/")[j]
			good, _ := f.Store.Object(pack)
			f.Store.Tamper(pack, append([]byte("x"), good[1:]...))
			want := failed(run(t, f, f.Store, verify.Options{Level: verify.Bytes}))
			whole, _ := f.Store.Object(list)
			f.Store.Tamper(list, []byte("x"))
			sweep(t, f, repo, verify.Sweep{}, func(call int) {
				if call == 1 {
					f.Store.Tamper(list, whole)
				}
			})
			got := receipts(t, f, "bytes")
			for _, n := range want {
				if got[n] == "pass" {
					t.Errorf("pack %d, list %d: snapshot %d passes", i, j, n)
				}
			}
		}
	}
}
