package paged_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/source/paged"
	"github.com/btcdecoded/holdfast/hostagent/source/paged/pagedtest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const page = 4096

// file is a file that is stored step by step.
type file struct {
	t       *testing.T
	session *pagedtest.Session
	writer  *paged.Writer
}

func now(ctx context.Context, job func() error) error {
	if err := job(); err != nil {
		return err
	}
	return ctx.Err()
}

func begin(t *testing.T, s *pagedtest.Session, before *snapshot.Entry, size int) *file {
	t.Helper()
	w := paged.New(paged.Options{Session: s, Path: "/db", Page: page, Size: uint64(size), Before: before, Later: now})
	return &file{t: t, session: s, writer: w}
}

// region gives a region of content whole.
func (f *file) region(number int, content []byte) {
	f.t.Helper()
	if err := f.writer.Region(f.t.Context(), number, bytes.Clone(content), nil); err != nil {
		f.t.Fatal(err)
	}
}

// patch gives pages of a region, which has a length then.
func (f *file) patch(number, length int, pages map[int][]byte) {
	f.t.Helper()
	data := bytes.Repeat([]byte("rubbish "), length/8)
	for i, p := range pages {
		copy(data[i*page:], p)
	}
	has := func(i int) bool { return pages[i] != nil }
	if err := f.writer.Patch(f.t.Context(), number, data, has, nil); err != nil {
		f.t.Fatal(err)
	}
}

// finish completes the file and compares it.
func (f *file) finish(want []byte) *snapshot.Entry {
	f.t.Helper()
	extents, maps, err := f.writer.Finish(f.t.Context(), uint64(len(want)))
	if err != nil {
		f.t.Fatal(err)
	}
	if (len(maps) > 0) != (len(want) > snapshot.MapSpan) {
		f.t.Errorf("%d maps for %d bytes", len(maps), len(want))
	}
	got, err := f.session.Content(extents, maps)
	if err != nil {
		f.t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		f.t.Fatalf("%d bytes differ from the %d that were given", len(got), len(want))
	}
	e := &snapshot.Entry{Path: "/db", Type: snapshot.File, Size: uint64(len(want)), Extents: extents, Maps: maps}
	if err := f.session.Emit(f.t.Context(), e); err != nil {
		f.t.Fatal(err)
	}
	return e
}

func random(rng *rand.ChaCha8, n int) []byte {
	b := make([]byte, n)
	_, _ = rng.Read(b)
	return b
}

// TestGivenAgain stores files of one and of several regions, gives regions again, whole and in part, longer and shorter,
// over several snapshots, and checks that what was stored before is never stored twice.
func TestGivenAgain(t *testing.T) {
	for seed := range byte(8) {
		source := rand.NewChaCha8([32]byte{seed})
		rng := rand.New(source)
		span := snapshot.MapSpan
		want := random(source, page*[]int{70, 2048, 2049, 5000}[seed%4])
		s := pagedtest.New()
		var before *snapshot.Entry
		for generation := range 4 {
			f := begin(t, s, before, len(want))
			if generation > 0 {
				for range 20 {
					_, _ = source.Read(want[page*rng.IntN(len(want)/page):][:100])
				}
			}
			for at := 0; at < len(want); at += span {
				f.region(at/span, want[at:min(len(want), at+span)])
			}
			if err := f.writer.Settle(t.Context()); err != nil {
				t.Fatal(err)
			}
			first := s.Added()
			changed := 0
			for step := range 12 {
				number := rng.IntN((len(want) + span - 1) / span)
				from := number * span
				length := min(span, len(want)-from)
				switch step % 3 {
				case 0: // nothing new
					f.region(number, want[from:from+length])
				case 1:
					i := rng.IntN(length / page)
					_, _ = source.Read(want[from+i*page:][:page])
					changed += page
					f.region(number, want[from:from+length])
				case 2:
					pages := map[int][]byte{}
					for range 1 + rng.IntN(5) {
						i := rng.IntN(length / page)
						_, _ = source.Read(want[from+i*page:][:page/2])
						pages[i] = want[from+i*page:][:page]
					}
					changed += len(pages) * page
					f.patch(number, length, pages)
				}
			}
			// In the end it is shorter or longer.
			last := (len(want) - 1) / span
			length := len(want) - last*span
			if generation%2 == 0 && length > 3*page {
				want = want[:len(want)-page]
				f.patch(last, length-page, nil)
			} else if length+2*page <= span {
				want = append(want, make([]byte, page)...)
				want = append(want, random(source, page)...)
				f.patch(last, length+2*page, map[int][]byte{length/page + 1: want[len(want)-page:]})
				changed += 2 * page
			}
			if limit := first + changed + 300_000; s.Added() > limit {
				t.Errorf("seed %d: %d bytes were added, %d at first, %d changed", seed, s.Added(), first, changed)
			}
			before = f.finish(want)
			s = s.Child(time.Time{})
		}
	}
}

