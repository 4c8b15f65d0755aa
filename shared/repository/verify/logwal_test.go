package verify_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
)

// places are n places in the WAL after from, apart by step.
func places(from, step postgres.LSN, n int) []postgres.LSN {
	var out []postgres.LSN
	for range n {
		from += step
		out = append(out, from)
	}
	return out
}

// gaps runs a verification of everything and returns what it says of WAL, without the moments.
func gaps(t *testing.T, f *repotest.Fixture) []string {
	t.Helper()
	res, err := verify.Run(t.Context(), f.Repo, verify.Options{Level: verify.Content})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, one := range res.Findings {
		what, _, _ := strings.Cut(one.Detail, "; ")
		if one.Problem != verify.Gap || one.Lost == nil {
			what = string(one.Problem) + ": " + what
		}
		out = append(out, what)
	}
	if res.OK() != (len(out) == 0) {
		t.Errorf("ok: %v with %q", res.OK(), out)
	}
	return out
}

// TestWAL verifies WAL over epochs and two timelines, as it was written, joined, and after retention.
func TestWAL(t *testing.T) {
	f := repotest.New(t)
	w := f.OpenWAL(t, 1, "", 0, nil)
	f.Log = &log.Place{Stream: w.Stream()}
	f.Backup(t, "", repotest.Tree{"/srv/db": []byte("base")})
	end := f.WriteWAL(t, w, 0x100000, places(0x100000, 0x10000, 40)...)
	if n, err := w.Join(t.Context(), 0); n < 1 || err != nil {
		t.Fatal(n, err)
	}
	w = f.OpenWAL(t, 1, w.Stream(), 1, &end)
	end = f.WriteWAL(t, w, 0x380000, places(0x380000, 0x8000, 10)...)
	f.Log = &end
	f.Backup(t, "", repotest.Tree{"/srv/db": []byte("later")})
	second := f.OpenWAL(t, 2, "", 0, &end)
	f.WriteHistory(t, second, 2, "1\t0/3C0000\tno recovery target specified\n")
	f.WriteWAL(t, second, 0x300000, places(0x300000, 0x8000, 20)...)
	if found := gaps(t, f); len(found) > 0 {
		t.Errorf("%q", found)
	}
	// What prune leaves: segments, without the pieces of which they have all.
	for n := uint64(1); n <= 40; n++ {
		f.Store.Tamper(layout.LogKey(f.Source, layout.LogObject{Stream: w.Stream(), Epoch: 1, First: n, Last: n}), nil)
	}
	if found := gaps(t, f); len(found) > 0 {
		t.Errorf("joined: %q", found)
	}
}

// TestGapsOfWAL verifies logs whose records are in order, but not their WAL: each writer knew only its own.
func TestGapsOfWAL(t *testing.T) {
	for name, tt := range map[string]struct {
		write func(f *repotest.Fixture, w *log.Writer, end log.Place)
		want  string
	}{
		"missing over epochs": {func(f *repotest.Fixture, w *log.Writer, end log.Place) {
			f.WriteWAL(t, f.OpenWAL(t, 1, w.Stream(), 1, &end), 0x190000, 0x1A0000, 0x1B0000)
		}, "WAL of timeline 1 from 0/180000 to 0/190000 is missing"},
		"missing over timelines": {func(f *repotest.Fixture, _ *log.Writer, end log.Place) {
			second := f.OpenWAL(t, 2, "", 0, &end)
			f.WriteHistory(t, second, 2, "1\t0/270000\tx\n")
			f.WriteWAL(t, second, 0x200000, 0x280000, 0x290000)
		}, "WAL of timeline 2 from 0/180000 to 0/200000 is missing"},
		"left before": {func(f *repotest.Fixture, _ *log.Writer, end log.Place) {
			second := f.OpenWAL(t, 2, "", 0, &end)
			f.WriteHistory(t, second, 2, "1\t0/170000\tx\n")
			f.WriteWAL(t, second, 0x100000, 0x110000)
		}, ""},
		"of another": {func(f *repotest.Fixture, _ *log.Writer, end log.Place) {
			third := f.OpenWAL(t, 3, "", 0, &end)
			f.WriteHistory(t, third, 3, "2\t0/170000\tx\n")
			f.WriteWAL(t, third, 0x100000, 0x110000)
		}, "WAL of timeline 3 at 0/100000: it does not come from timeline 1"},
	} {
		t.Run(name, func(t *testing.T) {
			f := repotest.New(t)
			w := f.OpenWAL(t, 1, "", 0, nil)
			f.Log = &log.Place{Stream: w.Stream()}
			f.Backup(t, "", repotest.Tree{"/srv/db": []byte("base")})
			end := f.WriteWAL(t, w, 0x100000, 0x140000, 0x180000)
			tt.write(f, w, end)
			var want []string
			if tt.want != "" {
				want = append(want, tt.want)
			}
			if got := gaps(t, f); !slices.Equal(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
			f.Now = f.Now.Add(time.Second)
		})
	}
}
