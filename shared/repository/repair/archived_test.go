package repair_test

import (
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/copier"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repair"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
)

// TestArchivedStays: that a pack or a piece must be thawed before it can be read is no damage. It is neither deleted nor put
// again, and one that is on record as damaged waits.
func TestArchivedStays(t *testing.T) {
	f := history(t)
	w := f.OpenLog(t, "", 0, nil)
	f.WriteLog(t, w, 1, 3, 0)
	to := mem.New()
	if _, err := copier.Run(t.Context(), f.Repo, to, copier.Options{}); err != nil {
		t.Fatal(err)
	}
	packs := repotest.Keys(f.Store, "/packs/")
	pieces := repotest.Keys(f.Store, "/0000000001/0")
	for _, key := range append(packs, pieces...) {
		f.Store.SetClass(key, objstore.Deep)
	}
	name := packs[0][strings.LastIndex(packs[0], "/")+1:]
	id, err := layout.ParseHash(name)
	if err != nil {
		t.Fatal(err)
	}
	put(t, f, layout.DamagedKey(f.Source, id), record.Damaged{Pack: name, Chain: strings.Split(packs[0], "/")[4], Time: f.Now, Problem: "bad"})
	puts, deletes := f.Store.Count(mem.Put), f.Store.Count(mem.Delete)
	res := run(t, f, f.Store, repair.Options{From: to, Check: true})
	if n, m := f.Store.Count(mem.Put)-puts, f.Store.Count(mem.Delete)-deletes; n+m > 0 {
		t.Errorf("%d objects were put and %d deleted: %+v", n, m, res.Items)
	}
	if len(res.Items) != 1 || res.Items[0].Outcome != repair.Left || !strings.Contains(res.Items[0].Reason, "thaw") || res.Archived != len(packs)+len(pieces) {
		t.Errorf("%+v", res)
	}
}
