package soak

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/copier"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// damager damages objects of a repository with several sources and chains, or of its copy.
type damager struct {
	t       *testing.T
	random  *rand.Rand
	sources []*repotest.Fixture
	expect  map[snapshot.Source]verify.Seen
	stores  map[string]*mem.Store // the original and its copy, whole
	// others are objects of other histories under keys of this one, validly signed: what somebody who may write could
	// put back.
	others map[string][]byte
	counts map[string]int
}

func TestDamages(t *testing.T) {
	d := &damager{
		t: t, random: dice(t), expect: map[snapshot.Source]verify.Seen{}, stores: map[string]*mem.Store{},
		others: map[string][]byte{}, counts: map[string]int{},
	}
	d.build()
	n := 0
	for ; n < test.damages && !t.Failed(); n++ {
		d.damage(n)
	}
	t.Logf("%d damages: %v", n, d.counts)
}

func (d *damager) first() *repotest.Fixture { return d.sources[0] }

// build makes two sources with two chains each, documents of all kinds, another history, and a copy.
func (d *damager) build() {
	t := d.t
	f := repotest.New(t)
	for i, name := range []string{"app", "etc"} {
		s := f
		if i > 0 {
			s = f.Fork(t, f.Store)
			s.Trees, s.Source.Name = map[uint64]repotest.Tree{}, name
		}
		d.sources = append(d.sources, s)
		tree := repotest.Tree{"/srv/config": []byte("listen 80\n"), "/srv/empty": {}}
		for j := range 12 {
			tree[fmt.Sprintf("/srv/data/%d", j)] = repotest.Noise(d.random.Uint64(), 1+d.random.IntN(40<<10))
		}
		var fork *repotest.Fixture
		for n := 1; n <= 5; n++ {
			kind := snapshot.Incremental
			if n == 1 || n == 4 {
				kind = snapshot.Full
			}
			if n == 5 {
				fork = s.Fork(t, s.Store.Clone())
			}
			s.Backup(t, kind, tree)
			s.Now = s.Now.Add(time.Hour)
			f.Now = s.Now
			tree = tree.With(fmt.Sprintf("/srv/data/%d", d.random.IntN(12)), repotest.Noise(d.random.Uint64(), 1+d.random.IntN(40<<10)))
		}
		fork.Backup(t, snapshot.Incremental, tree.With("/srv/other", []byte("another history")))
		key := layout.ManifestKey(s.ID(5))
		d.others[key], _ = fork.Store.Object(key)
		d.documents(s)
		m, err := s.Repo.Manifest(t.Context(), s.ID(5))
		must(t, err)
		d.expect[s.Source] = verify.Seen{Sequence: 5, Manifest: m.Hash}
	}
	d.stores["original"] = f.Store
	d.stores["copy"] = mem.New()
	d.stores["copy"].SetClock(func() time.Time { return f.Now })
	result, err := copier.Run(t.Context(), f.Repo, d.stores["copy"], copier.Options{})
	must(t, err)
	if !result.OK() {
		t.Fatalf("copy: %+v", result.Findings)
	}
	for name, store := range d.stores {
		if res := d.verify(f.Open(t, store)); !res.OK() {
			t.Fatalf("%s: %+v", name, res.Findings)
		}
	}
}

// documents makes documents of all kinds, and removes the first snapshot as retention does.
func (d *damager) documents(f *repotest.Fixture) {
	t := d.t
	put := func(key string, v any) { must(t, f.Repo.PutDocument(t.Context(), key, v)) }
	for n := uint64(1); n <= 5; n++ {
		m, err := f.Repo.Manifest(t.Context(), f.ID(n))
		must(t, err)
		hash := m.Hash.String()
		put(layout.MarkKey(f.ID(n), fmt.Sprintf("%032x", n)), record.Mark{Sequence: n, Manifest: hash, Mark: record.Pin, Time: f.Now})
		put(layout.ReceiptKey(f.ID(n), layout.ReceiptHost, f.Now, "bytes"), record.Receipt{Sequence: n, Manifest: hash, Level: "bytes"})
		if n == 2 || n == 3 {
			put(layout.CondemnedKey(f.ID(n)), record.Condemned{Sequence: n, Manifest: hash, Time: f.Now})
		}
		if n == 1 {
			put(layout.ExpiredKey(f.ID(n)), record.Expired{Sequence: n, Manifest: hash, Previous: m.Previous, Time: f.Now})
			f.Store.Tamper(layout.ManifestKey(f.ID(n)), nil)
		}
	}
	for _, key := range repotest.Keys(f.Store, f.Source.String()+"/packs/")[:2] {
		parts := strings.Split(key, "/")
		pack, err := layout.ParseHash(parts[len(parts)-1])
		must(t, err)
		put(layout.DamagedKey(f.Source, pack), record.Damaged{Pack: pack.String(), Chain: parts[len(parts)-2], Time: f.Now, Problem: "test"})
		f.Store.SetModified(key, f.Now.Add(time.Minute)) // put back since
	}
}

