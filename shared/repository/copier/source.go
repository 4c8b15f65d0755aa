package copier

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// source copies one source.
type source struct {
	*run
	src    snapshot.Source
	ours   *inventory.Inventory // of the original
	theirs *inventory.Inventory // of the copy, when the run began
	done   map[inventory.Pack]held
	listed map[string]held                // lists in the copy, by name
	bad    map[string]bool                // keys of packs and lists that the copy can not have; noted already
	lists  map[string][]snapshot.PackInfo // those of the original that are in order, by name

	manifests []*repository.Stored // of the original
	known     map[uint64]bool      // snapshots of the copy of which it is noted what they name
}

func peekID(payload []byte) (string, error) {
	var d struct {
		ID string `json:"id"`
	}
	err := json.Unmarshal(payload, &d)
	return d.ID, err
}

func (r *run) copySource(src snapshot.Source) error {
	s := &source{
		run: r, src: src, done: map[inventory.Pack]held{}, listed: map[string]held{}, bad: map[string]bool{}, lists: map[string][]snapshot.PackInfo{},
		known: map[uint64]bool{},
	}
	// First the manifests, then what they name: all of it is in the listing.
	manifests, err := r.from.Manifests(r.ctx, src)
	bad := new(repository.BadManifestError)
	if err != nil && !errors.As(err, &bad) {
		return err
	}
	if s.ours, err = inventory.Take(r.ctx, r.from.Store(), src); err != nil {
		return err
	}
	if s.theirs, err = inventory.Take(r.ctx, r.to, src); err != nil {
		return fmt.Errorf("the copy: %w", err)
	}
	for n, err := range bad.Errors {
		id := snapshot.ID{Source: src, Sequence: n}
		s.note(layout.ManifestKey(id), err.Error(), false, id)
		if _, ok := s.theirs.Manifests[n]; !ok {
			s.withhold(id)
		}
	}
	s.manifests = manifests
	if err := s.checkHistory(manifests); err != nil {
		return err
	}
	s.checkGaps()
	// Keys first, all of them: recipients that were added later are not in the manifests.
	if err := s.documents(s.keyDocuments()); err != nil {
		return err
	}
	if err := s.plan(manifests); err != nil {
		return err
	}
	for _, m := range manifests {
		// A crash must not leave manifests in the copy between which one is missing without a word.
		if err := s.removals(m.Sequence); err != nil {
			return err
		}
		if err := s.copySnapshot(m); err != nil {
			return fmt.Errorf("snapshot %d: %w", m.Sequence, err)
		}
	}
	if err := s.documents(s.otherDocuments()); err != nil {
		return err
	}
	return s.copyLogs()
}

// removals copies the records of snapshots before number n that are gone from the original. That of one which is still
// there, because its removal is under way or was interrupted, comes later: with it the copy would take it for removed.
func (s *source) removals(n uint64) error {
	var keys []string
	for gone, record := range s.ours.Expired {
		_, still := s.ours.Manifests[gone]
		if _, there := s.theirs.Expired[gone]; still || there || gone >= n {
			continue
		}
		keys = append(keys, s.ours.ExpiredKey(gone))
		s.theirs.Expired[gone] = record
	}
	slices.Sort(keys)
	return s.documents(keys)
}

// plan adds up the packs that will be copied, for the progress. The lists that it reads are kept.
func (s *source) plan(manifests []*repository.Stored) error {
	counted := map[inventory.Pack]bool{}
	var total int64
	for _, m := range manifests {
		if s.has(m.Sequence) {
			continue
		}
		packs, _, err := s.packs(m)
		if err != nil {
			return err
		}
		chain, err := layout.ParseChain(m.Chain)
		if err != nil {
			return err
		}
		for _, p := range packs {
			name := inventory.Pack{Chain: chain, ID: p.ID}
			if _, there := s.theirs.Packs[name]; !there && !counted[name] {
				counted[name] = true
				total += int64(p.Size)
			}
		}
	}
	s.expect(total)
	return nil
}

// has reports whether the copy has the snapshot, or has had it until its own retention removed it.
func (s *source) has(n uint64) bool {
	_, there := s.theirs.Manifests[n]
	_, expired := s.theirs.Expired[n]
	return there || expired
}

// checkHistory refuses a copy whose snapshots are not a part of the original's history. Equal bytes of the newest
// common manifest prove, by the chain of hashes, that all before it are equal too.
func (s *source) checkHistory(manifests []*repository.Stored) error {
	var common []*repository.Stored
	for _, m := range manifests {
		if _, ok := s.theirs.Manifests[m.Sequence]; ok {
			common = append(common, m)
		}
	}
	if highest := s.ours.Highest(); s.theirs.Highest() > highest {
		key := s.theirs.ManifestKey(s.theirs.Highest())
		return &DivergedError{Key: key, Detail: fmt.Sprintf("the original ends with snapshot %d: it was rolled back, or this is not its copy", highest)}
	}
	if len(common) == 0 {
		return nil
	}
	newest := common[len(common)-1]
	same, err := s.same(newest)
	if err != nil {
		return err
	}
	if same && s.sizesAgree(common) {
		return nil
	}
	for _, m := range common {
		same, err := s.same(m)
		if err != nil {
			return err
		}
		if !same {
			return &DivergedError{Key: layout.ManifestKey(m.ID()), Detail: "the manifests with this number differ"}
		}
	}
	return nil
}

// checkGaps names snapshots that only the copy still has, though nothing says that retention removed them.
func (s *source) checkGaps() {
	for _, n := range inventory.Sequences(s.theirs.Manifests) {
		_, there := s.ours.Manifests[n]
		_, expired := s.ours.Expired[n]
		if !there && !expired {
			s.note(s.ours.ManifestKey(n), "is missing in the original, without a record of its removal; the copy still has it", false)
		}
	}
}

func (s *source) sizesAgree(common []*repository.Stored) bool {
	return !slices.ContainsFunc(common, func(m *repository.Stored) bool {
		return s.theirs.Manifests[m.Sequence].Size != int64(len(m.Bytes))
	})
}

// same reports whether the copy has the same manifest.
func (s *source) same(m *repository.Stored) (bool, error) {
	b, err := objstore.ReadAll(s.ctx, s.to, layout.ManifestKey(m.ID()), maxDocument)
	if err != nil {
		return false, fmt.Errorf("read %s of the copy: %w", layout.ManifestKey(m.ID()), err)
	}
	return bytes.Equal(b, m.Bytes), nil
}

func (s *source) withhold(id snapshot.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.result.Withheld = append(s.result.Withheld, id)
}
