package verify

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// treeAhead is how many tree chunks are read at a time.
const treeAhead = 8

// walk goes through the trees: at level content through all, at the others only to tell which files damaged packs hit.
func (s *source) walk(ctx context.Context) error {
	w := &walker{source: s, memo: map[memoKey]*treeSum{}}
	for _, sn := range s.snaps {
		if sn.chain == nil {
			continue
		}
		faults := sn.faults()
		content := s.c.opts.Level == Content && sn.chain.keys != nil
		if !content {
			for _, at := range faults {
				s.c.findings.hit(at, sn.id)
			}
			if len(faults) == 0 {
				continue
			}
		}
		known, err := w.walk(ctx, sn)
		if err != nil {
			return err
		}
		if !known {
			for _, at := range faults {
				s.c.findings.hit(at, sn.id)
				s.c.findings.filesUnknown(at)
			}
		}
	}
	return nil
}

// faults are the findings about packs that the snapshot uses.
func (sn *snap) faults() []place {
	var out []place
	sn.live(func(p *pack) {
		if at := p.fault.Load(); at != nil {
			out = append(out, *at)
		}
	})
	return out
}

// walker goes through the trees of a source. A tree chunk that several snapshots share is read and checked once.
type walker struct {
	source *source
	mu     sync.Mutex
	memo   map[memoKey]*treeSum // guarded by mu
}

// memoKey names a tree chunk; which entries need a parent depends on the roots.
type memoKey struct {
	chain snapshot.ChainID
	ref   snapshot.Ref
	roots string
}

// walk goes through one snapshot's tree. It reports false if the tree could not be seen at all.
func (w *walker) walk(ctx context.Context, sn *snap) (bool, error) {
	s := w.source
	reader, err := s.c.repo.Snapshot(ctx, sn.Stored)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if err != nil {
		// Mostly a list is to blame, which has been named already.
		if s.c.opts.Level == Content && !errors.Is(err, keyring.ErrNoIdentity) && len(s.c.findings.of(sn.id)) == 0 {
			w.incomplete(sn, "its tree can not be read: "+err.Error())
		}
		return false, nil
	}
	root, ok, err := w.root(ctx, sn, reader)
	if err != nil || root == nil {
		return ok, err
	}
	t := &trail{walker: w, snap: sn, roots: root.Roots}
	roots := strings.Join(root.Roots, "\x00")
	for from := 0; from < len(root.Chunks); from += treeAhead {
		part := root.Chunks[from:min(from+treeAhead, len(root.Chunks))]
		sums, err := w.sums(ctx, sn, reader, part, roots)
		if err != nil {
			return true, err
		}
		for i, sum := range sums {
			before := ""
			if k := from + i + 1; k < len(root.Chunks) {
				before = root.Chunks[k].First
			}
			t.follow(part[i].First, before, sum)
		}
	}
	sn.entries = t.entries
	return true, nil
}

// incomplete notes that the snapshot's tree is not what it must be; its manifest stands for it.
func (w *walker) incomplete(sn *snap, detail string) place {
	return w.source.c.findings.add(w.source.inv.ManifestKey(sn.Sequence), Incomplete, detail, sn.id)
}

// root checks the report, if there is one, and reads the root.
func (w *walker) root(ctx context.Context, sn *snap, reader *repository.Snapshot) (*snapshot.RootTable, bool, error) {
	read := single(ctx, reader)
	if sn.Report != nil {
		w.lead(sn, snapshot.Report, *sn.Report, read)
	}
	w.lead(sn, snapshot.Root, sn.Root, read)
	root, err := reader.Root(ctx)
	if ctx.Err() != nil {
		return nil, false, ctx.Err()
	}
	if err != nil {
		var damage *repository.DamageError
		if errors.As(err, &damage) {
			if p := sn.find(damage.Pack); p != nil {
				w.source.faultOf(p, err)
				at := *p.fault.Load()
				w.source.c.findings.hit(at, sn.id)
				w.source.c.findings.span(at, Span{Snapshot: sn.id})
				return nil, true, nil
			}
		}
		w.incomplete(sn, err.Error())
		return nil, false, nil
	}
	return root, true, nil
}

// lead checks a ref of the manifest.
func (w *walker) lead(sn *snap, kind snapshot.Kind, j snapshot.JSONRef, read readChunk) {
	ref, err := j.Ref()
	if err != nil {
		w.incomplete(sn, err.Error())
		return
	}
	switch v := sn.chain.resolve(kind, &ref, read); {
	case v.fault != nil && w.source.c.opts.Level == Content:
		w.source.c.findings.hit(*v.fault, sn.id)
	case v.wrong != "":
		w.incomplete(sn, fmt.Sprintf("the manifest's ref of kind %q: %s", byte(kind), v.wrong))
	}
}

// single reads one chunk to know whether it can be read.
func single(ctx context.Context, reader *repository.Snapshot) readChunk {
	return func(k repository.KindRef) error {
		_, err := reader.Chunk(ctx, k.Kind, k.Ref)
		return err
	}
}

