package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/hostagent/state"
	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// addRecipient seals the keys of all chains for a new recipient, then those of new ones.
func (a *app) addRecipient(ctx context.Context, repo *repository.Repository, key, label string) error {
	rec, err := keyring.ParseRecipient(key)
	if err != nil {
		return err
	}
	rec.Label = label
	// New chains first: a chain that begins in between is sealed for the recipient either way.
	err = repo.ChangeAccess(ctx, func(next *repository.Access) error {
		for _, r := range next.Recipients {
			if r.Recipient == rec.Recipient {
				return errHasKey
			}
		}
		next.Recipients = append(next.Recipients, repository.AccessRecipient{Type: rec.Type, Recipient: rec.Recipient, Label: label})
		return nil
	})
	if err != nil && !errors.Is(err, errHasKey) {
		return err
	}
	// A recipient that is there already is completed: an earlier run may have been interrupted here.
	n, err := repo.ShareKeys(ctx, rec)
	if err != nil {
		return err
	}
	if n > 0 {
		a.note("%s can open the snapshots that are there: %s of chains and logs sealed for it; `holdfast copy` brings them to the copies", rec.Recipient, count(uint64(n), "key", "keys"))
	}
	return nil
}

// offline reports whether the identity in use is another file than this host's own. That the host's own opens what it
// writes says nothing about the day on which the host is lost.
func (a *app) offline() bool {
	used, err := os.Stat(a.identityPath())
	if err != nil {
		return false
	}
	host, err := os.Stat(a.hostIdentityPath())
	return err != nil || !os.SameFile(used, host)
}

var errHasKey = errors.New("the repository has that recipient already")

// checkedChain is one chain that key check tried to open.
type checkedChain struct {
	Source   string `json:"source"`
	Chain    string `json:"chain"`
	Snapshot uint64 `json:"snapshot"`      // the newest of the chain, which was opened
	Log      bool   `json:"log,omitempty"` // it is a stream of the source's log, of which all epochs were opened
	Opens    bool   `json:"opens"`
	Error    string `json:"error,omitempty"`

	id       snapshot.ID
	manifest snapshot.Hash
}

func (a *app) keyCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Prove that an identity opens the snapshots",
		Long: `Open the newest snapshot of every chain, and every log, with the identity, such as the copy that is kept offline. Exit
code 12 if it does not open all of them.

Keys of AWS KMS are not asked: the proof is that of the file alone.

Only an identity file other than this host's own counts as a proof for the objective key_check. It leaves a receipt in
the repository for each source all of whose chains open, signed by that identity if it may sign for the source, else by
this host's own.`,
		Example: "  holdfast key check --identity /media/usb/identity",
		Args:    arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			repo, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			repo.Identity().UseKMS(nil) // the day on which nothing but the file is left is what is proven
			chains, err := checkChains(cmd.Context(), repo)
			if err != nil {
				return err
			}
			bad := 0
			for _, c := range chains {
				if !c.Opens {
					bad++
				}
			}
			receipts := []string{}
			offline := a.offline()
			if offline {
				receipts = a.recordProof(cmd.Context(), repo, chains)
			}
			if bad == 0 && len(chains) > 0 && !offline {
				a.note("this is the identity that this host works with: it proves nothing about the one that is kept offline; name that with --identity")
			} else if bad == 0 && len(chains) > 0 {
				if err := state.Open(a.statePath(), repo.ID()).SetKeyProven(a.now()); err != nil {
					a.warn("%v", err)
				}
			}
			err = a.print(map[string]any{"identity": a.identityPath(), "chains": chains, "receipts": receipts}, func(w io.Writer) {
				for _, c := range chains {
					if !c.Opens {
						fmt.Fprintf(w, "%s chain %s: %s\n", c.Source, c.Chain[:8], c.Error)
					}
				}
				fmt.Fprintf(w, "%s opens %d of %s\n", a.identityPath(), len(chains)-bad, count(uint64(len(chains)), "chain", "chains"))
			})
			if err == nil && bad > 0 {
				a.note("what was sealed before a recipient was added is sealed for it by `holdfast key add KEY`, which can be repeated")
				return outcome(exitIdentity)
			}
			return err
		},
	}
}

// checkChains opens the newest snapshot of each chain, down to its root chunk.
func checkChains(ctx context.Context, repo *repository.Repository) ([]checkedChain, error) {
	sources, err := repo.Sources(ctx)
	if err != nil {
		return nil, err
	}
	out := []checkedChain{}
	for _, src := range sources {
		all, err := repo.Manifests(ctx, src)
		if err != nil {
			return nil, err
		}
		newest := map[string]*repository.Stored{}
		order := []string{}
		for _, m := range all {
			if newest[m.Chain] == nil {
				order = append(order, m.Chain)
			}
			newest[m.Chain] = m
		}
		for _, chain := range order {
			c, err := checkChain(ctx, repo, src, newest[chain])
			if err != nil {
				return nil, err
			}
			out = append(out, c)
		}
		if len(all) == 0 {
			continue
		}
		logs, err := checkLogs(ctx, repo, src, all[len(all)-1])
		if err != nil {
			return nil, err
		}
		out = append(out, logs...)
	}
	return out, nil
}

// checkLogs opens the key of each epoch of the source's log; a stream is told like a chain.
func checkLogs(ctx context.Context, repo *repository.Repository, src snapshot.Source, newest *repository.Stored) ([]checkedChain, error) {
	heads, err := repo.LogHeads(ctx, src)
	if err != nil {
		return nil, err
	}
	var out []checkedChain
	for _, h := range heads {
		if n := len(out); n == 0 || out[n-1].Chain != h.Stream {
			out = append(out, checkedChain{Source: src.String(), Chain: h.Stream, Snapshot: newest.Sequence, Log: true, Opens: true, id: newest.ID(), manifest: newest.Hash})
		}
		c := &out[len(out)-1]
		stream, err := snapshot.ParseChainID(h.Stream)
		if err != nil {
			return nil, err
		}
		_, err = repo.UnwrapKey(ctx, h.Keys[0], seal.Context{Repository: repo.ID(), Source: src, Chain: stream})
		switch {
		case err == nil || !c.Opens:
		case errors.Is(err, keyring.ErrNoIdentity), errors.Is(err, keyring.ErrKeyID):
			c.Opens, c.Error = false, err.Error()
		default:
			return nil, err
		}
	}
	return out, nil
}

func checkChain(ctx context.Context, repo *repository.Repository, src snapshot.Source, m *repository.Stored) (checkedChain, error) {
	c := checkedChain{Source: src.String(), Chain: m.Chain, Snapshot: m.Sequence, id: m.ID(), manifest: m.Hash}
	s, err := openContent(ctx, repo, m)
	if err == nil {
		_, err = s.Root(ctx)
	}
	switch {
	case err == nil:
		c.Opens = true
	case errors.Is(err, keyring.ErrNoIdentity), errors.Is(err, keyring.ErrKeyID):
		c.Error = err.Error()
	default:
		return c, err
	}
	return c, nil
}
