package verify

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/parallel"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// documentReaders is how many documents and lists are read at the same time.
const documentReaders = 16

// classify says in the words of this package why an object could not be read.
func classify(err error) Problem {
	switch {
	case errors.Is(err, objstore.ErrNotExist), errors.Is(err, repository.ErrNoSnapshot):
		return Missing
	case errors.Is(err, keyring.ErrUntrusted):
		return Untrusted
	case errors.Is(err, keyring.ErrSignature), errors.Is(err, keyring.ErrUnsigned):
		return Signature
	case errors.Is(err, snapshot.ErrUnsupported):
		return TooNew
	case errors.Is(err, snapshot.ErrFormat):
		return Malformed
	}
	return Unreadable
}

// checkRepository checks the repository's own document and the access documents again.
func (c *checker) checkRepository(ctx context.Context) error {
	again, err := repository.Open(ctx, c.repo.Store(), c.repo.Identity())
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		key := layout.RepositoryKey
		if errors.Is(err, repository.ErrAccess) || errors.Is(err, repository.ErrUnfinished) {
			key = layout.AccessPrefix
		}
		c.findings.add(key, classify(err), err.Error())
		return nil
	}
	c.result.Access = again.Access().Sequence
	c.result.Documents += 1 + int(c.result.Access)
	if again.ID() != c.repo.ID() {
		c.findings.add(layout.RepositoryKey, Replayed, fmt.Sprintf("it is now repository %s", again.ID()))
	}
	if seen := max(c.opts.Access, c.repo.Access().Sequence); c.result.Access < seen {
		c.findings.add(layout.AccessKey(seen), RolledBack, fmt.Sprintf("access documents end with number %d; number %d was seen before", c.result.Access, seen))
	}
	return nil
}

// document reads and checks one signed document; what is wrong is noted. It reports whether v can be used.
func (s *source) document(ctx context.Context, key string, v any, hit ...snapshot.ID) bool {
	doc, err := s.c.repo.Document(ctx, key, v)
	if err == nil {
		s.documents.Add(1)
		return true
	}
	if ctx.Err() != nil || errors.Is(err, objstore.ErrNotExist) {
		return false // it was in the listing: somebody has just removed it, and what must be there is missed otherwise
	}
	s.badDocument(key, doc, err, hit...)
	return false
}

// badDocument notes what is wrong with a document, and returns it.
func (s *source) badDocument(key string, doc []byte, err error, hit ...snapshot.ID) Problem {
	problem, detail := classify(err), err.Error()
	if other := s.replayed(key, doc); problem == Signature && other != "" {
		problem, detail = Replayed, "it is the document of "+other
	}
	s.c.findings.add(key, problem, detail, hit...)
	return problem
}

// replayed returns the key under which doc, found under key, would be valid; empty if there is none. Only such keys
// are tried as the document itself suggests.
func (s *source) replayed(key string, doc []byte) string {
	payload, _, err := keyring.Peek(doc)
	if err != nil {
		return ""
	}
	var p struct {
		Host, Source string
		Sequence     uint64
		Key, Level   string
		Recipient    string
		Type         string
		Pack         string
		Stream       string
		Epoch        uint64
	}
	if json.Unmarshal(payload, &p) != nil {
		return ""
	}
	own := snapshot.Source{Host: p.Host, Name: p.Source}
	if own.Check() != nil {
		own = s.src
	}
	id := snapshot.ID{Source: own, Sequence: p.Sequence}
	candidates := []string{
		layout.ManifestKey(id), layout.CondemnedKey(id), layout.ExpiredKey(id), layout.AccessKey(p.Sequence), layout.RepositoryKey,
	}
	if p.Key != "" {
		candidates = append(candidates, layout.KeyKey(own, p.Key, repository.RecipientID(p.Type, p.Recipient)))
	}
	if pack, err := layout.ParseHash(p.Pack); err == nil {
		candidates = append(candidates, layout.DamagedKey(own, pack))
	}
	if p.Stream != "" {
		candidates = append(candidates,
			layout.LogKey(own, layout.LogObject{Stream: p.Stream, Epoch: p.Epoch}),
			layout.ExpiredLogKey(own, p.Stream, p.Epoch, p.Sequence), layout.CondemnedLogKey(own, p.Stream, p.Epoch, p.Sequence))
	}
	for m := range s.inv.Marks {
		candidates = append(candidates, s.inv.MarkKey(m))
	}
	if p.Level != "" {
		for receipt := range s.inv.Receipts {
			candidates = append(candidates, receipt)
		}
	}
	for _, other := range candidates {
		if other != key && s.c.repo.DecodeDocument(other, doc, nil) == nil {
			return other
		}
	}
	return ""
}

