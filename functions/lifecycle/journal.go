package main

import (
	"context"
	"slices"

	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

// journalPart is how many keys one document of the journal has.
const journalPart = 5000

// journal writes down what is about to be deleted. It is the last look before it: a freeze that came meanwhile, and the
// limit of deletions, stop it. A crash between the journal and the deletion leaves keys that are still there.
func (v *visit) journal(ctx context.Context, keys []string, n int) error {
	frozen, err := v.frozen(ctx)
	switch {
	case err != nil:
		return err
	case frozen != "":
		return errFrozen
	case v.env.Deletes > 0 && v.deleted > 0 && v.deleted+len(keys) > v.env.Deletes:
		return errLimit
	}
	v.deleted += len(keys)
	now := v.now()
	for part := range slices.Chunk(keys, journalPart) {
		d := control.Deletions{Version: 1, Source: v.src.String(), Place: v.place(), Time: now.UTC(), Owner: v.owner, Keys: part}
		// The number keeps parts of the same moment apart; one that is there is of an earlier attempt, and stays.
		for {
			_, err := statestore.Write(ctx, v.state, control.JournalKey(v.src, now, n), d, "")
			if err == nil {
				break
			}
			if !isConflict(err) {
				return err
			}
			n += 1000
		}
		n++
	}
	return v.forget(ctx)
}

// forget removes parts of the journal that are older than it is kept.
func (v *visit) forget(ctx context.Context) error {
	var old []string
	first := v.now().Add(-control.KeepJournal)
	err := v.state.List(ctx, control.JournalPrefix(v.src), func(key string) error {
		at, ok := control.JournalTime(v.src, key)
		if !ok || !at.Before(first) {
			return errEnough // they come in the order of time
		}
		old = append(old, key)
		return nil
	})
	if err != nil && !isEnough(err) {
		return err
	}
	for _, key := range old {
		_, tag, err := v.state.Get(ctx, key)
		if err != nil {
			continue // another was faster
		}
		if err := v.state.Delete(ctx, key, tag); err != nil && !isConflict(err) {
			return err
		}
	}
	return nil
}