// sums returns what is known of the tree chunks, reading those that were not met before.
func (w *walker) sums(ctx context.Context, sn *snap, reader *repository.Snapshot, part []snapshot.TreeChunk, roots string) ([]*treeSum, error) {
	sums := make([]*treeSum, len(part))
	var refs []repository.KindRef
	var where []int
	for i, c := range part {
		if sums[i] = w.known(memoKey{sn.chain.id, c.Ref, roots}); sums[i] == nil {
			refs = append(refs, repository.KindRef{Kind: snapshot.Tree, Ref: c.Ref})
			where = append(where, i)
		}
	}
	if len(refs) == 0 {
		return sums, nil
	}
	err := reader.Chunks(ctx, refs, func(i int, plain []byte, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		k := where[i]
		sum := w.sum(ctx, sn, reader, part[k], plain, err)
		w.mu.Lock()
		defer w.mu.Unlock()
		sums[k] = sum
		w.memo[memoKey{sn.chain.id, part[k].Ref, roots}] = sum
		return nil
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		// The store as a whole does not answer. What was not read is not known.
		for _, k := range where {
			if sums[k] == nil {
				at := w.incomplete(sn, err.Error())
				sums[k] = &treeSum{lost: &at}
			}
		}
	}
	return sums, nil
}

func (w *walker) known(k memoKey) *treeSum {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.memo[k]
}

// sum checks one tree chunk.
func (w *walker) sum(ctx context.Context, sn *snap, reader *repository.Snapshot, c snapshot.TreeChunk, plain []byte, err error) *treeSum {
	if err == nil {
		b := &treeReader{chain: sn.chain, read: single(ctx, reader), maps: reader, ctx: ctx, findings: w.source.c.findings, sum: &treeSum{}}
		b.manifest = w.source.inv.ManifestKey(sn.Sequence)
		if err = b.decode(plain, c.First); err == nil {
			return b.sum
		}
		at := w.incomplete(sn, err.Error())
		return &treeSum{lost: &at}
	}
	p := sn.find(c.Ref.Pack)
	if p == nil {
		at := w.incomplete(sn, err.Error())
		return &treeSum{lost: &at}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.source.faultOf(p, err)
	return &treeSum{lost: p.fault.Load()}
}

// trail follows one snapshot's tree chunks in order.
type trail struct {
	walker  *walker
	snap    *snap
	roots   []string
	last    string   // path of the last entry so far
	open    []string // directories so far that hold last or are it
	blind   bool     // a tree chunk is missing: parents may have been in it
	entries uint64
}

// follow takes the next tree chunk; its entries should be from first on and before before.
func (t *trail) follow(first, before string, sum *treeSum) {
	f, id := t.walker.source.c.findings, t.snap.id
	if sum.lost != nil {
		f.hit(*sum.lost, id)
		f.span(*sum.lost, Span{Snapshot: id, From: first, Before: before})
		t.blind, t.last = true, first
		return
	}
	for _, at := range sum.hits {
		f.hit(at, id)
	}
	for _, wrong := range sum.wrong {
		t.walker.incomplete(t.snap, wrong)
	}
	if t.last != "" && snapshot.ComparePaths(t.last, first) >= 0 {
		t.walker.incomplete(t.snap, fmt.Sprintf("%q stands after %q", first, t.last))
	}
	t.checkParents(sum.needs)
	t.checkPacks(sum.packs)
	open := t.open[:0:0]
	for _, dir := range t.open {
		if snapshot.Within(dir, sum.last) {
			open = append(open, dir)
		}
	}
	t.open = append(open, sum.open...)
	t.last = sum.last
	t.entries += sum.entries
}

// checkParents checks that the directories which the chunk's entries need came before.
func (t *trail) checkParents(needs []string) {
	if t.blind {
		return
	}
	have := map[string]bool{}
	for _, dir := range t.open {
		have[dir] = true
	}
	for _, dir := range needs {
		if !have[dir] && !outside(dir, t.roots) {
			t.walker.incomplete(t.snap, fmt.Sprintf("the directory %q is not in the tree, but what it holds is", dir))
		}
	}
}

// outside reports whether dir is above the roots: such directories need not be in the tree.
func outside(dir string, roots []string) bool {
	for _, root := range roots {
		if snapshot.Within(root, dir) {
			return false
		}
	}
	return true
}

// checkPacks checks that the snapshot's own lists have the packs that its entries use.
func (t *trail) checkPacks(used []snapshot.Range) {
	if t.walker.source.c.opts.Level != Content {
		return
	}
	for _, l := range t.snap.lists {
		if !l.found {
			return
		}
	}
	for _, r := range used {
		for n := r.First; n <= r.Last; n++ {
			if t.snap.find(n) == nil {
				t.walker.incomplete(t.snap, fmt.Sprintf("files use pack %d, which is in none of its lists", n))
				break // a hostile range must not cost time
			}
		}
	}
}
