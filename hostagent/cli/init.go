package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
)

const initLong = `Make a repository, and an identity file if there is none.

The identity opens what is backed up and signs it. It stays on this host; the repository has only its public part. Keep
a copy of the file elsewhere, offline: without it nobody can read the snapshots. Further recipients, such as an offline
key, can open the snapshots as well.

An interrupted init is finished by the next one. A repository that is there already is left alone (exit code 1); so are a
copy that was begun (10), and a repository that has lost its own document (4).`

func (a *app) initCommand() *cobra.Command {
	var recipients []string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a repository and an identity",
		Long:  initLong,
		Example: `  holdfast init -r /mnt/backup
  holdfast init -r "s3://bucket/prefix?region=eu-central-1" --recipient age1…`,
		GroupID: groupUse,
		Args:    arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			address, err := a.address()
			if err != nil {
				return err
			}
			extra, err := a.extraRecipients(recipients)
			if err != nil {
				return err
			}
			store, err := a.store(cmd.Context(), address)
			if err != nil {
				return err
			}
			if _, local := localPath(address); !local {
				if err := probe(cmd.Context(), store); err != nil {
					return fmt.Errorf("init %s: %w", address, err)
				}
			}
			identity, created, err := a.ensureIdentity(cmd.Context(), store)
			if err != nil {
				return err
			}
			all := identity.Recipients()
			for _, r := range extra {
				if !slices.ContainsFunc(all, func(o keyring.Recipient) bool { return o.ID() == r.ID() }) {
					all = append(all, r)
				}
			}
			repo, err := repository.Init(cmd.Context(), store, identity, all, a.now())
			if err != nil {
				return fmt.Errorf("init %s: %w", address, err)
			}
			return a.printInit(repo, address, created)
		},
	}
	cmd.Flags().StringArrayVar(&recipients, "recipient", nil, "who else can open the snapshots: an age public `KEY` (repeatable)")
	return cmd
}

// probe refuses a new repository in a store that overwrites: everything rests on that it does not. A repository that is
// there is left to what follows, which says so.
func probe(ctx context.Context, store objstore.Store) error {
	if _, err := store.Stat(ctx, layout.RepositoryKey); !errors.Is(err, objstore.ErrNotExist) {
		return err
	}
	err := objstore.Probe(ctx, store)
	if errors.Is(err, objstore.ErrOverwrites) {
		return hinted{err, hintOverwrites}
	}
	return err
}

const hintOverwrites = "use a store that honours If-None-Match on writes, or a newer version of its server"

// extraRecipients are those of the flags and of the policy.
func (a *app) extraRecipients(flags []string) ([]keyring.Recipient, error) {
	p, err := a.loadPolicy()
	if err != nil {
		return nil, err
	}
	texts := slices.Clone(flags)
	if p != nil {
		texts = append(texts, p.Repository.Recipients...)
	}
	var out []keyring.Recipient
	for _, text := range texts {
		r, err := keyring.ParseRecipient(text)
		if err != nil {
			return nil, fmt.Errorf("recipient %s: %w", text, err)
		}
		out = append(out, r)
	}
	return out, nil
}

// ensureIdentity loads the identity, or makes one where there is none and no repository either: a new identity would not
// open one that is there.
func (a *app) ensureIdentity(ctx context.Context, store objstore.Store) (id *keyring.Identity, created bool, err error) {
	id, err = a.identity()
	if !errors.Is(err, fs.ErrNotExist) {
		return id, false, err
	}
	_, serr := store.Stat(ctx, layout.RepositoryKey)
	switch {
	case serr == nil:
		return nil, false, hinted{
			fmt.Errorf("init: %w, and this host has no identity", repository.ErrRepositoryExists),
			"bring the identity that made it, or make one for this host with `holdfast key new`",
		}
	case !errors.Is(serr, objstore.ErrNotExist):
		return nil, false, fmt.Errorf("init: %w", serr)
	}
	if err := repository.Vacant(ctx, store); err != nil {
		return nil, false, fmt.Errorf("init: %w", err)
	}
	id, err = newIdentity(a.identityPath())
	return id, true, err
}

// newIdentity makes an identity file. It is written before the repository that is sealed for it: a crash between the
// two leaves an identity that the next init uses.
func newIdentity(path string) (*keyring.Identity, error) {
	id, err := keyring.NewIdentity()
	if err != nil {
		return nil, fmt.Errorf("make identity: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make identity: %w", err)
	}
	if err := id.WriteFile(path); err != nil {
		return nil, fmt.Errorf("make identity: %w", err)
	}
	return id, nil
}

func (a *app) printInit(repo *repository.Repository, address string, created bool) error {
	signer, _ := repo.Identity().Signer()
	result := struct {
		Repository string   `json:"repository"`
		ID         string   `json:"id"`
		Identity   string   `json:"identity"`
		Created    bool     `json:"identity_created"`
		Recipients []string `json:"recipients"`
		Signer     string   `json:"signer"`
	}{address, repo.ID().String(), a.identityPath(), created, nil, signer.Public().String()}
	for _, r := range repo.Access().Recipients {
		result.Recipients = append(result.Recipients, r.Recipient)
	}
	return a.print(result, func(w io.Writer) {
		state := "as it was"
		if created {
			state = "new"
		}
		fmt.Fprintf(w, "repository   %s\n             id %s\n", result.Repository, result.ID)
		fmt.Fprintf(w, "identity     %s (%s)\n", result.Identity, state)
		for _, r := range result.Recipients {
			fmt.Fprintf(w, "opened by    %s\n", r)
		}
		fmt.Fprintf(w, "signed by    %s\n\n", result.Signer)
		fmt.Fprintf(w, "Keep a copy of the identity file somewhere else, offline. Without it nobody can read the snapshots.\nWhoever has it can read them all.\n")
	})
}
