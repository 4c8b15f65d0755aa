package verify_test

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
)

// TestArchived: what must be thawed is not read, is no finding, is counted, and no receipt says that it was read.
func TestArchived(t *testing.T) {
	for name, told := range map[string]bool{"the listing tells": true, "only the attempt tells": false} {
		f := history(t)
		repo := cloud(t, f)
		packs := repotest.Keys(f.Store, "/packs/")
		for _, key := range packs {
			if told {
				f.Store.SetClass(key, objstore.Frozen)
			}
		}
		if !told {
			f.Store.SetHook(func(c mem.Call) mem.Fault {
				if c.Op == mem.Get && c.Key == packs[0] {
					return mem.Fault{Err: objstore.ErrArchived}
				}
				return mem.Fault{}
			})
		}
		before := f.Store.Count(mem.Get)
		end, _, res := sweep(t, f, repo, verify.Sweep{}, nil)
		wantOK(t, res)
		frozen := 1
		if told {
			frozen = len(packs)
		}
		if end.Frozen != frozen || end.Packs != len(packs)-frozen {
			t.Errorf("%s: %+v", name, end)
		}
		if got := receipts(t, f, "bytes"); told && len(got) != 0 || len(got) == len(res.Snapshots) {
			t.Errorf("%s: receipts of what was not read: %v", name, got)
		}
		if gets := f.Store.Count(mem.Get) - before; !told && gets == 0 {
			t.Error("nothing was read")
		}
		if len(repotest.Keys(f.Store, "/damaged/")) != 0 {
			t.Errorf("%s: records of damage", name)
		}
		// The command says the same.
		res = run(t, f, f.Store, verify.Options{Level: verify.Bytes, Record: true})
		wantOK(t, res)
		if res.Archived != frozen || told && len(receipts(t, f, "bytes")) != 0 {
			t.Errorf("%s: %d archived, receipts %v", name, res.Archived, receipts(t, f, "bytes"))
		}
	}
}

// TestCoolTakesTurns: of what is dear to read each sweep reads a share, and in as many sweeps all of it; what is known to
// be bad is read each time.
func TestCoolTakesTurns(t *testing.T) {
	f := history(t)
	repo := cloud(t, f)
	packs := repotest.Keys(f.Store, "/packs/")
	for _, key := range packs {
		f.Store.SetClass(key, objstore.Cool)
	}
	read, spared := 0, 0
	const share = 3
	for turn := range uint64(share) {
		next, res, done, err := verify.Continue(t.Context(), repo, f.Source, verify.Sweep{}, verify.Budget{Cool: share, Turn: turn}, cloudOptions(f))
		if err != nil || !done {
			t.Fatal(done, err)
		}
		wantOK(t, res)
		read, spared = read+next.Packs, spared+next.Spared
	}
	if read != len(packs) || spared != (share-1)*len(packs) {
		t.Errorf("%d read and %d spared of %d", read, spared, len(packs))
	}
	good, _ := f.Store.Object(packs[0])
	f.Store.Tamper(packs[0], append([]byte("x"), good[1:]...))
	bad := 0
	for turn := range uint64(2 * share) {
		f.Now = f.Now.Add(time.Hour)
		_, res, _, err := verify.Continue(t.Context(), repo, f.Source, verify.Sweep{}, verify.Budget{Cool: share, Turn: turn}, cloudOptions(f))
		if err != nil {
			t.Fatal(err)
		}
		if len(failed(res)) > 0 {
			bad++
		}
	}
	if bad <= share {
		t.Errorf("damage was found in %d of %d sweeps only", bad, 2*share)
	}
}
