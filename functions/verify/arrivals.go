package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// messages checks the snapshots whose manifests the events of a batch name, and then reads the ranges that it asks for: what
// takes long waits. The repository is opened once for all.
func (f *function) messages(ctx context.Context, payload json.RawMessage) (any, error) {
	repo, err := f.backend.Repository(ctx)
	if err != nil {
		return nil, err // nothing of the batch is done: all of it comes again
	}
	return invoke.Batch(ctx, payload, func(ctx context.Context, batch []invoke.Message) []error {
		failed := make([]error, len(batch))
		ranges := map[int]*events.Reread{}
		for i, m := range batch {
			failed[i] = invoke.One(ctx, m, func(ctx context.Context, m invoke.Message) error {
				r, err := reread(m.Body)
				if r != nil {
					ranges[i] = r
				}
				if r != nil || err != nil {
					return err
				}
				id, ok, err := arrived(m.Body)
				if err != nil || !ok {
					return err
				}
				return f.arrival(ctx, repo, id)
			})
		}
		// Each gets an equal share of the time that is left; one that is not done is asked for again.
		for n, i := range slices.Sorted(maps.Keys(ranges)) {
			failed[i] = invoke.One(ctx, batch[i], func(ctx context.Context, _ invoke.Message) error {
				return f.readRange(ctx, repo, ranges[i], len(ranges)-n)
			})
		}
		return failed
	})
}

// reread returns what a message asks to read; nil if it is something else.
func reread(body []byte) (*events.Reread, error) {
	var probe struct {
		Ranges     int    `json:"ranges"`
		DetailType string `json:"detail-type"`
	}
	if err := json.Unmarshal(body, &probe); err != nil {
		return nil, fmt.Errorf("decode message: %w", err)
	}
	if probe.Ranges == 0 || probe.DetailType != "" {
		return nil, nil
	}
	return events.DecodeReread(body)
}

// arrived returns the snapshot whose manifest an event is about; false if it is about something else. A body that is no
// event is an error, which leads it to the dead letters.
func arrived(body []byte) (snapshot.ID, bool, error) {
	e, err := events.DecodeEnvelope(body)
	if err != nil {
		return snapshot.ID{}, false, err
	}
	if e.Source != "aws.s3" || e.DetailType != "Object Created" {
		return snapshot.ID{}, false, nil
	}
	var detail struct {
		Object struct {
			Key string `json:"key"`
		} `json:"object"`
	}
	if err := json.Unmarshal(e.Detail, &detail); err != nil {
		return snapshot.ID{}, false, fmt.Errorf("decode event %s: %w", e.ID, err)
	}
	id, ok := parseManifest(detail.Object.Key)
	return id, ok, nil
}

// parseManifest takes the key of a manifest apart.
func parseManifest(key string) (snapshot.ID, bool) {
	parts := strings.SplitN(strings.TrimPrefix(key, layout.Prefix), "/", 3)
	if len(parts) != 3 || !strings.HasPrefix(key, layout.Prefix) {
		return snapshot.ID{}, false
	}
	src := snapshot.Source{Host: parts[0], Name: parts[1]}
	if src.Check() != nil {
		return snapshot.ID{}, false
	}
	n, err := layout.ParseNumbered(layout.ManifestPrefix(src), key)
	return snapshot.ID{Source: src, Sequence: n}, err == nil
}

// arrival checks one snapshot. A second event for it finds the receipt of the first and ends.
func (f *function) arrival(ctx context.Context, repo *repository.Repository, id snapshot.ID) error {
	log := invoke.Log(ctx).With("snapshot", id.String())
	result, done, err := verify.Arrival(ctx, repo, id, f.options())
	switch {
	case errors.Is(err, repository.ErrNoSnapshot):
		return f.vanished(ctx, repo, id)
	case err != nil:
		return err
	case done:
		log.Info("checked before")
		return nil
	case result.Unrecorded != nil:
		return fmt.Errorf("write the receipt of %s: %w", id, result.Unrecorded)
	}
	log.Info("checked", "ok", result.OK(), "documents", result.Documents, "packs", result.Packs, "findings", len(result.Findings))
	return f.report(ctx, id.Source, "arrival", result.Findings)
}

// vanished is about a manifest that an event announced and that is not there: retention has removed it, or somebody has
// hidden it.
func (f *function) vanished(ctx context.Context, repo *repository.Repository, id snapshot.ID) error {
	var v record.Expired
	_, err := repo.Document(ctx, layout.ExpiredKey(id), &v)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		invoke.Log(ctx).Info("removed before it was checked", "snapshot", id.String())
		return nil
	}
	return f.report(ctx, id.Source, "arrival", []verify.Finding{{
		Key: layout.ManifestKey(id), Problem: verify.Missing, Detail: "it arrived and is gone, and no record says that retention removed it",
		Snapshots: []snapshot.ID{id},
	}})
}
