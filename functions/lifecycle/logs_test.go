package main

import (
	"fmt"
	"testing"

	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
)

// TestLogs has a pass each day over a source with a log: what no moment of the window needs goes, again and again, and what
// stays is locked.
func TestLogs(t *testing.T) {
	s := newStage(t, "{keep_within: 10d}")
	w := s.OpenLog(t, "", 0, nil)
	end := log.Place{Stream: w.Stream()}
	for d := range 45 {
		if d%5 == 0 {
			at := end
			s.Log = &at
			m := s.Backup(t, "", repotest.Tree{"/srv/db": fmt.Append(nil, d)})
			s.verify(s.Store, m.Sequence)
		}
		end = s.WriteLog(t, w, d+1, 1, day)
		if out := s.call(tick); out.Failed > 0 || out.Done != 1 {
			t.Fatalf("day %d: %+v: %s", d, out, s.doc().Error)
		}
		if p := s.doc().Protected; len(s.findings()) > 0 || p != nil && p.Until.Before(p.Wanted) {
			t.Fatalf("day %d: %v, %+v", d, s.findings(), p)
		}
	}
	left, gone := repotest.Keys(s.Store, "/log/"+w.Stream()+"/"), repotest.Keys(s.Store, "/expired/log/")
	if len(left) < 15 || len(left) > 50 || len(gone) == 0 || len(gone) > 4 {
		t.Errorf("%d objects of the log are left, and %q", len(left), gone)
	}
	res, err := verify.Run(t.Context(), s.Open(t, s.Store), verify.Options{Level: verify.Content})
	if err != nil || !res.OK() {
		t.Errorf("%v, %+v", err, res.Findings)
	}
}
