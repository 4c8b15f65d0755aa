package verify

import (
	"context"
	"fmt"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// maxWrong bounds what is said of one tree chunk.
const maxWrong = 20

// treeSum is what is kept of a tree chunk that was checked: enough to judge every snapshot that uses it.
type treeSum struct {
	lost    *place   // it can not be read: which files are in it is not known
	last    string   // path of its last entry
	needs   []string // directories that its entries need and that must have come before
	open    []string // directories in it that hold last or are it
	packs   []snapshot.Range
	hits    []place // findings that hit files in it
	wrong   []string
	entries uint64
}

// treeReader checks one tree chunk.
type treeReader struct {
	ctx      context.Context //nolint:containedctx // lives as long as one call of decode
	chain    *chain
	read     readChunk
	maps     *repository.Snapshot
	findings *findings
	manifest string // key: stands for what the tree itself gets wrong
	sum      *treeSum
	numbers  []uint64
	spans    []snapshot.Range // pack ranges of maps
}

// decode goes through the entries. An error means that the chunk as a whole is no good.
func (t *treeReader) decode(plain []byte, first string) error {
	prev := ""
	err := snapshot.DecodeTree(plain, func(e *snapshot.Entry) error {
		if t.sum.entries == 0 && e.Path != first {
			return fmt.Errorf("the tree chunk begins with %q instead of %q", e.Path, first)
		}
		if t.sum.entries > 0 && snapshot.ComparePaths(prev, e.Path) >= 0 {
			return fmt.Errorf("%q stands after %q", e.Path, prev)
		}
		prev = e.Path
		t.sum.entries++
		t.parent(e)
		t.content(e)
		return nil
	})
	if err != nil {
		return err
	}
	if t.sum.entries == 0 {
		return fmt.Errorf("the tree chunk that should begin with %q is empty", first)
	}
	t.sum.last = prev
	t.sum.packs = append(ranges(t.numbers), t.spans...)
	return nil
}

// parent keeps the stack of directories and notes which are needed from earlier chunks. What a directory holds follows
// it at once, so that only directories which hold the first entry can be in earlier chunks.
func (t *treeReader) parent(e *snapshot.Entry) {
	open := t.sum.open
	for len(open) > 0 && !snapshot.Within(open[len(open)-1], e.Path) {
		open = open[:len(open)-1]
	}
	dir := snapshot.Parent(e.Path)
	if e.Path != "/" && (len(open) == 0 || open[len(open)-1] != dir) {
		if n := len(t.sum.needs); n == 0 || t.sum.needs[n-1] != dir {
			t.sum.needs = append(t.sum.needs, dir)
		}
	}
	if e.Type == snapshot.Directory {
		open = append(open, e.Path)
	}
	t.sum.open = open
}

// content checks what an entry's extents or maps lead to.
func (t *treeReader) content(e *snapshot.Entry) {
	for i := range e.Extents {
		x := &e.Extents[i]
		if x.Hole {
			continue
		}
		if n := len(t.numbers); n == 0 || t.numbers[n-1] != x.Ref.Pack {
			t.numbers = append(t.numbers, x.Ref.Pack)
		}
		t.note(e, t.chain.resolve(snapshot.Content, &x.Ref, t.read))
	}
	for i := range e.Maps {
		m := &e.Maps[i]
		t.numbers = append(t.numbers, m.Ref.Pack)
		t.spans = append(t.spans, m.Packs...)
		t.note(e, t.mapRef(m))
	}
}

// mapRef checks a map and what it leads to.
func (t *treeReader) mapRef(m *snapshot.MapRef) verdict {
	v := t.chain.resolve(snapshot.Map, &m.Ref, t.read)
	if t.chain.source.c.opts.Level != Content {
		if !v.ok() {
			return v
		}
		return t.packRanges(m.Packs)
	}
	if !v.ok() {
		return v
	}
	sum, ok := t.chain.maps.sum(chunkAt{m.Ref.Pack, m.Ref.Offset})
	if !ok {
		p := t.chain.packs[m.Ref.Pack]
		if p == nil || !p.read {
			return t.packRanges(m.Packs) // not in the sample
		}
		extents, err := t.maps.Map(t.ctx, *m)
		if err != nil {
			return verdict{fault: p.fault.Load(), wrong: err.Error()}
		}
		sum = t.chain.sumMap(extents, t.read)
	}
	switch {
	case !sum.ok():
		return sum.verdict
	case sum.length != m.Length:
		return verdict{wrong: fmt.Sprintf("a map covers %d bytes instead of %d", sum.length, m.Length)}
	case sum.ranges != hashRanges(m.Packs):
		return verdict{wrong: "a map uses other packs than its entry says"}
	}
	return verdict{}
}

// packRanges looks for damaged packs among those that a map uses.
func (t *treeReader) packRanges(used []snapshot.Range) verdict {
	for _, r := range used {
		for n := r.First; n <= r.Last; n++ {
			p := t.chain.packs[n]
			if p == nil {
				return verdict{wrong: fmt.Sprintf("pack %d is in no list", n)}
			}
			if p.fault.Load() != nil && (p.lost || t.chain.source.c.opts.Level != Content || !p.indexed) {
				return verdict{fault: p.fault.Load()}
			}
		}
	}
	return verdict{}
}

// note keeps what is wrong with an entry.
func (t *treeReader) note(e *snapshot.Entry, v verdict) {
	switch {
	case v.fault != nil:
		t.findings.file(*v.fault, e.Path)
		for _, at := range t.sum.hits {
			if at == *v.fault {
				return
			}
		}
		t.sum.hits = append(t.sum.hits, *v.fault)
	case v.wrong != "":
		at := t.findings.add(t.manifest, Incomplete, fmt.Sprintf("%q: %s", e.Path, v.wrong))
		t.findings.file(at, e.Path)
		if len(t.sum.wrong) < maxWrong {
			t.sum.wrong = append(t.sum.wrong, fmt.Sprintf("%q: %s", e.Path, v.wrong))
		}
	}
}

// sum returns what was found of a map chunk when its pack was read.
func (m *mapChecks) sum(at chunkAt) (mapSum, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.sums[at]
	return s, ok
}
