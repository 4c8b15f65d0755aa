package prune_test

import (
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/prune"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
)

// TestTimelinesStayAsLongAsTheyAreNeeded: what follows the oldest snapshot that stays is kept over timelines, and a
// timeline that no snapshot needs goes whole.
func TestTimelinesStayAsLongAsTheyAreNeeded(t *testing.T) {
	f := repotest.New(t)
	_, parted, end := f.Timelines(t)
	f.Log = &end
	f.Backup(t, "", repotest.Tree{"/srv/db": []byte("on timeline 2")})
	f.Now = f.Now.Add(30 * day)
	f.Backup(t, "", repotest.Tree{"/srv/db": []byte("the store's clock goes on")})
	twice := func(base uint64) {
		t.Helper()
		for range 2 {
			run(t, f, prune.Options{LogBase: base})
			f.Now = f.Now.Add(8 * day)
		}
		sound(t, f)
	}
	// The second snapshot is where the timelines part: of the old one no record is needed, and of the new one all.
	twice(2)
	if left := repotest.Keys(f.Store, "/app/log/"+parted.Stream); len(left) != 1 || !strings.HasSuffix(left[0], "/0000000002/head.json") {
		t.Errorf("of the old timeline: %q", left)
	}
	if got, err := f.ReadLog(t, f.Store, log.Range{From: parted, Through: end}); err != nil || len(got) != 5 {
		t.Errorf("%v, %v", got, err)
	}
	twice(3)
	if left := repotest.Keys(f.Store, "/app/log/"); len(left) != 1 || !strings.Contains(left[0], end.Stream+"/0000000001/head.json") {
		t.Errorf("at the end: %q", left)
	}
}
