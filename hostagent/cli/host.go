package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/hostagent/queue"
	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func (a *app) hostCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "host",
		Short: "The hosts of the control plane",
		Long: `A host of the control plane has a queue for its jobs and a signer that speaks for it alone. It is data, not a part of
the deployment: adding one deploys nothing. docs/agent.md tells the rest.`,
		Example: "  holdfast host add web-1 --signer BASE64\n  holdfast host list",
		GroupID: groupTend,
	}
	parent(cmd)
	cmd.AddCommand(a.hostAddCommand(), a.hostRemoveCommand(), a.hostListCommand())
	return cmd
}

// hostFlags are the flags of the commands about hosts.
type hostFlags struct{ region, profile string }

func (f *hostFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.region, "region", "", "AWS region of the control plane, a `NAME` (default: AWS_REGION or the profile's)")
	cmd.Flags().StringVar(&f.profile, "profile", "", "AWS profile, a `NAME`")
}

// addedHost is what host add did.
type addedHost struct {
	queue.Host
	Made   bool     `json:"made"`             // the queue is new
	Signer string   `json:"signer,omitempty"` // that speaks for the host
	Added  bool     `json:"signer_added"`     // it did not before
	Todo   []string `json:"todo"`             // what a person must still do
}

func (a *app) hostAddCommand() *cobra.Command {
	var f hostFlags
	var signer string
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a host, or bring it up to date",
		Long: `Make the queue of a host: encrypted, with the dead-letter queue of the control plane behind it. With --signer, the
host's public key is registered in the repository as one that speaks for this host and no other, and only for what an
agent writes (--only of ` + "`key add`" + `): not for marks and removals. The identity must be one that speaks for all hosts.
What is there already stays. What must still be done by hand is printed.

A name with a dot is refused: queues can have none in theirs.`,
		Example: `  holdfast host add web-1 --signer "$(ssh web-1 holdfast key show --only signer)"`,
		Args:    arguments(1, 1, "the NAME of the host in the policy"),
		RunE: func(cmd *cobra.Command, args []string) error {
			out, err := a.addHost(cmd.Context(), f, args[0], signer)
			if err != nil {
				return err
			}
			return a.print(out, out.write)
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&signer, "signer", "", "public `KEY` of the host's signer, as `holdfast key show --only signer` prints it there")
	return cmd
}

func (a *app) addHost(ctx context.Context, f hostFlags, name, signer string) (out addedHost, err error) {
	if err := (snapshot.Source{Host: name, Name: "x"}).Check(); err != nil {
		return out, usageError{err}
	}
	if strings.Contains(name, ".") {
		return out, hinted{
			usagef("add host %s: its queue would have its name, and names of queues in SQS can have no dot", name),
			fmt.Sprintf("give the host a name without one in the policy, such as %s, and start its agent with HOLDFAST_HOST=%[1]s", strings.ReplaceAll(name, ".", "-")),
		}
	}
	// 1. What can be refused is looked at before anything is made.
	var repo *repository.Repository
	if signer != "" {
		public, err := keyring.ParsePublicKey(signer)
		if err != nil {
			return out, usageError{err}
		}
		out.Signer = public.String()
		if repo, err = a.openForAccess(ctx); err != nil {
			return out, err
		}
	}
	hosts, err := queue.OpenHosts(ctx, f.region, f.profile)
	if err != nil {
		return out, err
	}
	// 2. The queue. Whatever stops here is done again by the same command.
	if out.Host, out.Made, err = hosts.Add(ctx, name); err != nil {
		return out, hostError(err)
	}
	// 3. The signer.
	if repo != nil && !speaks(repo, out.Signer, name) {
		if err := addSigner(ctx, repo, repository.AccessSigner{Key: out.Signer, Host: name, Label: "host " + name, Only: keyring.HostParts()}); err != nil {
			return out, fmt.Errorf("add signer of host %s: %w", name, err)
		}
		a.changedAccess(repo)
		out.Added = true
	}
	out.Todo, err = a.hostTodo(name, signer, out.Queue)
	return out, err
}

// speaks reports whether a signer speaks for the host already.
func speaks(repo *repository.Repository, key, host string) bool {
	return slices.ContainsFunc(repo.Access().Signers, func(s repository.AccessSigner) bool {
		return s.Key == key && (s.Host == host || s.Host == keyring.AllHosts) && (s.Only == nil || slices.Equal(s.Only, keyring.HostParts()))
	})
}

