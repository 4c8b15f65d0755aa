package repair

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

var (
	// ErrNotMissing says that a snapshot's absence needs no acceptance: it is there, or its removal is on record.
	ErrNotMissing = errors.New("it is not missing")
	// ErrNotGap says that no later snapshot tells that there was one.
	ErrNotGap = errors.New("no later snapshot tells that there was such a snapshot")
	// ErrHidden says that the manifest is there, behind a delete marker or under other bytes.
	ErrHidden = errors.New("the store still has its manifest, which somebody has hidden")
)

// unknownHash stands for the hash of a manifest that nobody knows any more.
var unknownHash = strings.Repeat("0", 2*len(snapshot.Hash{}))

// AcceptMissing records that a snapshot is gone for good, as retention does for those that it removes: from then on its
// absence is no finding. Nothing can be got back that way; look for a copy first. The record says what its neighbours
// still tell of it.
//
// Errors: ErrNotMissing, ErrNotGap, ErrHidden, those of [repository.Repository.PutDocument].
func AcceptMissing(ctx context.Context, repo *repository.Repository, id snapshot.ID, now time.Time) error {
	for _, key := range []string{layout.ManifestKey(id), layout.ExpiredKey(id)} {
		switch _, err := repo.Store().Stat(ctx, key); {
		case err == nil:
			return fmt.Errorf("accept that %s is gone: %w", id, ErrNotMissing)
		case !errors.Is(err, objstore.ErrNotExist):
			return fmt.Errorf("look for %s: %w", key, err)
		}
	}
	listed, err := repo.Sequences(ctx, id.Source)
	if err != nil {
		return err
	}
	if id.Sequence == 0 || len(listed) == 0 || listed[len(listed)-1].Sequence < id.Sequence {
		return fmt.Errorf("accept that %s is gone: %w", id, ErrNotGap)
	}
	hidden, err := isHidden(ctx, repo, layout.ManifestKey(id))
	switch {
	case err != nil:
		return fmt.Errorf("look for versions of %s: %w", layout.ManifestKey(id), err)
	case hidden:
		return fmt.Errorf("accept that %s is gone: %w", id, ErrHidden)
	}
	gone := record.Expired{Sequence: id.Sequence, Time: now.UTC()}
	if _, gone.Manifest, err = link(ctx, repo, snapshot.ID{Source: id.Source, Sequence: id.Sequence + 1}); err != nil {
		return err
	}
	if id.Sequence > 1 {
		if gone.Previous, _, err = link(ctx, repo, snapshot.ID{Source: id.Source, Sequence: id.Sequence - 1}); err != nil {
			return err
		}
	}
	return repo.PutDocument(ctx, layout.ExpiredKey(id), gone)
}

// isHidden reports whether the store has a version of a document that authenticates. Where it keeps none, or they may not be
// listed, it has none as far as anybody can tell.
func isHidden(ctx context.Context, repo *repository.Repository, key string) (bool, error) {
	past, ok := repo.Store().(objstore.Versioned)
	if !ok {
		return false, nil
	}
	u := &undeleter{past: past, repo: repo}
	all, err := u.versions(ctx, key)
	if errors.Is(err, objstore.ErrNoVersions) || errors.Is(err, objstore.ErrDenied) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, v := range all {
		if v.DeleteMarker || v.Size > maxDocument {
			continue
		}
		b, err := u.read(ctx, v)
		switch {
		case errors.Is(err, objstore.ErrNotExist): // removed meanwhile
		case err != nil:
			return false, err
		case repo.DecodeDocument(key, b, nil) == nil:
			return true, nil
		}
	}
	return false, nil
}

// link returns the hash of a manifest and of the one before it, from the manifest or from the record of its removal; of one
// that is missing as well both are unknown.
func link(ctx context.Context, repo *repository.Repository, id snapshot.ID) (hash, previous string, err error) {
	m, err := repo.Manifest(ctx, id)
	if err == nil {
		return m.Hash.String(), m.Previous, nil
	}
	if !errors.Is(err, repository.ErrNoSnapshot) {
		return "", "", err
	}
	var gone record.Expired
	_, err = repo.Document(ctx, layout.ExpiredKey(id), &gone)
	switch {
	case err == nil:
		return gone.Manifest, gone.Previous, nil
	case errors.Is(err, objstore.ErrNotExist):
		return unknownHash, unknownHash, nil
	}
	return "", "", err
}
