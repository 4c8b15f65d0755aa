package repair

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/parallel"
)

// document reads the signed document under key and checks it; the problem is empty if it is in order.
func document(ctx context.Context, repo *repository.Repository, key string) (doc []byte, problem string, err error) {
	doc, err = repo.Document(ctx, key, nil)
	switch {
	case err == nil:
		return doc, "", nil
	case doc != nil:
		return nil, err.Error(), nil
	}
	problem, err = trouble(ctx, err)
	return nil, problem, err
}

// putDocument puts back a document that the copy has, or that can be made again.
func (s *source) putDocument(ctx context.Context, key, problem string) error {
	item := Item{Key: key, Problem: problem, Outcome: Left}
	doc, reason, err := s.fetchDocument(ctx, key)
	if err != nil {
		return err
	}
	if doc == nil {
		if doc, err = s.makeKey(key); err != nil {
			return err
		}
	}
	if doc == nil {
		item.Reason = reason
		s.note(item)
		return nil
	}
	return s.putProven(ctx, item, doc)
}

// fetchDocument reads a document of the copy. Its bytes must be authentic here: by this repository's trust, under this
// key.
func (s *source) fetchDocument(ctx context.Context, key string) (doc []byte, reason string, err error) {
	if s.from == nil {
		return nil, "no copy was named", nil
	}
	doc, err = objstore.ReadAll(ctx, s.from.Store(), key, maxDocument)
	if err != nil {
		problem, err := trouble(ctx, err)
		if err != nil {
			return nil, "", fmt.Errorf("the copy: read %s: %w", key, err)
		}
		return nil, "in the copy: " + problem, nil
	}
	if err := s.repo.DecodeDocument(key, doc, nil); err != nil {
		return nil, "the copy's is damaged too", nil //nolint:nilerr // it is in the result
	}
	return doc, "", nil
}

// makeKey makes a key object again from what the manifests repeat of it, if they do and this identity can sign.
func (s *source) makeKey(key string) ([]byte, error) {
	doc, ok := s.wrapped[key]
	signer, signs := s.identity.Signer()
	if !ok || !signs {
		return nil, nil
	}
	payload, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", key, err)
	}
	return keyring.Sign(signer, s.repo.ID(), key, payload), nil
}

// namedKeys are the key objects of which the manifests repeat the content, by object key.
func (s *source) namedKeys() map[string]repository.KeyDocument {
	out := map[string]repository.KeyDocument{}
	for _, m := range s.manifests {
		for _, k := range m.Keys {
			for _, w := range k.Wrapped {
				key := layout.KeyKey(s.src, k.Key, repository.RecipientID(w.Type, w.Recipient))
				out[key] = repository.KeyDocument{Key: k.Key, Chain: m.Chain, Wrapped: w}
			}
		}
	}
	return out
}

// putProven puts bytes back that have been proven, and notes the outcome.
func (r *run) putProven(ctx context.Context, item Item, good []byte) error {
	forbidden, err := r.replace(ctx, item.Key, good, item.Problem != missing)
	if err != nil {
		return fmt.Errorf("put %s back: %w", item.Key, err)
	}
	item.Outcome, item.Reason, item.Size = PutBack, "", int64(len(good))
	if forbidden != "" {
		item.Outcome, item.Reason = Left, forbidden
	}
	r.note(item)
	return nil
}

// repairDocuments checks the documents beside the snapshots. Of those that only the copy has, keys and the marks of
// snapshots that are here are put back: the others are about the copy itself, or nothing rests on them.
func (s *source) repairDocuments(ctx context.Context) error {
	var check, absent []string
	for k := range s.inv.Keys {
		check = append(check, s.inv.KeyKey(k))
	}
	for m := range s.inv.Marks {
		check = append(check, s.inv.MarkKey(m))
	}
	for n := range s.inv.Expired {
		check = append(check, s.inv.ExpiredKey(n))
	}
	for n := range s.inv.Condemned {
		check = append(check, s.inv.CondemnedKey(n))
	}
	for key := range s.inv.Receipts {
		if s.opts.Check { // there may be thousands
			check = append(check, key)
		}
	}
	s.wrapped = s.namedKeys()
	for k := range s.copied.Keys {
		if _, ok := s.inv.Keys[k]; !ok {
			absent = append(absent, s.inv.KeyKey(k))
		}
	}
	listed := map[string]bool{}
	for _, key := range slices.Concat(check, absent) {
		listed[key] = true
	}
	for key := range s.wrapped {
		if !listed[key] {
			absent = append(absent, key)
		}
	}
	for m := range s.copied.Marks {
		_, ok := s.inv.Marks[m]
		if _, snap := s.manifests[m.Sequence]; !ok && snap {
			absent = append(absent, s.inv.MarkKey(m))
		}
	}
	slices.Sort(check)
	slices.Sort(absent)
	err := parallel.Each(ctx, s.opts.Workers, check, func(ctx context.Context, key string) error {
		_, problem, err := document(ctx, s.repo, key)
		if err != nil || problem == "" || problem == missing { // it was in the listing: removed meanwhile
			return err
		}
		return s.putDocument(ctx, key, problem)
	})
	if err != nil {
		return err
	}
	return parallel.Each(ctx, s.opts.Workers, absent, func(ctx context.Context, key string) error {
		return s.putDocument(ctx, key, missing)
	})
}
