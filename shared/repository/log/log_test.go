package log_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
)

func TestRecordsComeBack(t *testing.T) {
	f := repotest.New(t)
	w := create(t, f, options(f))
	end := write(t, f, w, 1, 40)
	check(t, f, log.Range{From: start(w.Stream()), Through: end}, numbers(1, 40))
	// What is in a record.
	reader := log.NewReader(f.Repo, f.Source, streams(t, f.Repo, f.Source))
	n := uint32(0)
	for r, err := range reader.Records(t.Context(), log.Range{From: start(w.Stream()), Through: end}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
		var got []uint32
		err := r.Each(func(number uint32, content []byte) error {
			got = append(got, number)
			if !bytes.Equal(content, page(number, n)) {
				return fmt.Errorf("page %d of commit %d", number, n)
			}
			return nil
		})
		want := []uint32{1, n%90 + 2}
		if err != nil || !slices.Equal(got, want) || r.Pages != 100 || r.PageSize != pageSize || r.More || r.Sequence != uint64(n) {
			t.Errorf("%+v: pages %d, %v", r, got, err)
		}
		if r.Sequence == 40 && r.Place != end {
			t.Errorf("%+v, appended as %+v", r.Place, end)
		}
	}
	// From the middle, and up to a time between two.
	third := f.Now.Add(-37 * time.Second)
	check(t, f, log.Range{From: start(w.Stream()), Through: end, Until: third.Add(time.Second - 1)}, numbers(1, 3))
	check(t, f, log.Range{From: start(w.Stream()), Through: end, Until: third.Add(time.Second)}, numbers(1, 4))
	check(t, f, log.Range{From: log.Place{Stream: w.Stream(), Epoch: 1, Sequence: 38}, Through: end}, numbers(39, 40))
	check(t, f, log.Range{From: end, Through: end}, nil)
	// A base that belongs to another record of that number.
	other := log.Place{Stream: w.Stream(), Epoch: 1, Sequence: 38, Record: strings.Repeat("ab", 32)}
	_, err := read(f.Repo, f.Source, streams(t, f.Repo, f.Source), log.Range{From: other, Through: end})
	if hole := new(log.HoleError); !errors.As(err, &hole) || hole.First != 39 || !errors.Is(err, log.ErrChain) {
		t.Errorf("%v", err)
	}
}

// TestRequests states what a log costs: one put for a record, one put and one listing for an epoch, nothing for idling;
// a restore lists once and reads N objects and a head, or a segment and one piece.
func TestRequests(t *testing.T) {
	f := repotest.New(t)
	count := func(fn func()) map[mem.Op]int {
		before := map[mem.Op]int{}
		ops := []mem.Op{mem.Put, mem.Get, mem.Stat, mem.List, mem.Delete}
		for _, op := range ops {
			before[op] = f.Store.Count(op)
		}
		fn()
		out := map[mem.Op]int{}
		for _, op := range ops {
			if n := f.Store.Count(op) - before[op]; n > 0 {
				out[op] = n
			}
		}
		return out
	}
	want := func(what string, got, want map[mem.Op]int) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	var w *log.Writer
	want("an epoch", count(func() { w = create(t, f, options(f)) }), map[mem.Op]int{mem.Put: 1, mem.List: 1})
	var end log.Place
	want("20 records", count(func() { end = write(t, f, w, 1, 20) }), map[mem.Op]int{mem.Put: 20})
	restore := func() { check(t, f, log.Range{From: start(w.Stream()), Through: end}, numbers(1, 20)) }
	want("a restore", count(restore), map[mem.Op]int{mem.List: 1, mem.Get: 1 + 20})
	want("joining", count(func() {
		if n, err := w.Join(t.Context(), 0); err != nil || n != 1 {
			t.Fatal(n, err)
		}
	}), map[mem.Op]int{mem.Put: 1})
	want("a restore of what is joined", count(restore), map[mem.Op]int{mem.List: 1, mem.Get: 1 + 2})
	want("looking for other writers", count(func() {
		if err := w.Superseded(t.Context()); err != nil {
			t.Fatal(err)
		}
	}), map[mem.Op]int{mem.List: 1})
	want("the newest record", count(func() {
		n, at, err := log.Newest(t.Context(), f.Store, f.Source, w.Stream(), 1, 12)
		if err != nil || n != 20 || !at.Equal(f.Now) {
			t.Error(n, at, err)
		}
	}), map[mem.Op]int{mem.List: len(layout.PiecePrefixes(f.Source, w.Stream(), 1, 13))})
}