// inParallel calls fn for each item, several at a time, and stops early only when ctx ends.
func inParallel[T any](ctx context.Context, limit int, items []T, fn func(context.Context, T)) error {
	return parallel.Each(ctx, limit, items, func(ctx context.Context, item T) error {
		fn(ctx, item)
		return ctx.Err()
	})
}

// checkRecords checks the documents that stand beside the snapshots.
func (s *source) checkRecords(ctx context.Context) error {
	if err := s.checkExpired(ctx); err != nil {
		return err
	}
	err := inParallel(ctx, documentReaders, inventory.Sequences(s.inv.Condemned), func(ctx context.Context, n uint64) {
		key := s.inv.CondemnedKey(n)
		var v record.Condemned
		if s.document(ctx, key, &v) {
			s.matches(key, n, v.Sequence, v.Manifest)
		}
	})
	if err != nil {
		return err
	}
	marks := make([]inventory.Mark, 0, len(s.inv.Marks))
	for m := range s.inv.Marks {
		marks = append(marks, m)
	}
	err = inParallel(ctx, documentReaders, marks, func(ctx context.Context, m inventory.Mark) {
		key := s.inv.MarkKey(m)
		var v record.Mark
		if s.document(ctx, key, &v) {
			s.matches(key, m.Sequence, v.Sequence, v.Manifest)
		}
	})
	if err != nil || s.c.opts.Level == Structure {
		return err
	}
	return s.checkReports(ctx)
}

// checkExpired reads the records of removed snapshots, which explain gaps.
func (s *source) checkExpired(ctx context.Context) error {
	numbers := inventory.Sequences(s.inv.Expired)
	records := make([]*record.Expired, len(numbers))
	err := inParallel(ctx, documentReaders, indexes(len(numbers)), func(ctx context.Context, i int) {
		key := s.inv.ExpiredKey(numbers[i])
		v := new(record.Expired)
		if s.document(ctx, key, v) && s.matches(key, numbers[i], v.Sequence, v.Manifest) {
			records[i] = v
		}
	})
	if err != nil {
		return err
	}
	for i, v := range records {
		if v != nil {
			s.expired[numbers[i]] = v
		}
	}
	return nil
}

// checkReports checks receipts and records of damage.
func (s *source) checkReports(ctx context.Context) error {
	var keys []string
	for key := range s.inv.Receipts {
		if s.c.opts.Sample.Chooses(sha256.Sum256([]byte(key))) { // there may be thousands
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	err := inParallel(ctx, documentReaders, keys, func(ctx context.Context, key string) {
		var v record.Receipt
		s.document(ctx, key, &v)
	})
	if err != nil {
		return err
	}
	packs := make([]snapshot.Hash, 0, len(s.inv.Damaged))
	for pack := range s.inv.Damaged {
		packs = append(packs, pack)
	}
	return inParallel(ctx, documentReaders, packs, func(ctx context.Context, pack snapshot.Hash) {
		var v record.Damaged
		if key := s.inv.DamagedKey(pack); s.document(ctx, key, &v) && v.Pack != pack.String() {
			s.c.findings.add(key, Malformed, "it is about pack "+v.Pack)
		}
	})
}

// matches checks that a record is about snapshot n and, if that is there, about its very manifest.
func (s *source) matches(key string, n, says uint64, manifest string) bool {
	if says != n {
		s.c.findings.add(key, Malformed, fmt.Sprintf("it is about snapshot %d", says))
		return false
	}
	if m, ok := s.stored[n]; ok && m.Hash.String() != manifest {
		s.c.findings.add(key, Contradicts, "it is about another manifest with this number")
		return false
	}
	return true
}

func indexes(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// checkKeys checks all key objects of the source, and that those which the wanted manifests name are there. Nothing
// is lost by a missing one, since manifests repeat their content, but it was there and should be.
func (s *source) checkKeys(ctx context.Context) error {
	keys := make([]inventory.Key, 0, len(s.inv.Keys))
	for k := range s.inv.Keys {
		keys = append(keys, k)
	}
	err := inParallel(ctx, documentReaders, keys, func(ctx context.Context, k inventory.Key) {
		key := s.inv.KeyKey(k)
		var v repository.KeyDocument
		if !s.document(ctx, key, &v) {
			return
		}
		recipient := repository.RecipientID(v.Type, v.Recipient)
		if v.Key != k.ID || recipient != k.Recipient {
			s.c.findings.add(key, Malformed, "it holds another key or is for another recipient")
		}
	})
	if err != nil {
		return err
	}
	for _, snap := range s.snaps {
		for _, k := range snap.Keys {
			for _, w := range k.Wrapped {
				recipient := repository.RecipientID(w.Type, w.Recipient)
				name := inventory.Key{ID: k.Key, Recipient: recipient}
				if _, ok := s.inv.Keys[name]; !ok {
					s.c.findings.add(s.inv.KeyKey(name), Missing, "no snapshot is lost by it: manifests repeat the key")
				}
			}
		}
	}
	return nil
}
