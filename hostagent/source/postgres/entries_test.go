package postgres

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// many are entries in the order of trees, more than are held in memory.
func many() []*snapshot.Entry {
	var all []*snapshot.Entry
	all = append(all, &snapshot.Entry{Path: "/data", Type: snapshot.Directory, Mode: 0o700})
	for d := range 40 {
		dir := fmt.Sprintf("/data/base/%d", 10000+d)
		all = append(all, &snapshot.Entry{Path: dir, Type: snapshot.Directory, Mode: 0o700})
		for f := range 1500 {
			size := uint64(1 + f)
			all = append(all, &snapshot.Entry{
				Path: fmt.Sprintf("%s/%d", dir, 20000+f), Type: snapshot.File, Mode: 0o600, Size: size, HasFileID: true, FileID: snapshot.FileID{byte(f), byte(d), 1},
				Extents: []snapshot.Extent{{Ref: snapshot.Ref{ID: snapshot.Hash{byte(d), byte(f >> 8), 9}, Pack: uint64(d) + 1, Offset: 64, Sealed: 5000, Plain: 5000}, Length: size}},
			})
		}
	}
	slices.SortFunc(all, func(a, b *snapshot.Entry) int { return snapshot.ComparePaths(a.Path, b.Path) })
	return all
}

func TestEntriesComeBackInOrder(t *testing.T) {
	want := many()
	mixed := slices.Clone(want)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
	dir := t.TempDir()
	s := &entries{temp: dir}
	defer s.close()
	for _, e := range mixed {
		if err := s.add(e); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.ends) < 1 {
		t.Fatal("nothing went to disk: the test is too small")
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%s has a name", left[0].Name())
	}
	i := 0
	err := s.each(func(e *snapshot.Entry) error {
		if string(snapshot.AppendEntry(nil, "", e)) != string(snapshot.AppendEntry(nil, "", want[i])) {
			return fmt.Errorf("entry %d is %+v, want %+v", i, e, want[i])
		}
		i++
		return nil
	})
	if err != nil || i != len(want) {
		t.Errorf("%d of %d entries came back: %v", i, len(want), err)
	}
}

func TestEntriesOnce(t *testing.T) {
	s := &entries{temp: t.TempDir()}
	for range 2 {
		if err := s.add(&snapshot.Entry{Path: "/a", Type: snapshot.Directory}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.each(func(*snapshot.Entry) error { return nil }); err == nil {
		t.Error("a path may come twice")
	}
	if err := s.add(&snapshot.Entry{Path: "relative", Type: snapshot.Directory}); err == nil {
		t.Error("an entry that no tree may have was taken")
	}
}

// parentSession has entries of a parent, and nothing else.
type parentSession struct {
	Session
	entries []*snapshot.Entry
	fault   error
}

func (s parentSession) Parent(context.Context) iter.Seq2[*snapshot.Entry, error] {
	return func(yield func(*snapshot.Entry, error) bool) {
		for _, e := range s.entries {
			if !yield(e, nil) {
				return
			}
		}
		if s.fault != nil {
			yield(nil, s.fault)
		}
	}
}

func TestParentsFilesAreFound(t *testing.T) {
	all := many()
	p, err := readParent(t.Context(), parentSession{entries: all}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.close() }()
	r := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		want := all[r.IntN(len(all))]
		got, err := p.find(want.Path)
		if err != nil {
			t.Fatal(err)
		}
		if want.Type != snapshot.File {
			want = nil
		}
		if (got == nil) != (want == nil) || got != nil && (got.Path != want.Path || got.FileID != want.FileID) {
			t.Fatalf("found %+v, want %+v", got, want)
		}
	}
	for _, path := range []string{"/", "/data/base/1", "/data/base/10000/20000x", "/zzz"} {
		if got, err := p.find(path); got != nil || err != nil {
			t.Errorf("%s: found %+v, %v", path, got, err)
		}
	}
	// What can't be read costs only that it is stored again.
	part, err := readParent(t.Context(), parentSession{entries: all[:100], fault: fmt.Errorf("lost")}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := part.find(all[50].Path); err != nil || got == nil {
		t.Errorf("found %+v, %v", got, err)
	}
	if got, err := part.find(all[5000].Path); err != nil || got != nil {
		t.Errorf("found %+v, %v", got, err)
	}
}

// A file of a relation over 1 GiB goes on in .1, .2 and so on; blocks are counted over all of them.
func TestBlocksOfLaterSegments(t *testing.T) {
	page := make([]byte, postgres.BlockSize)
	for i := range page {
		page[i] = byte(i * 7)
	}
	copy(page[12:], []byte{0x40, 0x00, 0x00, 0x10, 0x00, 0x20, 0x04, 0x20}) // lower, upper, special, size and version
	const block = 2*postgres.RelationSegment + 1
	sum := postgres.Checksum(page, block)
	page[8], page[9] = byte(sum), byte(sum>>8)
	for _, c := range []struct {
		rel     string
		damaged uint64
	}{{"base/5/16384.2", 0}, {"base/5/16384.1", 1}, {"base/5/16384", 1}, {"base/5/16384_fsm.2", 0}, {"base/5/t3_16384", 0}} {
		p := &pageCheck{on: true, page: postgres.BlockSize, segment: postgres.RelationSegment, start: 1 << 63}
		r, ok := postgres.ParseRelation(c.rel)
		if !ok {
			t.Fatalf("%s is of no relation", c.rel)
		}
		if look := p.file(r, c.rel, 2*postgres.BlockSize); look != nil {
			if err := look(0, make([]byte, postgres.BlockSize)); err != nil {
				t.Fatal(err)
			}
			if err := look(postgres.BlockSize, append(page[:len(page):len(page)], "cut off"...)); err != nil {
				t.Fatal(err)
			}
		}
		if p.count != c.damaged {
			t.Errorf("%s: %d damaged pages, want %d", c.rel, p.count, c.damaged)
		}
		// A page that changed since the backup began says nothing: it may have been read while it was written.
		p = &pageCheck{on: true, page: postgres.BlockSize, segment: postgres.RelationSegment, start: 1}
		if look := p.file(r, c.rel, postgres.BlockSize); look != nil {
			if err := look(postgres.BlockSize, page); err != nil || p.count != 0 {
				t.Errorf("%s: a page that is newer than the backup: %d damaged, %v", c.rel, p.count, err)
			}
		}
	}
	p := &pageCheck{on: true, page: postgres.BlockSize, segment: postgres.RelationSegment, start: 1 << 63}
	r, _ := postgres.ParseRelation("base/5/16384")
	look := p.file(r, "base/5/16384", 0)
	for i := range uint64(maxDamaged + 5) {
		if err := look(i*postgres.BlockSize, page); err != nil {
			t.Fatal(err)
		}
	}
	if p.count <= maxDamaged || len(p.damaged) != maxDamaged { // a few fit by chance
		t.Errorf("%d damaged, %d named", p.count, len(p.damaged))
	}
}

func TestQueryForNames(t *testing.T) {
	got := filenodeQuery([]postgres.Relation{{Tablespace: postgres.DefaultTablespace, Database: 5, Filenode: 7}, {Tablespace: 16400, Database: 5, Filenode: 8}})
	if !strings.Contains(got, "(0::oid, 7::oid), (16400::oid, 8::oid)") {
		t.Error(got)
	}
}
