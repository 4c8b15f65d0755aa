package cli

import (
	"context"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// proven is the newest snapshot of a source all of whose chains an identity opened.
type proven struct {
	id       snapshot.ID
	manifest snapshot.Hash
}

// provenOf returns one for each source of which every chain opened.
func provenOf(chains []checkedChain) []proven {
	var out []proven
	for _, c := range chains {
		last := len(out) - 1
		switch {
		case last < 0 || out[last].id.Source != c.id.Source:
			out = append(out, proven{c.id, c.manifest})
		case c.id.Sequence > out[last].id.Sequence:
			out[last] = proven{c.id, c.manifest}
		}
	}
	bad := map[snapshot.Source]bool{}
	for _, c := range chains {
		bad[c.id.Source] = bad[c.id.Source] || !c.Opens
	}
	n := 0
	for _, p := range out {
		if !bad[p.id.Source] {
			out[n] = p
			n++
		}
	}
	return out[:n]
}

// recordProof leaves a receipt for each source whose chains the identity in use opens, so that whoever judges the objective
// key_check knows of it. An identity that is kept offline is often no signer: then this host's own signs for its sources.
// What can't be written is told, and is no failure of the proof.
func (a *app) recordProof(ctx context.Context, repo *repository.Repository, chains []checkedChain) []string {
	written := []string{}
	if a.flags.asOf != "" {
		return written
	}
	signers := a.signersBeside(ctx, repo)
	started := a.now().UTC()
	for _, p := range provenOf(chains) {
		receipt := record.Receipt{
			Sequence: p.id.Sequence, Manifest: p.manifest.String(), Level: record.LevelKey, Result: record.Pass,
			Started: started, Finished: a.now().UTC(), Problems: []string{},
		}
		for _, r := range repo.Identity().Recipients() {
			receipt.Recipients = append(receipt.Recipients, r.Recipient)
		}
		key := layout.ReceiptKey(p.id, layout.ReceiptHost, receipt.Finished, record.LevelKey)
		signs := func() *repository.Repository {
			for _, r := range signers {
				if r.MaySign(key) {
					return r
				}
			}
			return nil
		}()
		if signs == nil {
			a.note("no receipt of the proof is written for %s: neither this identity nor this host's own may sign one for it", p.id.Source)
			continue
		}
		if err := signs.PutDocument(ctx, key, receipt); err != nil {
			a.warn("the receipt of the proof for %s could not be written: %v", p.id.Source, err)
			continue
		}
		written = append(written, p.id.Source.String())
	}
	return written
}

// signersBeside are the repository as opened, and as this host's own identity opens it.
func (a *app) signersBeside(ctx context.Context, repo *repository.Repository) []*repository.Repository {
	out := []*repository.Repository{repo}
	own, err := keyring.LoadIdentity(a.hostIdentityPath())
	if err != nil {
		return out // not every machine that checks a key is a host
	}
	if second, err := repository.Open(ctx, repo.Store(), own); err == nil {
		out = append(out, second)
	}
	return out
}
