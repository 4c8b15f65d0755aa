package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/repository"
)

func (a *app) keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Who can open and who can sign",
		Long: `Recipients can open the snapshots, signers can write them. Both are listed in the repository, signed. What an
identity file trusts by itself stands in it, as its own signer and its trust lines.`,
		Example: "  holdfast key list\n  holdfast key add age1… --label offline\n  holdfast key check --identity /media/usb/identity",
		GroupID: groupTend,
	}
	parent(cmd)
	cmd.AddCommand(a.keyShowCommand(), a.keyNewCommand(), a.keyListCommand(), a.keyAddCommand(), a.keyRemoveCommand(), a.keyCheckCommand())
	return cmd
}

// publicIdentity is what may be shown of an identity.
type publicIdentity struct {
	File       string          `json:"file"`
	Recipients []string        `json:"recipients"`
	Signer     string          `json:"signer,omitempty"`
	Trusted    []trustedSigner `json:"trusted"`
}

type trustedSigner struct {
	Key  string `json:"key"`
	Host string `json:"host"`
}

func publicOf(path string, id *keyring.Identity) publicIdentity {
	out := publicIdentity{File: path, Recipients: []string{}, Trusted: []trustedSigner{}}
	for _, r := range id.Recipients() {
		out.Recipients = append(out.Recipients, r.Recipient)
	}
	if signer, ok := id.Signer(); ok {
		out.Signer = signer.Public().String()
	}
	for _, t := range id.Trusted() {
		out.Trusted = append(out.Trusted, trustedSigner{t.Key.String(), t.Host})
	}
	return out
}

func (p publicIdentity) write(w io.Writer) {
	fmt.Fprintf(w, "identity   %s\n", p.File)
	for _, r := range p.Recipients {
		fmt.Fprintf(w, "opens      what is sealed for %s\n", r)
	}
	if p.Signer != "" {
		fmt.Fprintf(w, "signs as   %s\n", p.Signer)
	}
	for _, t := range p.Trusted {
		fmt.Fprintf(w, "trusts     %s for %s\n", t.Key, hostWords(t.Host))
	}
}

func hostWords(host string) string {
	if host == "*" {
		return "all hosts"
	}
	return "host " + host
}

func (a *app) keyShowCommand() *cobra.Command {
	var only string
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the public part of the identity",
		Long: `Show what the identity file opens, how it signs and whom it trusts. Secrets are never shown.

--only prints one part, for scripts: the recipients, the signer, or the line with which another identity file trusts
this one's signer.`,
		Example: "  holdfast key show\n  holdfast key show --only recipient --identity /media/usb/identity",
		Args:    arguments(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			id, err := a.identity()
			if err != nil {
				return err
			}
			public := publicOf(a.identityPath(), id)
			switch only {
			case "":
				return a.print(public, public.write)
			case "recipient":
				return a.print(public.Recipients, func(w io.Writer) { fmt.Fprintln(w, strings.Join(public.Recipients, "\n")) })
			case "signer":
				return a.print(public.Signer, func(w io.Writer) { fmt.Fprintln(w, public.Signer) })
			case "trust":
				line := "trust " + public.Signer + " *"
				return a.print(line, func(w io.Writer) { fmt.Fprintln(w, line) })
			}
			return usagef("key show: --only %q: want recipient, signer or trust", only)
		},
	}
	cmd.Flags().StringVar(&only, "only", "", "print one `PART`: recipient, signer or trust")
	return cmd
}

func (a *app) keyNewCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "new FILE",
		Short: "Make an identity file",
		Long: `Make an identity file, for another host or to be kept offline. Nothing is registered: ` + "`key add`" + ` gives its
recipient and its signer rights in a repository. To open a repository that another identity made, the new file needs a
line "trust KEY *" with that identity's signer, as ` + "`key show`" + ` prints it there.`,
		Example: "  holdfast key new /media/usb/identity",
		Args:    arguments(1, 1, "the FILE to write"),
		RunE: func(_ *cobra.Command, args []string) error {
			id, err := newIdentity(args[0])
			if err != nil {
				return err
			}
			public := publicOf(args[0], id)
			return a.print(public, public.write)
		},
	}
}

func (a *app) keyListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the repository's recipients and signers",
		Long:    "List who can open new snapshots (recipients) and whose signatures count, for which host (signers).",
		Example: "  holdfast key list",
		Args:    arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			repo, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			return a.printAccess(repo)
		},
	}
}

func (a *app) printAccess(repo *repository.Repository) error {
	access := repo.Access()
	return a.print(access, func(w io.Writer) {
		t := newTable("ROLE", "KEY", "FOR", "LABEL")
		for _, r := range access.Recipients {
			t.row("recipient", r.Recipient, "all hosts", r.Label)
		}
		for _, s := range access.Signers {
			t.row("signer", s.Key, grantWords(s), s.Label)
		}
		t.write(w)
	})
}

// grantWords say what a signer may sign.
func grantWords(s repository.AccessSigner) string {
	if s.Only == nil {
		return hostWords(s.Host)
	}
	return hostWords(s.Host) + ", only " + strings.Join(s.Only, ", ")
}

