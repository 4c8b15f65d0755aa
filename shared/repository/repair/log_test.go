package repair_test

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/copier"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/repair"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
)

func TestLogsArePutBack(t *testing.T) {
	f := repotest.New(t)
	w := f.OpenLog(t, "", 0, nil)
	start := log.Place{Stream: w.Stream()}
	f.Log = &start
	f.Backup(t, "", repotest.Tree{"/srv/db": []byte("base")})
	end := f.WriteLog(t, w, 1, 9, time.Second)
	end = f.WriteLog(t, f.OpenLog(t, w.Stream(), 1, &end), 10, 5, time.Second)
	copied := mem.New()
	if _, err := copier.Run(t.Context(), f.Repo, copied, copier.Options{}); err != nil {
		t.Fatal(err)
	}
	key := func(s *mem.Store, part string) string { return repotest.Keys(s, part)[0] }
	flip := func(s *mem.Store, key string) {
		b, _ := s.Object(key)
		b[len(b)/2] ^= 1
		s.Tamper(key, b)
	}
	for name, tt := range map[string]struct {
		damage func(*mem.Store)
		back   int
	}{
		"nothing":         {func(*mem.Store) {}, 0},
		"a piece is gone": {func(s *mem.Store) { s.Tamper(key(s, "0000000004-"), nil) }, 1},
		"a piece is bad":  {func(s *mem.Store) { flip(s, key(s, "0000000004-")) }, 1},
		"a head is gone":  {func(s *mem.Store) { s.Tamper(key(s, "0000000002/head"), nil) }, 1},
		"a head is bad":   {func(s *mem.Store) { flip(s, key(s, "0000000002/head")) }, 1},
		"an epoch is gone": {func(s *mem.Store) {
			for _, k := range repotest.Keys(s, "/0000000002/") {
				s.Tamper(k, nil)
			}
		}, 6},
	} {
		t.Run(name, func(t *testing.T) {
			g := f.Fork(t, f.Store.Clone())
			tt.damage(g.Store)
			// On record, as far as a verification sees it.
			if _, err := verify.Run(t.Context(), g.Repo, verify.Options{Level: verify.Content, Record: true}); err != nil {
				t.Fatal(err)
			}
			for _, dry := range []bool{true, false} {
				res, err := repair.Run(t.Context(), g.Store, g.Identity, repair.Options{From: copied, DryRun: dry})
				if err != nil || !res.OK() || res.Count(repair.PutBack) != tt.back {
					t.Fatalf("dry %v: %v, %+v", dry, err, res)
				}
			}
			if res, err := verify.Run(t.Context(), g.Repo, verify.Options{Level: verify.Content}); err != nil || !res.OK() || len(res.Findings) != 0 {
				t.Errorf("%v, %+v", err, res.Findings)
			}
			if got, err := g.ReadLog(t, g.Store, log.Range{From: start, Through: end}); err != nil || len(got) != 14 {
				t.Errorf("%d records, %v", len(got), err)
			}
			if left := repotest.Keys(g.Store, "/damaged/"); len(left) != 0 {
				t.Errorf("records are left: %q", left)
			}
		})
	}
}

// TestWALIsPutBack damages WAL of both timelines, and has it put back from a copy.
func TestWALIsPutBack(t *testing.T) {
	f := repotest.New(t)
	start, parted, end := f.Timelines(t)
	copied := mem.New()
	if _, err := copier.Run(t.Context(), f.Repo, copied, copier.Options{}); err != nil {
		t.Fatal(err)
	}
	old, latest := repotest.Keys(f.Store, parted.Stream+"/0000000002/0000000023-")[0], repotest.Keys(f.Store, end.Stream+"/0000000001/0000000027-")[0]
	b, _ := f.Store.Object(old)
	b[len(b)/2] ^= 1
	f.Store.Tamper(old, b)
	f.Store.Tamper(latest, nil)
	res, err := repair.Run(t.Context(), f.Store, f.Identity, repair.Options{From: copied, Check: true})
	if err != nil || !res.OK() || res.Count(repair.PutBack) != 2 {
		t.Fatalf("%v, %+v", err, res)
	}
	if got, err := f.ReadLog(t, f.Store, log.Range{From: start, Through: end}); err != nil || len(got) != 30 {
		t.Errorf("%v, %v", got, err)
	}
}
