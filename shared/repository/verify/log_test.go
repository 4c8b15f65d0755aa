package verify_test

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
)

// logged is a source with two snapshots and a log of two epochs: records 1 to 20, then 21 to 30; 1 to 18 are joined. The
// second snapshot is at record 25.
func logged(t *testing.T) (f *repotest.Fixture, stream string) {
	t.Helper()
	f = repotest.New(t)
	w := f.OpenLog(t, "", 0, nil)
	f.Log = &log.Place{Stream: w.Stream()}
	f.Backup(t, "", repotest.Tree{"/srv/db": []byte("base")})
	f.WriteLog(t, w, 1, 18, time.Second)
	if n, err := w.Join(t.Context(), 0); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	end := f.WriteLog(t, w, 19, 2, time.Second)
	second := f.OpenLog(t, w.Stream(), 1, &end)
	at := f.WriteLog(t, second, 21, 5, time.Second)
	f.Log = &at
	f.Backup(t, "", repotest.Tree{"/srv/db": []byte("later")})
	f.WriteLog(t, second, 26, 5, time.Second)
	return f, w.Stream()
}

func TestLogs(t *testing.T) {
	f, stream := logged(t)
	key := func(epoch, first, last uint64, joined bool) string {
		return layout.LogKey(f.Source, layout.LogObject{Stream: stream, Epoch: epoch, First: first, Last: last, Joined: joined})
	}
	piece := func(epoch, n uint64) string { return key(epoch, n, n, false) }
	content := func(s *mem.Store, key string) []byte {
		b, _ := s.Object(key)
		return b
	}
	for _, level := range []verify.Level{verify.Structure, verify.Bytes, verify.Content} {
		res, err := verify.Run(t.Context(), f.Repo, verify.Options{Level: level})
		if err != nil || !res.OK() || len(res.Findings) != 0 || level != verify.Structure && res.LogObjects != 31 {
			t.Errorf("%s: %v, %d objects of logs, %+v", level, err, res.LogObjects, res.Findings)
		}
	}
	for name, tt := range map[string]struct {
		level  verify.Level // at which it is found
		damage func(*mem.Store)
		key    string
		want   verify.Problem
		lost   bool
	}{
		"a piece is missing":       {verify.Structure, func(s *mem.Store) { s.Tamper(piece(2, 23), nil) }, piece(2, 23), verify.Missing, true},
		"several are missing":      {verify.Structure, func(s *mem.Store) { s.Tamper(piece(2, 28), nil); s.Tamper(piece(2, 29), nil) }, piece(2, 28), verify.Missing, true},
		"the end of an epoch":      {verify.Structure, func(s *mem.Store) { s.Tamper(piece(1, 20), nil) }, piece(1, 20), verify.Missing, true},
		"what a manifest names":    {verify.Structure, func(s *mem.Store) { removeFrom(s, stream, 25) }, piece(2, 25), verify.Missing, true},
		"a head is missing":        {verify.Structure, func(s *mem.Store) { s.Tamper(key(2, 0, 0, false), nil) }, key(2, 0, 0, false), verify.Missing, true},
		"an epoch is missing":      {verify.Structure, func(s *mem.Store) { s.Tamper(key(2, 0, 0, false), nil); removeFrom(s, stream, 21) }, key(2, 0, 0, false), verify.Missing, false},
		"a head is forged":         {verify.Structure, func(s *mem.Store) { replace(s, key(2, 0, 0, false), "opened", "opemed") }, key(2, 0, 0, false), verify.Signature, true},
		"a head is another's":      {verify.Structure, func(s *mem.Store) { s.Tamper(key(2, 0, 0, false), content(s, key(1, 0, 0, false))) }, key(2, 0, 0, false), verify.Replayed, true},
		"a piece is torn":          {verify.Bytes, func(s *mem.Store) { s.Tamper(piece(2, 23), content(s, piece(2, 23))[:120]) }, piece(2, 23), verify.BytesDiffer, true},
		"a bit of a piece":         {verify.Bytes, func(s *mem.Store) { flip(s, piece(2, 23)) }, piece(2, 23), verify.BytesDiffer, true},
		"a bit of a segment":       {verify.Bytes, func(s *mem.Store) { flip(s, key(1, 1, 18, true)) }, key(1, 1, 18, true), verify.BytesDiffer, false},
		"a piece is replayed":      {verify.Bytes, func(s *mem.Store) { s.Tamper(piece(2, 23), content(s, piece(2, 22))) }, piece(2, 23), verify.Replayed, true},
		"a piece of another epoch": {verify.Bytes, func(s *mem.Store) { s.Tamper(piece(2, 23), content(s, piece(1, 19))) }, piece(2, 23), verify.Replayed, true},
		"a segment in another place": {verify.Bytes, func(s *mem.Store) {
			s.Tamper(key(1, 2, 19, true), content(s, key(1, 1, 18, true)))
		}, key(1, 2, 19, true), verify.Replayed, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := f.Fork(t, f.Store.Clone())
			tt.damage(g.Store)
			for _, level := range []verify.Level{verify.Structure, verify.Bytes, verify.Content} {
				res, err := verify.Run(t.Context(), g.Repo, verify.Options{Level: level})
				if err != nil {
					t.Fatal(err)
				}
				i := slices.IndexFunc(res.Findings, func(f verify.Finding) bool { return f.Key == tt.key && f.Problem == tt.want })
				if deep := level == tt.level || level == verify.Content || tt.level == verify.Structure; deep != (i >= 0) || deep == res.OK() {
					t.Errorf("%s: %+v", level, res.Findings)
				} else if deep && (res.Findings[i].Lost != nil) != tt.lost {
					t.Errorf("%s: lost: %+v", level, res.Findings[i].Lost)
				}
				for _, s := range res.Snapshots {
					if !s.Pass {
						t.Errorf("%s: snapshot %s is hit", level, s.ID)
					}
				}
			}
		})
	}
	t.Run("moments", func(t *testing.T) {
		g := f.Fork(t, f.Store.Clone())
		g.Store.Tamper(piece(2, 23), nil)
		res, err := verify.Run(t.Context(), g.Repo, verify.Options{Level: verify.Structure})
		if err != nil || len(res.Findings) != 1 || res.Findings[0].Lost == nil {
			t.Fatalf("%v, %+v", err, res.Findings)
		}
		// From record 22 to the second snapshot, which was made with record 25.
		if lost := res.Findings[0].Lost; !lost.From.Equal(f.Now.Add(-8*time.Second)) || !lost.To.Equal(f.Now.Add(-5*time.Second)) {
			t.Errorf("%s to %s, now is %s", lost.From, lost.To, f.Now)
		}
	})
	t.Run("another record than the manifest's", func(t *testing.T) {
		g := f.Fork(t, f.Store.Clone())
		wrong := *f.Log
		wrong.Record = strings.Repeat("ab", 32)
		g.Log = &wrong
		g.Backup(t, "", repotest.Tree{"/srv/db": []byte("later")})
		res, err := verify.Run(t.Context(), g.Repo, verify.Options{Level: verify.Content})
		if err != nil || res.OK() || res.Findings[0].Problem != verify.Contradicts {
			t.Errorf("%v, %+v", err, res.Findings)
		}
	})
	t.Run("removed by retention", func(t *testing.T) {
		g := f.Fork(t, f.Store.Clone())
		g.Store.Tamper(piece(1, 19), nil)
		g.Store.Tamper(piece(1, 20), nil)
		cut := record.LogCut{Stream: stream, Epoch: 1, Sequence: 20, Time: g.Now}
		if err := g.Repo.PutDocument(t.Context(), layout.ExpiredLogKey(g.Source, stream, 1, 20), cut); err != nil {
			t.Fatal(err)
		}
		res, err := verify.Run(t.Context(), g.Repo, verify.Options{Level: verify.Content})
		if err != nil || !res.OK() {
			t.Errorf("%v, %+v", err, res.Findings)
		}
	})
	t.Run("on record", func(t *testing.T) {
		g := f.Fork(t, f.Store.Clone())
		flip(g.Store, piece(2, 23))
		if _, err := verify.Run(t.Context(), g.Repo, verify.Options{Level: verify.Bytes, Record: true}); err != nil {
			t.Fatal(err)
		}
		inv, err := inventory.Take(t.Context(), g.Store, g.Source)
		if err != nil || len(inv.LogDamaged) != 1 || len(inv.Unknown) != 0 {
			t.Fatalf("%v: %v, unknown: %v", err, inv.LogDamaged, inv.Unknown)
		}
		res, err := verify.Run(t.Context(), g.Repo, verify.Options{Level: verify.Structure})
		if err != nil || !res.OK() || len(res.Findings) != 1 || res.Findings[0].Problem != verify.KnownDamaged {
			t.Errorf("%v, %+v", err, res.Findings)
		}
	})
}

// removeFrom takes the pieces of epoch 2 from a record on away.
func removeFrom(s *mem.Store, stream string, first int) {
	for _, key := range repotest.Keys(s, "/log/"+stream+"/0000000002/") {
		if name := path.Base(key); name != "head.json" && name >= fmt.Sprintf("%010d", first) {
			s.Tamper(key, nil)
		}
	}
}

func flip(s *mem.Store, key string) {
	b, _ := s.Object(key)
	b[len(b)/2] ^= 1
	s.Tamper(key, b)
}

func replace(s *mem.Store, key, from, to string) {
	b, _ := s.Object(key)
	s.Tamper(key, bytes.Replace(b, []byte(from), []byte(to), 1))
}
