package log_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// reseal seals an object again, authentic in all, after its content or the ids of its chunks were altered: as if it had been
// decompressed, or written, by a machine that is not well.
func reseal(t *testing.T, keys *seal.Keys, codec *seal.Codec, b []byte, content func(plain []byte), id func(snapshot.Hash) snapshot.Hash) []byte {
	t.Helper()
	pack := b[:len(b)-sha256.Size]
	salt, err := snapshot.ParsePackHeader(pack)
	if err != nil {
		t.Fatal(err)
	}
	at, length, err := snapshot.ParsePackFooter(pack, uint64(len(pack)))
	if err != nil {
		t.Fatal(err)
	}
	old, now := keys.Pack(salt), seal.NewSalt()
	index, err := old.OpenIndex(at, pack[at:at+length])
	if err != nil {
		t.Fatal(err)
	}
	sealer := keys.Pack(now)
	out := snapshot.AppendPackHeader(nil, now)
	offset := uint32(snapshot.PackHeaderSize)
	for i := range index {
		e := &index[i]
		encoded, err := old.Open(nil, offset, e.Kind, e.ID, pack[offset:offset+e.Sealed])
		if err != nil {
			t.Fatal(err)
		}
		plain, err := codec.Decompress(nil, encoded, int(e.Plain))
		if err != nil {
			t.Fatal(err)
		}
		offset += e.Sealed
		if i == len(index)-1 {
			content(plain)
		}
		e.ID = id(e.ID)
		start := len(out)
		out = sealer.Seal(out, uint32(start), e.Kind, e.ID, codec.Compress(nil, plain))
		e.Sealed = uint32(len(out) - start)
	}
	from := len(out)
	out = sealer.SealIndex(out, uint32(from), index)
	out = snapshot.AppendPackFooter(out, len(out)-from)
	sum := sha256.Sum256(out)
	return append(out, sum[:]...)
}

// TestProven alters the last record of objects whose seals are good: it is never given to anybody, whatever else there is to
// prove it by.
func TestProven(t *testing.T) {
	f := repotest.New(t)
	w := create(t, f, options(f))
	write(t, f, w, 1, 20)
	if _, err := w.Join(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	end := write(t, f, w, 21, 25)
	all := streams(t, f.Repo, f.Source)
	keys, err := log.NewReader(f.Repo, f.Source, all).Keys(t.Context(), all[0].Epochs[0])
	if err != nil {
		t.Fatal(err)
	}
	object := func(first, last uint64) layout.LogObject {
		return layout.LogObject{Stream: w.Stream(), Epoch: 1, First: first, Last: last, Joined: first < last}
	}
	key := func(first, last uint64) string { return layout.LogKey(f.Source, object(first, last)) }
	flip := func(plain []byte) { plain[len(plain)-1] ^= 1 }
	same := func(id snapshot.Hash) snapshot.Hash { return id }
	alter := func(g *repotest.Fixture, key string, content func([]byte), id func(snapshot.Hash) snapshot.Hash) {
		b, ok := g.Store.Object(key)
		if !ok {
			t.Fatal(key)
		}
		g.Store.Tamper(key, reseal(t, keys, f.Repo.Codec(), b, content, id))
	}
	rg := log.Range{From: start(w.Stream()), Through: end}

	for name, tt := range map[string]struct {
		first, last uint64
		pieces      bool   // the segment's own are there
		good        uint32 // up to which record all is given
	}{
		"a piece that another follows": {23, 23, true, 22},
		"the last piece":               {25, 25, true, 24},
		"a segment without its pieces": {1, 20, false, 0},
		"a segment with its pieces":    {1, 20, true, 25},
	} {
		t.Run(name, func(t *testing.T) {
			g := f.Fork(t, f.Store.Clone())
			listed := streams(t, g.Repo, g.Source)
			for n := uint64(1); n <= 20 && !tt.pieces; n++ {
				g.Store.Tamper(key(n, n), nil)
			}
			if !tt.pieces {
				listed = streams(t, g.Repo, g.Source)
			}
			alter(g, key(tt.first, tt.last), flip, same)
			got, err := read(g.Repo, g.Source, listed, rg)
			if tt.good == 25 {
				if diff := cmp.Diff(numbers(1, 25), got); diff != "" || err != nil {
					t.Error(diff, err)
				}
				return
			}
			var hole *log.HoleError
			var damage *repository.DamageError
			if !errors.As(err, &hole) || !errors.As(err, &damage) || damage.Key != key(tt.first, tt.last) || !errors.Is(err, seal.ErrAuth) {
				t.Errorf("%v", err)
			}
			// Of the segment all but the last record are proven, and are no harm.
			if want := numbers(1, max(tt.good, uint32(tt.last)-1)); !cmp.Equal(want, got) {
				t.Error(cmp.Diff(want, got))
			}
			// A copy has it.
			g.Repo.AlsoRead([]repository.Place{{Name: "copy", Open: func(context.Context) (objstore.Store, error) { return f.Store, nil }}}, func(repository.Elsewhere) {})
			got, err = read(g.Repo, g.Source, listed, rg)
			if diff := cmp.Diff(numbers(1, 25), got); diff != "" || err != nil {
				t.Error(diff, err)
			}
		})
	}

	// What the records after it prove needs no id; who verifies looks at that too.
	g := f.Fork(t, f.Store.Clone())
	wrong := func(id snapshot.Hash) snapshot.Hash { id[0] ^= 1; return id }
	alter(g, key(23, 23), func([]byte) {}, wrong)
	check(t, g, rg, numbers(1, 25))
	listed := streams(t, g.Repo, g.Source)
	if _, err := log.NewReader(g.Repo, g.Source, listed).Inspect(t.Context(), listed[0].Epochs[0], object(23, 23), true); !errors.Is(err, seal.ErrAuth) {
		t.Errorf("%v", err)
	}
	// A segment is not what its pieces are, which count: also where both are authentic.
	b, _ := g.Store.Object(key(20, 20))
	g.Store.Tamper(key(20, 20), reseal(t, keys, f.Repo.Codec(), b, flip, func(snapshot.Hash) snapshot.Hash {
		return keys.ChunkID(snapshot.Log, flipped(t, keys, f.Repo.Codec(), b))
	}))
	if got, err := read(g.Repo, g.Source, listed, rg); !errors.Is(err, log.ErrOther) && !errors.Is(err, log.ErrChain) || len(got) > 20 {
		t.Errorf("%q, %v", got, err)
	}
}

// flipped is the content of a piece of one chunk, with its last bit another.
func flipped(t *testing.T, keys *seal.Keys, codec *seal.Codec, b []byte) []byte {
	t.Helper()
	var out []byte
	reseal(t, keys, codec, b, func(plain []byte) {
		out = append(out, plain...)
		out[len(out)-1] ^= 1
	}, func(id snapshot.Hash) snapshot.Hash { return id })
	return out
}