func TestLargeTransactions(t *testing.T) {
	f := repotest.New(t)
	w := create(t, f, options(f))
	first, err := w.Append(t.Context(), commit(f.Now, 1, 3))
	if err != nil {
		t.Fatal(err)
	}
	// Three pieces, prepared ahead together with one behind.
	p, err := w.Prepare(large(f.Now.Add(time.Second), 2, 2500))
	if err != nil || p.Place().Sequence != 0 {
		t.Fatal(p.Place(), err)
	}
	q, err := w.Prepare(commit(f.Now.Add(2*time.Second), 3, 5))
	if err != nil {
		t.Fatal(err)
	}
	middle, err := w.Put(t.Context(), p)
	if err != nil || middle.Sequence != 4 {
		t.Fatal(middle, err)
	}
	end, err := w.Put(t.Context(), q)
	if err != nil || end.Sequence != 5 {
		t.Fatal(end, err)
	}
	check(t, f, log.Range{From: start(w.Stream()), Through: end}, []string{"1", "2", "2", "2", "3"})
	// Never a part of it: not by time, and not by what is there.
	check(t, f, log.Range{From: start(w.Stream()), Through: end, Until: f.Now}, []string{"1"})
	part := log.Place{Stream: w.Stream(), Epoch: 1, Sequence: 3}
	check(t, f, log.Range{From: start(w.Stream()), Through: part}, []string{"1"})
	check(t, f, log.Range{From: first, Through: middle}, []string{"2", "2", "2"})
}

func TestEpochsGoOn(t *testing.T) {
	f := repotest.New(t)
	w := create(t, f, options(f))
	end := write(t, f, w, 1, 5)
	for epoch := uint64(2); epoch <= 4; epoch++ {
		o := options(f)
		o.Stream, o.After, o.Continues = w.Stream(), epoch-1, &end
		w = create(t, f, o)
		if w.Epoch() != epoch {
			t.Fatal(w.Epoch())
		}
		end = write(t, f, w, uint32(epoch-1)*5+1, uint32(epoch)*5)
	}
	check(t, f, log.Range{From: start(w.Stream()), Through: end}, numbers(1, 20))
	check(t, f, log.Range{From: log.Place{Stream: w.Stream(), Epoch: 2, Sequence: 10}, Through: end}, numbers(11, 20))
	check(t, f, log.Range{From: log.Place{Stream: w.Stream(), Epoch: 2, Sequence: 7}, Through: end}, numbers(8, 20))
	// A fork: epoch 5 goes on after record 12, which is in epoch 3.
	third := log.Place{}
	for r, err := range log.NewReader(f.Repo, f.Source, streams(t, f.Repo, f.Source)).Records(t.Context(), log.Range{From: start(w.Stream()), Through: end}) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Sequence == 12 {
			third = r.Place
		}
	}
	o := options(f)
	o.Stream, o.After, o.Continues = w.Stream(), 4, &third
	fork := create(t, f, o)
	branch := write(t, f, fork, 113, 115)
	check(t, f, log.Range{From: start(w.Stream()), Through: branch}, slices.Concat(numbers(1, 12), numbers(113, 115)))
	check(t, f, log.Range{From: start(w.Stream()), Through: end}, numbers(1, 20))
	if _, err := read(f.Repo, f.Source, streams(t, f.Repo, f.Source), log.Range{From: log.Place{Stream: w.Stream(), Epoch: 3, Sequence: 14}, Through: branch}); err == nil {
		t.Error("records of one branch are applied to another")
	}
}