// TestWithoutHashes patches what nothing is known of.
func TestWithoutHashes(t *testing.T) {
	source := rand.NewChaCha8([32]byte{1})
	s := pagedtest.New()
	s.Forgetful = true
	want := random(source, 3*snapshot.MapSpan/2)
	f := begin(t, s, nil, len(want))
	f.region(0, want[:snapshot.MapSpan])
	f.region(1, want[snapshot.MapSpan:])
	copy(want[7*page:], random(source, page))
	f.patch(0, snapshot.MapSpan, map[int][]byte{7: want[7*page : 8*page]})
	f.finish(want)
}

// TestGrown has a file that was thought to need no map, and one that grows by whole regions.
func TestGrown(t *testing.T) {
	source := rand.NewChaCha8([32]byte{2})
	want := random(source, 2*snapshot.MapSpan+5*page)
	f := begin(t, pagedtest.New(), nil, 100*page)
	f.region(0, want[:100*page])
	all := func(from, to int) map[int][]byte {
		pages := map[int][]byte{}
		for at := from; at < to; at += page {
			pages[(at-from)/page] = want[at : at+page]
		}
		return pages
	}
	for number := range 3 {
		from := number * snapshot.MapSpan
		to := min(len(want), from+snapshot.MapSpan)
		f.patch(number, to-from, all(from, to))
	}
	f.finish(want)
}

// TestForget has a file that became shorter while it was read.
func TestForget(t *testing.T) {
	source := rand.NewChaCha8([32]byte{3})
	want := random(source, 2*snapshot.MapSpan)
	f := begin(t, pagedtest.New(), nil, len(want))
	f.region(0, want[:snapshot.MapSpan])
	f.region(1, want[snapshot.MapSpan:])
	if err := f.writer.Forget(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.writer.Finish(t.Context(), uint64(len(want))); err == nil {
		t.Error("a region is missing, and nobody says so")
	}
	clear(want[snapshot.MapSpan:])
	copy(want[snapshot.MapSpan+page:], random(source, page))
	unknown := 0
	f.writer.Unknown = func(region, i int) {
		if region != 1 || i == 1 {
			t.Errorf("page %d of region %d was given", i, region)
		}
		unknown++
	}
	f.patch(1, snapshot.MapSpan, map[int][]byte{1: want[snapshot.MapSpan+page:][:page]})
	if want := snapshot.MapSpan/page - 1; unknown != want {
		t.Errorf("%d pages are unknown, want %d", unknown, want)
	}
	f.finish(want)
	f.finishEmpty()
}

func (f *file) finishEmpty() {
	f.t.Helper()
	if extents, maps, err := f.writer.Finish(f.t.Context(), 0); err != nil || extents != nil || maps != nil {
		f.t.Error(extents, maps, err)
	}
}

// TestChanged asks which pages differ.
func TestChanged(t *testing.T) {
	source := rand.NewChaCha8([32]byte{4})
	want := random(source, 100*page)
	s := pagedtest.New()
	f := begin(t, s, nil, len(want))
	f.region(0, want)
	if err := f.writer.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	copy(want[3*page:], "other")
	var got []int
	more := append(bytes.Clone(want), random(source, page)...)
	err := f.writer.Changed(t.Context(), 0, more, func(i int, content []byte) error {
		if !bytes.Equal(content, more[i*page:][:page]) {
			t.Errorf("page %d has other content", i)
		}
		got = append(got, i)
		return nil
	})
	if err != nil || len(got) != 2 || got[0] != 3 || got[1] != 100 {
		t.Errorf("%v, %v", got, err)
	}
	stop := errors.New("enough")
	if err := f.writer.Changed(t.Context(), 5, want, func(int, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}