// hostTodo is what a person must still do for a host.
func (a *app) hostTodo(name, signer, queueName string) ([]string, error) {
	p, err := a.loadPolicy()
	if err != nil {
		return nil, err
	}
	todo := []string{}
	if p != nil && p.Hosts[name] == nil {
		todo = append(todo, fmt.Sprintf("put host %s with its sources into the policy, on the host and in the control plane", name))
	}
	if signer == "" {
		todo = append(todo, fmt.Sprintf("register its signer: holdfast host add %s --signer \"$(ssh %s holdfast key show --only signer)\"", name, name))
	}
	return append(
		todo,
		fmt.Sprintf("let it be this host in AWS: an instance role with the path /holdfast/agent/capture/, the policy holdfast-capture and the tag %s=%s; or, elsewhere, a certificate with the common name %s for IAM Roles Anywhere", queue.HostTag, name, name),
		fmt.Sprintf("start its agent with HOLDFAST_QUEUE=%s HOLDFAST_HOST=%s (docs/agent.md)", queueName, name),
	), nil
}

func (h addedHost) write(w io.Writer) {
	state := "was there"
	if h.Made {
		state = "made"
	}
	fmt.Fprintf(w, "queue %s: %s\n", h.Queue, state)
	if h.Signer != "" {
		state = "spoke for the host before"
		if h.Added {
			state = "speaks for the host from now on"
		}
		fmt.Fprintf(w, "signer %s: %s\n", h.Signer, state)
	}
	fmt.Fprintln(w, "still to do:")
	for _, t := range h.Todo {
		fmt.Fprintf(w, "  - %s\n", t)
	}
}

func (a *app) hostRemoveCommand() *cobra.Command {
	var f hostFlags
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a host's queue",
		Long: `Delete the queue of a host with the jobs that wait in it. Its snapshots stay, and so does its signer: without it they
would not count any more. ` + "`holdfast key remove`" + ` is for a signer that was stolen.`,
		Example: "  holdfast host remove web-1",
		Args:    arguments(1, 1, "the NAME of the host"),
		RunE: func(cmd *cobra.Command, args []string) error {
			hosts, err := queue.OpenHosts(cmd.Context(), f.region, f.profile)
			if err != nil {
				return err
			}
			removed, err := hosts.Remove(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			doc := struct {
				Name    string `json:"name"`
				Removed bool   `json:"removed"`
			}{args[0], removed}
			return a.print(doc, func(w io.Writer) {
				if !removed {
					fmt.Fprintf(w, "host %s has no queue\n", args[0])
					return
				}
				fmt.Fprintf(w, "the queue of host %s is deleted; its snapshots and its signer stay\n", args[0])
				fmt.Fprintf(w, "still to do:\n  - stop its agent, take its role away, and remove it from the policy\n")
			})
		},
	}
	f.register(cmd)
	return cmd
}

func (a *app) hostListCommand() *cobra.Command {
	var f hostFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the hosts that have a queue",
		Long: `List the hosts that have a queue, with how many jobs wait in it, about. Where a repository is named, also the hosts whose
signer was registered by an older version and lacks rights that agents need now, with the command that gives them.`,
		Example: "  holdfast host list",
		Args:    arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			hosts, err := queue.OpenHosts(cmd.Context(), f.region, f.profile)
			if err != nil {
				return err
			}
			list, err := hosts.List(cmd.Context())
			if err != nil {
				return err
			}
			doc := struct {
				Hosts []listedHost `json:"hosts"`
			}{a.withSigners(cmd.Context(), list)}
			return a.print(doc, func(w io.Writer) {
				t := newTable("HOST", "QUEUE", ">WAITING", "TO DO")
				for _, h := range doc.Hosts {
					t.row(h.Name, h.Queue, fmt.Sprint(h.Waiting), h.toDo())
				}
				t.write(w)
			})
		},
	}
	f.register(cmd)
	return cmd
}

func hostError(err error) error {
	if errors.Is(err, queue.ErrNoDeadLetters) {
		return hinted{err, "deploy the control plane first: docs/deploy.md; --region and --profile say where it is"}
	}
	return err
}
