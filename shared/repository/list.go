package repository

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// manifestReaders is how many manifests are read at the same time.
const manifestReaders = 16

// maxList bounds the size of a pack list, in bytes: a petabyte in packs of 16 MiB is 4.5 GB of list in one piece,
// which nobody has; 256 MiB is 56 TB.
const maxList = 256 << 20

// ErrNoSnapshot says that there is no such snapshot.
var ErrNoSnapshot = errors.New("no such snapshot")

// Listed is a snapshot as a listing shows it, before its manifest is read.
type Listed struct {
	Sequence uint64
	Info     objstore.Info
}

// Stored is a manifest as it is in the repository, with its signature checked.
type Stored struct {
	*snapshot.Manifest
	Bytes   []byte        // of the whole object
	Hash    snapshot.Hash // SHA-256 of Bytes
	Arrived time.Time     // when the store received it, by the store's clock
}

// Sources lists the sources that have anything in the repository, in order of their names.
func (r *Repository) Sources(ctx context.Context) ([]snapshot.Source, error) {
	return r.SourcesOf(ctx, func(string) bool { return true })
}

// SourcesOf is Sources for the hosts that want says: each of them costs a request.
func (r *Repository) SourcesOf(ctx context.Context, want func(host string) bool) ([]snapshot.Source, error) {
	hosts, err := names(ctx, r.store, layout.Prefix)
	if err != nil {
		return nil, err
	}
	hosts = slices.DeleteFunc(hosts, func(host string) bool { return layout.Prefix+host+"/" == layout.AccessPrefix || !want(host) })
	sources := make([][]string, len(hosts))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(manifestReaders)
	for i, host := range hosts {
		g.Go(func() (err error) {
			sources[i], err = names(gctx, r.store, layout.Prefix+host+"/")
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var out []snapshot.Source
	for i, host := range hosts {
		for _, name := range sources[i] {
			src := snapshot.Source{Host: host, Name: name}
			if src.Check() == nil {
				out = append(out, src)
			}
		}
	}
	return out, nil
}

// names lists one level below prefix, by the store's own means where it has them.
func names(ctx context.Context, store objstore.Store, prefix string) ([]string, error) {
	var out []string
	err := objstore.Prefixes(ctx, store, prefix, func(name string) error {
		out = append(out, name)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	return out, nil
}

// Sequences lists the snapshots of a source, ascending, without reading them.
func (r *Repository) Sequences(ctx context.Context, src snapshot.Source) ([]Listed, error) {
	return r.numbered(ctx, layout.ManifestPrefix(src))
}

// Condemned lists the announced removals of a source, ascending.
func (r *Repository) Condemned(ctx context.Context, src snapshot.Source) ([]Listed, error) {
	return r.numbered(ctx, layout.CondemnedPrefix(src))
}

// Expired lists the records of removed snapshots of a source, ascending.
func (r *Repository) Expired(ctx context.Context, src snapshot.Source) ([]Listed, error) {
	return r.numbered(ctx, layout.ExpiredPrefix(src))
}

func (r *Repository) numbered(ctx context.Context, prefix string) ([]Listed, error) {
	var out []Listed
	err := r.store.List(ctx, prefix, func(o objstore.Info) error {
		n, err := layout.ParseNumbered(prefix, o.Key)
		if err != nil {
			return nil //nolint:nilerr // a stray object is no snapshot; verify names it
		}
		out = append(out, Listed{Sequence: n, Info: o})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	return out, nil
}

// Manifest reads one manifest and checks its signature, its name and its content.
// Errors: ErrNoSnapshot, those of [keyring.Open], snapshot.ErrFormat.
func (r *Repository) Manifest(ctx context.Context, id snapshot.ID) (*Stored, error) {
	key := layout.ManifestKey(id)
	// When it arrived is asked for while it is read.
	type looked struct {
		info objstore.Info
		err  error
	}
	stat := make(chan looked, 1)
	go func() {
		info, err := r.store.Stat(ctx, key)
		stat <- looked{info, err}
	}()
	doc, err := objstore.ReadAll(ctx, r.store, key, maxDocument)
	at := <-stat
	if errors.Is(at.err, objstore.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNoSnapshot, id)
	}
	if at.err != nil {
		return nil, fmt.Errorf("look for %s: %w", key, at.err)
	}
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", id, err)
	}
	return r.parseManifest(id, doc, at.info.Modified)
}

func (r *Repository) readManifest(ctx context.Context, src snapshot.Source, at Listed) (*Stored, error) {
	id := snapshot.ID{Source: src, Sequence: at.Sequence}
	key := layout.ManifestKey(id)
	doc, err := objstore.ReadAll(ctx, r.store, key, maxDocument)
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", id, err)
	}
	return r.parseManifest(id, doc, at.Info.Modified)
}

func (r *Repository) parseManifest(id snapshot.ID, doc []byte, arrived time.Time) (*Stored, error) {
	payload, _, err := keyring.Open(doc, r.id, layout.ManifestKey(id), r.trust)
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", id, err)
	}
	m, err := snapshot.ParseManifest(payload)
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", id, err)
	}
	if m.ID() != id || m.Repository != r.id.String() {
		return nil, fmt.Errorf("read manifest %s: %w: it is that of %s in repository %s", id, snapshot.ErrFormat, m.ID(), m.Repository)
	}
	return &Stored{Manifest: m, Bytes: doc, Hash: sha256.Sum256(doc), Arrived: arrived}, nil
}

// BadManifestError lists the manifests of a source that could not be read; the others are usable.
type BadManifestError struct {
	Errors map[uint64]error // by sequence number
}

func (e *BadManifestError) Error() string {
	numbers := make([]uint64, 0, len(e.Errors))
	for n := range e.Errors {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	first := e.Errors[numbers[0]]
	if len(numbers) == 1 {
		return first.Error()
	}
	return fmt.Sprintf("%d manifests can not be read; the first: %v", len(numbers), first)
}

// Unwrap gives the errors of all manifests.
func (e *BadManifestError) Unwrap() []error {
	out := make([]error, 0, len(e.Errors))
	for _, err := range e.Errors {
		out = append(out, err)
	}
	return out
}

// Manifests reads all manifests of a source, ascending. Where some can't be read it returns the others together with
// a *BadManifestError. A manifest that is removed while they are read is left out.
func (r *Repository) Manifests(ctx context.Context, src snapshot.Source) ([]*Stored, error) {
	listed, err := r.Sequences(ctx, src)
	if err != nil {
		return nil, err
	}
	out := make([]*Stored, len(listed))
	errs := make([]error, len(listed))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(manifestReaders)
	for i, l := range listed {
		g.Go(func() error {
			out[i], errs[i] = r.readManifest(gctx, src, l)
			return gctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	bad := &BadManifestError{Errors: map[uint64]error{}}
	for i, err := range errs {
		if err != nil && !errors.Is(err, objstore.ErrNotExist) {
			bad.Errors[listed[i].Sequence] = err
		}
	}
	out = slices.DeleteFunc(out, func(s *Stored) bool { return s == nil })
	if len(bad.Errors) > 0 {
		return out, bad
	}
	return out, nil
}

// Lists reads the pack lists of m and returns the packs that the snapshot uses, ascending by number.
func (r *Repository) Lists(ctx context.Context, m *snapshot.Manifest) ([]snapshot.PackInfo, error) {
	all, err := r.allLists(ctx, m)
	if err != nil {
		return nil, err
	}
	return LivePacks(m, all)
}

// allLists returns the packs that the lists of m name, also those that the snapshot does not use.
func (r *Repository) allLists(ctx context.Context, m *snapshot.Manifest) ([]snapshot.PackInfo, error) {
	lists := make([][]snapshot.PackInfo, len(m.Lists))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(manifestReaders)
	for i, l := range m.Lists {
		g.Go(func() (err error) {
			lists[i], err = r.readList(gctx, m.ID().Source, l.List)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return slices.Concat(lists...), nil
}

// LivePacks returns those of all, the packs of m's lists together, that m uses, ascending by number.
func LivePacks(m *snapshot.Manifest, all []snapshot.PackInfo) ([]snapshot.PackInfo, error) {
	slices.SortFunc(all, func(a, b snapshot.PackInfo) int { return compare(a.Number, b.Number) })
	live := make([]snapshot.PackInfo, 0, len(all))
	next := 0
	for i, p := range all {
		if i > 0 && all[i-1].Number == p.Number {
			return nil, fmt.Errorf("lists of %s: %w: pack number %d occurs twice", m.ID(), snapshot.ErrFormat, p.Number)
		}
		for next < len(m.Without) && m.Without[next][1] < p.Number {
			next++
		}
		if next < len(m.Without) && m.Without[next][0] <= p.Number {
			continue
		}
		live = append(live, p)
	}
	return live, nil
}

func (r *Repository) readList(ctx context.Context, src snapshot.Source, list string) ([]snapshot.PackInfo, error) {
	key := layout.ListKey(src, list)
	packs, err := readListFrom(ctx, r.store, key, list)
	var damage *DamageError
	if errors.As(err, &damage) || errors.Is(err, objstore.ErrNotExist) {
		r.Recover(ctx, key, err, func(_ int, store objstore.Store) error {
			found, ferr := readListFrom(ctx, store, key, list)
			if ferr == nil {
				packs, err = found, nil
			}
			return ferr
		})
	}
	return packs, err
}

func readListFrom(ctx context.Context, store objstore.Store, key, list string) ([]snapshot.PackInfo, error) {
	b, err := objstore.ReadAll(ctx, store, key, maxList)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	if snapshot.Hash(sha256.Sum256(b)).String() != list {
		return nil, &DamageError{Key: key, Err: errors.New("its bytes do not match its name")}
	}
	packs, err := snapshot.DecodeList(b)
	if err != nil {
		return nil, &DamageError{Key: key, Err: err}
	}
	return packs, nil
}

func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