// TestJoin reads through segments, with and without the pieces, and past segments that are no good.
func TestJoin(t *testing.T) {
	f := repotest.New(t)
	w := create(t, f, options(f))
	write(t, f, w, 1, 10)
	if n, err := w.Join(t.Context(), 0); n != 0 || err != nil {
		t.Fatalf("%d segments of fewer than %d pieces, %v", n, log.MinJoin, err)
	}
	write(t, f, w, 11, 20)
	for range 2 { // the second time there is nothing to do
		if _, err := w.Join(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	end := write(t, f, w, 21, 25)
	all := streams(t, f.Repo, f.Source)
	e := all[0].Epochs[0]
	if len(e.Segments) != 1 || e.Segments[0].First != 1 || e.Segments[0].Last != 20 {
		t.Fatalf("%+v", e.Segments)
	}
	if ok, err := log.NewReader(f.Repo, f.Source, all).Proven(t.Context(), e, e.Segments[0]); !ok || err != nil {
		t.Errorf("not proven: %v", err)
	}
	rg := log.Range{From: start(w.Stream()), Through: end}
	segment := layout.LogKey(f.Source, layout.LogObject{Stream: w.Stream(), Epoch: 1, First: 1, Last: 20, Joined: true})
	gets := f.Store.Count(mem.Get)
	check(t, f, rg, numbers(1, 25))
	if n := f.Store.Count(mem.Get) - gets; n != 1+1+1+5 { // head, segment, the piece that proves it, the others
		t.Errorf("%d reads", n)
	}
	check(t, f, log.Range{From: log.Place{Stream: w.Stream(), Epoch: 1, Sequence: 13}, Through: end}, numbers(14, 25))
	t.Run("without pieces", func(t *testing.T) {
		g := f.Fork(t, f.Store.Clone())
		for n := uint64(1); n <= 20; n++ {
			g.Store.Tamper(layout.LogKey(g.Source, layout.LogObject{Stream: w.Stream(), Epoch: 1, First: n, Last: n}), nil)
		}
		check(t, g, rg, numbers(1, 25))
		check(t, g, log.Range{From: log.Place{Stream: w.Stream(), Epoch: 1, Sequence: 13}, Through: log.Place{Stream: w.Stream(), Epoch: 1, Sequence: 17}}, numbers(14, 17))
		g.Store.Tamper(segment, []byte("no good"))
		if got, err := read(g.Repo, g.Source, streams(t, g.Repo, g.Source), rg); err == nil || len(got) != 0 {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("segment damaged", func(t *testing.T) {
		g := f.Fork(t, f.Store.Clone())
		b, _ := g.Store.Object(segment)
		b[len(b)/2] ^= 1
		g.Store.Tamper(segment, b)
		check(t, g, rg, numbers(1, 25))
	})
	t.Run("segment gone", func(t *testing.T) {
		g := f.Fork(t, f.Store.Clone())
		listed := streams(t, g.Repo, g.Source)
		g.Store.Tamper(segment, nil)
		if got, err := read(g.Repo, g.Source, listed, rg); err != nil || len(got) != 25 {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// TestUntil never gives anything later than the limit, also where the clock was set back.
func TestUntil(t *testing.T) {
	f := repotest.New(t)
	w := create(t, f, options(f))
	times := []int{0, 5, 10, 7, 8, 20} // seconds
	var end log.Place
	for n, s := range times {
		var err error
		if end, err = w.Append(t.Context(), commit(f.Now.Add(time.Duration(s)*time.Second), uint32(n), 1)); err != nil {
			t.Fatal(err)
		}
	}
	for until := -1; until <= 21; until++ {
		limit := f.Now.Add(time.Duration(until) * time.Second)
		got, err := read(f.Repo, f.Source, streams(t, f.Repo, f.Source), log.Range{From: start(w.Stream()), Through: end, Until: limit})
		if err != nil {
			t.Fatal(err)
		}
		want := slices.IndexFunc(times, func(s int) bool { return s > until })
		if want < 0 {
			want = len(times)
		}
		if len(got) != want {
			t.Errorf("until %d: %d records, want %d", until, len(got), want)
		}
	}
}

// TestRandomHistories has restarts that know the last records and that do not, joins, and pieces that go once they are
// joined: each branch reads as it was written.
func TestRandomHistories(t *testing.T) {
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 5))
		f := repotest.New(t)
		type branch struct {
			place log.Place
			want  []string
		}
		var w *log.Writer
		now := branch{}
		var kept []branch // after each record
		n, epoch := uint32(0), uint64(0)
		for range 60 {
			switch k := rng.IntN(20); {
			case w == nil || k == 0: // a restart
				o := options(f)
				o.After = epoch
				if len(kept) > 0 {
					o.Stream = kept[0].place.Stream
					now = kept[len(kept)-1-rng.IntN(min(len(kept), 4))]
					o.Continues = &now.place
				}
				w = create(t, f, o)
				epoch++
			case k == 1:
				if _, err := w.Join(t.Context(), 2+rng.IntN(4)); err != nil {
					t.Fatal(err)
				}
			case k == 2:
				for _, s := range streams(t, f.Repo, f.Source) {
					for _, e := range s.Epochs {
						for _, seg := range e.Segments {
							for m := seg.First; m <= seg.Last; m++ {
								f.Store.Tamper(layout.LogKey(f.Source, layout.LogObject{Stream: s.ID, Epoch: e.Epoch, First: m, Last: m}), nil)
							}
						}
					}
				}
			default:
				n++
				now.place = write(t, f, w, n, n)
				now.want = append(slices.Clone(now.want), fmt.Sprint(n))
				kept = append(kept, now)
			}
		}
		for _, i := range []int{len(kept) / 3, len(kept) / 2, len(kept) - 1} {
			b := kept[i]
			check(t, f, log.Range{From: start(b.place.Stream), Through: b.place}, b.want)
			if from := rng.IntN(len(b.want)); from > 0 {
				k := slices.IndexFunc(kept, func(x branch) bool { return slices.Equal(x.want, b.want[:from]) })
				check(t, f, log.Range{From: kept[k].place, Through: b.place}, nilIfEmpty(b.want[from:]))
			}
		}
	}
}

// TestRights lets a host's signer that is limited to what agents write open a log, and one without the log's part not.
func TestRights(t *testing.T) {
	f := repotest.New(t)
	for _, tt := range []struct {
		only []string
		want error
	}{{[]string{"snapshots", "keys", "log", "receipts/host", "damaged"}, nil}, {[]string{"snapshots", "keys"}, repository.ErrForeignSigner}} {
		id := f.Grant(t, f.Source.Host, tt.only...)
		repo, err := repository.Open(t.Context(), f.Store, id)
		if err != nil {
			t.Fatal(err)
		}
		o := options(f)
		w, err := log.Create(t.Context(), repo, f.Source, o)
		if !errors.Is(err, tt.want) {
			t.Fatalf("%v: %v", tt.only, err)
		}
		if hint := interface{ Hint() string }(nil); err != nil && (!errors.As(err, &hint) || !strings.Contains(hint.Hint(), "holdfast host add "+f.Source.Host+" --signer ")) {
			t.Errorf("%v: no hint", err)
		}
		if err != nil {
			continue
		}
		// It may add and list, and read nothing.
		f.Store.SetHook(func(c mem.Call) mem.Fault {
			if c.Op == mem.Get || c.Op == mem.Stat {
				return mem.Fault{Err: objstore.ErrDenied}
			}
			return mem.Fault{}
		})
		end := write(t, f, w, 1, 20)
		if n, err := w.Join(t.Context(), 0); n != 1 || err != nil {
			t.Errorf("join: %d, %v", n, err)
		}
		f.Store.SetHook(nil)
		check(t, f, log.Range{From: start(w.Stream()), Through: end}, numbers(1, 20))
	}
}

// TestLaterRecipients lets somebody who was added later open what was written before.
func TestLaterRecipients(t *testing.T) {
	f := repotest.New(t)
	w := create(t, f, options(f))
	end := write(t, f, w, 1, 3)
	later, err := keyring.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "identity")
	if err := later.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	own, _ := f.Identity.Signer()
	id, err := keyring.ParseIdentity(strings.NewReader(string(text) + "trust " + own.Public().String() + " *\n"))
	if err != nil {
		t.Fatal(err)
	}
	repo, err := repository.Open(t.Context(), f.Store, id)
	if err != nil {
		t.Fatal(err)
	}
	all := streams(t, repo, f.Source)
	if _, err := read(repo, f.Source, all, log.Range{From: start(w.Stream()), Through: end}); !errors.Is(err, keyring.ErrNoIdentity) {
		t.Errorf("a stranger reads: %v", err)
	}
	for _, want := range []int{1, 0} {
		if n, err := f.Repo.ShareKeys(t.Context(), id.Recipients()[0]); err != nil || n != want {
			t.Fatal(n, err)
		}
	}
	if got, err := read(repo, f.Source, all, log.Range{From: start(w.Stream()), Through: end}); err != nil || len(got) != 3 {
		t.Errorf("%q, %v", got, err)
	}
}
