package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/hostagent/daemon"
	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/schedule"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Proofs looks at the receipts of a source.
func (w *agentWork) Proofs(ctx context.Context, p *policy.Policy, source string) (schedule.Proofs, error) {
	repo, err := w.with(p).open(ctx)
	if err != nil {
		return schedule.Proofs{}, err
	}
	return observe.Proofs(ctx, repo, snapshot.Source{Host: w.host, Name: source})
}

// Verify runs `holdfast verify SOURCE --level LEVEL`, or restores the newest snapshot to a place of its own and removes it
// again. It is done when there are receipts: a verification of which nobody can know counts as failed.
func (w *agentWork) Verify(ctx context.Context, p *policy.Policy, source, level string) (daemon.Outcome, error) {
	a := w.with(p)
	if err := a.readAs(w.restoreBy); err != nil {
		return daemon.Outcome{}, err
	}
	if level == schedule.Restore {
		return w.tryRestore(ctx, a, source)
	}
	a.resumes = func(r *verify.Resume) {
		if r.Packs() > 0 {
			w.log.Info("goes on with a verification that gave way", "source", source, "began", r.Began().UTC(), "packs", r.Packs())
		}
	}
	text, err := w.command(ctx, a, a.verifyCommand(), "--level", level, "--", source)
	var doc verifyDoc
	if len(text) == 0 || json.Unmarshal(text, &doc) != nil {
		if err == nil {
			err = errors.New("the verification said nothing about itself")
		}
		return daemon.Outcome{}, err
	}
	if isOutcome(err) {
		return daemon.Outcome{}, w.found(doc, source, level)
	}
	if err == nil && !doc.Recorded {
		err = errors.New("no receipt could be written: the identity of this host is no signer for it, or may not write to the repository")
	}
	return daemon.Outcome{Result: events.OK}, err
}

// found is the error that tells what a verification has found.
func (w *agentWork) found(doc verifyDoc, source, level string) error {
	text, denied := "", len(doc.Findings) > 0
	for i := range doc.Findings {
		f := &doc.Findings[i]
		denied = denied && (f.Warning || f.Problem == string(verify.Unreadable))
		if text == "" && !f.Warning {
			text = ": " + f.Object + ": " + f.Problem
		}
	}
	err := fmt.Errorf("%s found%s; `holdfast verify %s --level %s` names them all", count(uint64(len(doc.Findings)), "problem", "problems"), printable(text), source, level)
	if denied && w.restoreBy == "" {
		return hinted{err, "nothing was found damaged: the agent may not read it. Give it a profile that may with --restore-profile"}
	}
	return err
}

// proofDir is where restores are tried, below the state directory.
const proofDir = "proof"

// tryRestore restores the newest snapshot of a source beside, leaves a receipt of level restore, and removes it. What a
// killed agent left there is removed first.
func (w *agentWork) tryRestore(ctx context.Context, a *app, source string) (daemon.Outcome, error) {
	src := snapshot.Source{Host: w.host, Name: source}
	repo, err := a.open(ctx)
	if err != nil {
		return daemon.Outcome{}, err
	}
	m, err := a.find(ctx, repo, src.String(), "")
	if err != nil {
		return daemon.Outcome{}, err
	}
	if m.Kind == policy.KindSQLite || m.Kind == policy.KindPostgres {
		return w.verifyDatabase(ctx, a, source)
	}
	at := filepath.Join(a.statePath(), proofDir, source)
	if err := os.RemoveAll(at); err != nil {
		return daemon.Outcome{}, fmt.Errorf("remove the last restore that was tried: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
		return daemon.Outcome{}, fmt.Errorf("make a place for a restore: %w", err)
	}
	defer func() { _ = os.RemoveAll(at) }()
	receipt := record.Receipt{
		Sequence: m.Sequence, Manifest: m.Hash.String(), Level: schedule.Restore, Result: record.Pass, Started: a.now().UTC(), Problems: []string{},
	}
	a.proving = true
	text, err := w.command(ctx, a, a.restoreCommand(), "--to", at, "--", fmt.Sprintf("%s@%d", src, m.Sequence))
	receipt.Finished = a.now().UTC()
	var doc struct {
		Files    uint64        `json:"files"`
		Bytes    uint64        `json:"bytes"`
		Written  uint64        `json:"written_bytes"`
		Failed   uint64        `json:"failed"`
		Problems []problemLine `json:"problems"`
		Unlisted []string      `json:"unlisted"`
	}
	switch {
	case len(text) == 0 || json.Unmarshal(text, &doc) != nil:
		return daemon.Outcome{}, together(err, errors.New("the restore said nothing about itself")) // no verdict: nothing may have been read
	case err != nil && !isOutcome(err):
		return daemon.Outcome{}, err
	}
	receipt.Bytes = int64(min(doc.Written, 1<<62))
	// Receipts can be read without a key: they tell what failed, and not of which file.
	if doc.Failed > 0 {
		receipt.Problems = append(receipt.Problems, count(doc.Failed, "thing", "things")+" could not be restored")
	}
	if n := uint64(len(doc.Unlisted)); n > 0 {
		receipt.Problems = append(receipt.Problems, "what was in "+count(n, "directory", "directories")+" is not known")
	}
	if len(receipt.Problems) > 0 || err != nil {
		receipt.Result = record.Fail
	}
	if err := repo.PutDocument(ctx, layout.ReceiptKey(m.ID(), layout.ReceiptHost, receipt.Finished, schedule.Restore), receipt); err != nil {
		return daemon.Outcome{}, fmt.Errorf("write the receipt of the restore: %w", err)
	}
	out := daemon.Outcome{
		Result: events.OK, Counts: &events.Counts{Files: doc.Files, Bytes: doc.Bytes, ReadBytes: doc.Written, Errors: doc.Failed},
	}
	if receipt.Result == record.Fail {
		text := strings.Join(receipt.Problems, ", ")
		if len(doc.Problems) > 0 {
			text += fmt.Sprintf(", the first is %s: %s", printable(doc.Problems[0].Path), printable(doc.Problems[0].Error))
		}
		return out, fmt.Errorf("restore %s@%d to try it: %s", source, m.Sequence, text)
	}
	return out, nil
}