func (d *damager) verify(repo *repository.Repository) *verify.Result {
	d.t.Helper()
	res, err := verify.Run(d.t.Context(), repo, verify.Options{
		Level: verify.Content, Expect: d.expect, Access: 1, Workers: 1, Now: func() time.Time { return d.first().Now },
	})
	must(d.t, err)
	return res
}

// damage damages one object, or two by swapping them, and checks that all are named and nothing wrong is restored.
func (d *damager) damage(n int) {
	names := []string{"original", "copy"}
	whole := d.stores[names[d.random.IntN(2)]]
	store := whole.Clone()
	keys := d.byKind(store)
	kind := slices.Sorted(mapKeys(keys))[n%len(keys)]
	key := keys[kind][d.random.IntN(len(keys[kind]))]
	good, _ := store.Object(key)
	ways := []func(*mem.Store, string, []byte) (string, []string){d.flip, d.flip, d.flip, d.truncate, d.lengthen, d.swap, d.replay, d.remove}
	what, hit := ways[d.random.IntN(len(ways))](store, key, good)
	if what == "" {
		what, hit = d.flip(store, key, good)
	}
	d.counts[what]++
	d.counts["at "+kind]++
	d.found(store, fmt.Sprintf("damage %d: %s: %s", n, key, what), hit)
}

func mapKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// objects are the keys of all objects whose bytes mean something.
func objects(store *mem.Store) []string {
	return slices.DeleteFunc(store.Keys(), func(key string) bool { return key == layout.CopyKey })
}

// byKind sorts the objects by what they are.
func (d *damager) byKind(store *mem.Store) map[string][]string {
	out := map[string][]string{}
	for _, key := range objects(store) {
		parts := strings.Split(key, "/")
		kind := parts[1]
		if len(parts) > 4 {
			kind = parts[3]
		}
		out[kind] = append(out[kind], key)
	}
	return out
}

func (d *damager) flip(store *mem.Store, key string, good []byte) (string, []string) {
	b := bytes.Clone(good)
	b[d.random.IntN(len(b))] ^= 1 << d.random.IntN(8)
	store.Tamper(key, b)
	return "bit flipped", []string{key}
}

func (d *damager) truncate(store *mem.Store, key string, good []byte) (string, []string) {
	store.Tamper(key, append([]byte{}, good[:d.random.IntN(len(good))]...))
	return "truncated", []string{key}
}

func (d *damager) lengthen(store *mem.Store, key string, good []byte) (string, []string) {
	store.Tamper(key, append(bytes.Clone(good), make([]byte, 1+d.random.IntN(100))...))
	return "lengthened", []string{key}
}

// swap swaps two objects, of the same kind mostly.
func (d *damager) swap(store *mem.Store, key string, good []byte) (string, []string) {
	other := d.other(store, key)
	theirs, ok := store.Object(other)
	if !ok || bytes.Equal(theirs, good) {
		return "", nil
	}
	store.Tamper(key, theirs)
	store.Tamper(other, good)
	return "swapped", []string{key, other}
}

// other is another object, of the same kind mostly.
func (d *damager) other(store *mem.Store, key string) string {
	all := objects(store)
	for _, keys := range d.byKind(store) {
		if slices.Contains(keys, key) && d.random.IntN(4) > 0 {
			all = keys
		}
	}
	return all[d.random.IntN(len(all))]
}

// replay puts the bytes of another object in the place of this one, or those that it has in another history.
func (d *damager) replay(store *mem.Store, key string, good []byte) (string, []string) {
	theirs := d.others[key]
	if theirs == nil {
		theirs, _ = store.Object(d.other(store, key))
	}
	if bytes.Equal(theirs, good) {
		return "", nil
	}
	store.Tamper(key, theirs)
	return "replayed", []string{key}
}

