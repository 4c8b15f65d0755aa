package repair

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Affected returns, by sequence number, the packs on record as damaged that the snapshots of a source use. It reads no
// pack: one listing where nothing is on record, else the manifests and lists too. Snapshots whose manifests or lists
// can't be read are left out; verification names them.
func Affected(ctx context.Context, repo *repository.Repository, src snapshot.Source) (map[uint64][]snapshot.Hash, error) {
	marked := map[string]bool{}
	prefix := layout.DamagedPrefix(src)
	err := repo.Store().List(ctx, prefix, func(o objstore.Info) error {
		marked[o.Key] = true
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	if len(marked) == 0 {
		return nil, nil
	}
	manifests, err := repo.Manifests(ctx, src)
	if bad := new(repository.BadManifestError); err != nil && !errors.As(err, &bad) {
		return nil, err
	}
	lists := map[string][]snapshot.PackInfo{}
	out := map[uint64][]snapshot.Hash{}
	for _, m := range manifests {
		if err := readLists(ctx, repo, m, lists); err != nil {
			return nil, err
		}
		live, _ := infos(m, lists)
		for _, p := range live {
			if marked[layout.DamagedKey(src, p.ID)] {
				out[m.Sequence] = append(out[m.Sequence], p.ID)
			}
		}
	}
	return out, nil
}

// readLists adds the lists of m that are in order and not known yet.
func readLists(ctx context.Context, repo *repository.Repository, m *repository.Stored, lists map[string][]snapshot.PackInfo) error {
	for _, l := range m.Lists {
		name, err := layout.ParseHash(l.List)
		if _, known := lists[l.List]; known || err != nil {
			continue
		}
		var b bytes.Buffer
		key := layout.ListKey(m.ID().Source, l.List)
		problem, err := readNamed(ctx, repo.Store(), key, name, l.Size, &b)
		if err != nil {
			return fmt.Errorf("read %s: %w", key, err)
		}
		if problem != "" {
			continue
		}
		if packs, err := snapshot.DecodeList(b.Bytes()); err == nil {
			lists[l.List] = packs
		}
	}
	return nil
}

// chunkOf names a tree chunk.
type chunkOf struct {
	chain string
	ref   snapshot.Ref
}

// affected finds the files that need packs which were left, and notes these packs. A tree chunk that several snapshots
// share is read once.
func (s *source) affected(ctx context.Context) error {
	hit := map[uint64]map[uint64]*pack{} // by sequence, then by pack number
	for _, p := range s.packs {
		if p.item == nil {
			continue
		}
		for _, m := range p.users {
			all, _ := infos(m, s.lists)
			for _, info := range all {
				if info.ID != p.ID {
					continue
				}
				if hit[m.Sequence] == nil {
					hit[m.Sequence] = map[uint64]*pack{}
				}
				hit[m.Sequence][info.Number] = p
			}
		}
	}
	seen, paths := map[chunkOf]bool{}, map[*pack]map[uint64]bool{}
	for _, n := range s.numbers() {
		if len(hit[n]) == 0 {
			continue
		}
		known, err := s.walk(ctx, s.manifests[n], hit[n], seen, paths)
		if err != nil {
			return err
		}
		for _, p := range hit[n] {
			p.item.FilesUnknown = p.item.FilesUnknown || !known
		}
	}
	for _, p := range s.packs {
		if p.item != nil {
			slices.SortFunc(p.item.Files, snapshot.ComparePaths)
			s.note(*p.item)
		}
	}
	return nil
}

// walk adds the files of one snapshot that need the packs; it reports false if it could not see the whole tree.
func (s *source) walk(ctx context.Context, m *repository.Stored, hit map[uint64]*pack, seen map[chunkOf]bool, paths map[*pack]map[uint64]bool) (bool, error) {
	snap, err := s.repo.Snapshot(ctx, m)
	if err != nil {
		return false, ctx.Err()
	}
	root, err := snap.Root(ctx)
	if err != nil {
		return false, ctx.Err()
	}
	whole := true
	for _, c := range root.Chunks {
		at := chunkOf{m.Chain, c.Ref}
		if seen[at] {
			continue
		}
		plain, err := snap.Chunk(ctx, snapshot.Tree, c.Ref)
		if err == nil {
			err = snapshot.DecodeTree(plain, func(e *snapshot.Entry) error {
				s.needs(e, hit, paths)
				return nil
			})
		}
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		seen[at], whole = err == nil, whole && err == nil
	}
	return whole, nil
}

// needs adds e to the files of the packs that it needs.
func (s *source) needs(e *snapshot.Entry, hit map[uint64]*pack, paths map[*pack]map[uint64]bool) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(e.Path))
	path := h.Sum64() // 8 bytes for each file
	e.Packs(func(r snapshot.Range) {
		for number, p := range hit {
			if number < r.First || number > r.Last || paths[p][path] {
				continue
			}
			if paths[p] == nil {
				paths[p] = map[uint64]bool{}
			}
			paths[p][path] = true
			p.item.FileCount++
			if len(p.item.Files) < s.opts.MaxFiles {
				p.item.Files = append(p.item.Files, e.Path)
			}
		}
	})
}