func (a *app) keyAddCommand() *cobra.Command {
	var signer bool
	var label, forHost string
	var only []string
	cmd := &cobra.Command{
		Use:   "add KEY",
		Short: "Add a recipient or a signer",
		Long: `Add a recipient (an age public key, or the ARN of a key of AWS KMS), who can then open all snapshots: the keys of old
ones are sealed for it as well. Copies learn of it by the next ` + "`holdfast copy`" + `. With --signer, add a public signing key whose signatures count for --for-host, or for all hosts if "*".

--only limits a signer to parts of sources, so that who checks can forge no snapshot, and who removes can forge neither
snapshot nor mark: ` + strings.Join(keyring.ScopedParts(), ", ") + `.
A signer for one host never signs receipts/cloud without it.`,
		Example: `  holdfast key add age1… --label offline
  holdfast key add --signer BASE64 --for-host web-2
  holdfast key add --signer BASE64 --for-host '*' --only receipts/cloud,damaged --label verify
  holdfast key add --signer BASE64 --for-host '*' --only condemned,expired,receipts/cloud --label lifecycle
  holdfast key add --signer BASE64 --for-host web-2 --only snapshots,keys,log,receipts/host,damaged --label capture`,
		Args: arguments(1, 1, "one KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if signer == (forHost == "") {
				return usagef("key add: --signer and --for-host belong together")
			}
			if only != nil && !signer {
				return usagef("key add: --only limits a signer")
			}
			if err := keyring.CheckOnly(only); err != nil {
				return usageError{fmt.Errorf("key add: --only: %w", err)}
			}
			repo, err := a.openForAccess(cmd.Context())
			if err != nil {
				return err
			}
			if signer {
				err = addSigner(cmd.Context(), repo, repository.AccessSigner{Key: args[0], Host: forHost, Label: label, Only: only})
			} else {
				err = a.addRecipient(cmd.Context(), repo, args[0], label)
			}
			if err != nil {
				return fmt.Errorf("add key: %w", err)
			}
			a.changedAccess(repo)
			return a.printAccess(repo)
		},
	}
	cmd.Flags().BoolVar(&signer, "signer", false, "KEY is a signer's public key, not a recipient")
	cmd.Flags().StringVar(&forHost, "for-host", "", "`NAME` of the host that the signer speaks for, or *")
	cmd.Flags().StringSliceVar(&only, "only", nil, "the `PARTS` of sources that the signer is limited to")
	cmd.Flags().StringVar(&label, "label", "", "a `TEXT` for people")
	return cmd
}

// openForAccess opens the repository to change who may do what, which a signer for all hosts may. An access document
// of anybody else would keep everybody from opening the repository.
func (a *app) openForAccess(ctx context.Context) (*repository.Repository, error) {
	repo, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	return repo, maySign(repo, "*")
}

func addSigner(ctx context.Context, repo *repository.Repository, add repository.AccessSigner) error {
	public, err := keyring.ParsePublicKey(add.Key)
	if err != nil {
		return usageError{err}
	}
	add.Key = public.String()
	return repo.ChangeAccess(ctx, func(next *repository.Access) error {
		for _, s := range next.Signers {
			if s.Key != add.Key || s.Host != add.Host {
				continue
			}
			if s.Only == nil || slices.Equal(s.Only, add.Only) {
				return fmt.Errorf("signer %s has that right already", add.Key)
			}
			if add.Only == nil {
				return hinted{fmt.Errorf("signer %s is limited to %s", add.Key, strings.Join(s.Only, ", ")), "remove it first, then add it without limits"}
			}
		}
		next.Signers = append(next.Signers, add)
		return nil
	})
}

func (a *app) keyRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remove KEY",
		Short: "Remove a recipient or a signer",
		Long: `Remove a recipient or a signer from the repository. A recipient who is removed can not open chains that begin from
now on; what was sealed for it before stays readable to it. Take a full backup of each source to begin new chains.
Signatures of a removed signer no longer count, also those of snapshots that it made.`,
		Example: "  holdfast key remove age1…",
		Args:    arguments(1, 1, "one KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			repo, err := a.openForAccess(cmd.Context())
			if err != nil {
				return err
			}
			recipient := false
			err = repo.ChangeAccess(cmd.Context(), func(next *repository.Access) error {
				before := len(next.Recipients) + len(next.Signers)
				next.Recipients = slices.DeleteFunc(next.Recipients, func(r repository.AccessRecipient) bool {
					recipient = recipient || r.Recipient == args[0]
					return r.Recipient == args[0]
				})
				next.Signers = slices.DeleteFunc(next.Signers, func(s repository.AccessSigner) bool { return s.Key == args[0] })
				if len(next.Recipients)+len(next.Signers) == before {
					return hinted{fmt.Errorf("the repository has no key %s", args[0]), "`holdfast key list` shows them"}
				}
				if !slices.ContainsFunc(next.Signers, func(s repository.AccessSigner) bool { return s.Host == "*" && s.Only == nil }) {
					return hinted{errors.New("this is the last signer for all hosts: nobody could change anything any more"), "add another one first, with --for-host '*'"}
				}
				return nil
			})
			if err != nil {
				return fmt.Errorf("remove key: %w", err)
			}
			a.changedAccess(repo)
			if recipient {
				a.warn("%s can still open every snapshot of the chains that exist; new chains, which begin with a full backup, are closed to it", args[0])
			}
			return a.printAccess(repo)
		},
	}
}