// remove removes an object. What nothing names can vanish unnoticed.
func (d *damager) remove(store *mem.Store, key string, _ []byte) (string, []string) {
	at := key
	switch kind := strings.Split(key, "/"); {
	case len(kind) < 5 && key != layout.RepositoryKey && !strings.HasPrefix(key, "v1/access/"):
		return "", nil
	case len(kind) >= 5 && slices.Contains([]string{"marks", "receipts", "condemned", "damaged"}, kind[3]):
		return "", nil
	case len(kind) >= 5 && kind[3] == "expired":
		at = strings.Replace(key, "/expired/", "/snapshots/", 1)
	}
	store.Tamper(key, nil)
	return "removed", []string{at}
}

// found checks that each of the keys is named, and that what can still be restored is right.
func (d *damager) found(store *mem.Store, what string, keys []string) {
	d.t.Helper()
	repo, err := repository.Open(d.t.Context(), store, d.first().Identity)
	if err != nil {
		// Without its own documents a repository does not open; the error names the object.
		gone := errors.Is(err, repository.ErrNoRepository) || errors.Is(err, repository.ErrUnfinished) // its removal is what they say
		if !gone && !slices.ContainsFunc(keys, func(key string) bool { return strings.Contains(err.Error(), key) }) {
			d.t.Errorf("%s: %v", what, err)
		}
		return
	}
	res := d.verify(repo)
	for _, key := range keys {
		if len(keys) == 2 && hides(keys[0], key) || len(keys) == 2 && hides(keys[1], key) {
			continue
		}
		named := slices.ContainsFunc(res.Findings, func(f verify.Finding) bool { return f.Key == key && !f.Warning })
		if !named || res.OK() {
			d.t.Errorf("%s: %s is not named: %+v", what, key, res.Findings)
		}
	}
	if d.random.IntN(4) == 0 {
		d.restores(repo, res, what)
	}
	if d.random.IntN(8) == 0 {
		d.spreads(repo, what)
	}
}

// hides reports whether damage to one object can leave nothing that names the other: manifests name lists, and lists
// packs.
func hides(damaged, key string) bool {
	rank := func(k string) int {
		return slices.IndexFunc([]string{"/snapshots/", "/lists/", "/packs/"}, func(kind string) bool { return strings.Contains(k, kind) })
	}
	return rank(damaged) >= 0 && rank(damaged) < rank(key)
}

// restores restores each snapshot: either it fails, or every byte is right. Verification has said which.
func (d *damager) restores(repo *repository.Repository, res *verify.Result, what string) {
	d.t.Helper()
	passed := map[snapshot.ID]bool{}
	for _, s := range res.Snapshots {
		passed[s.ID] = s.Pass
	}
	for _, f := range d.sources {
		for n := uint64(2); n <= 5; n++ {
			id := f.ID(n)
			m, err := repo.Manifest(d.t.Context(), id)
			if err == nil && bytes.Equal(m.Bytes, d.others[layout.ManifestKey(id)]) {
				continue // a snapshot of another history: found to be one above
			}
			var got repotest.Tree
			if err == nil {
				got, err = repotest.Restore(d.t.Context(), repo, m)
			}
			switch {
			case err != nil && passed[id]:
				d.t.Errorf("%s: %s passed and is not restored: %v", what, id, err)
			case err == nil && !same(got, f.Trees[n]):
				d.t.Errorf("%s: %s is restored wrongly", what, id)
			}
		}
	}
}

func same(a, b repotest.Tree) bool {
	if len(a) != len(b) {
		return false
	}
	for path, content := range a {
		if theirs, ok := b[path]; !ok || !bytes.Equal(content, theirs) {
			return false
		}
	}
	return true
}

// spreads copies the damaged repository: the copy has no damage.
func (d *damager) spreads(repo *repository.Repository, what string) {
	d.t.Helper()
	to := mem.New()
	if _, err := copier.Run(d.t.Context(), repo, to, copier.Options{}); err != nil {
		d.t.Logf("%s: copy: %v", what, err)
		return
	}
	copied, err := repository.Open(d.t.Context(), to, d.first().Identity)
	if err != nil {
		d.t.Errorf("%s: copy: %v", what, err)
		return
	}
	res, err := verify.Run(d.t.Context(), copied, verify.Options{Level: verify.Content, Now: func() time.Time { return d.first().Now }})
	must(d.t, err)
	for _, f := range res.Findings {
		if !f.Warning && f.Problem != verify.Missing && f.Problem != verify.Unlinked {
			d.t.Errorf("%s: in the copy: %+v", what, f)
		}
	}
}
