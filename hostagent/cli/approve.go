package cli

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/approval"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const approveLong = `Restores that come over the queue run only if two approvers of the host's policy have signed the same request: one
writes and signs it, another looks at it and signs. The file then goes to the control plane. Neither a repository nor AWS
is needed to sign.`

func (a *app) approveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "approve",
		Short: "Ask for and approve restores over the queue",
		Long:  approveLong,
		Example: `  holdfast approve request web-1/app@42 --to /srv/restore/app --reason "ticket 7" --out restore.json
  holdfast approve sign restore.json --as operator --key ~/.ssh/id_ed25519
  holdfast approve show restore.json`,
		GroupID: groupUse,
	}
	parent(cmd)
	cmd.AddCommand(a.approveRequestCommand(), a.approveSignCommand(), a.approveShowCommand(), a.approveKeyCommand())
	return cmd
}

// requestFlags are the flags of approve request.
type requestFlags struct {
	to, on, reason, out, at string
	inPlace                 bool
	expires                 time.Duration
}

func (a *app) approveRequestCommand() *cobra.Command {
	var f requestFlags
	cmd := &cobra.Command{
		Use:   "request SOURCE[@N] [PATH...] {--to DIR | --in-place} --out FILE",
		Short: "Write a request to restore",
		Long: `Write a request to restore a snapshot, or PATHs of it, on a host. Nobody has signed it yet. Where the number of the
snapshot is not given, the repository says which is the newest, or the newest at --at.

The directory of --to must lie below one that the policy of the host names for restores.`,
		Example: `  holdfast approve request web-1/app@42 --to /srv/restore/app --out restore.json
  holdfast approve request web-1/app /srv/app/data --on web-2 --to /srv/restore/app --expires 4h --out restore.json`,
		Args: arguments(1, -1, "SOURCE[@N] and the PATHs to restore"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.approveRequest(cmd.Context(), f, args) },
	}
	p := cmd.Flags()
	p.SortFlags = false
	p.StringVar(&f.to, "to", "", "restore to this `DIR` of the host")
	p.BoolVar(&f.inPlace, "in-place", false, "restore over the original")
	p.StringVar(&f.on, "on", "", "`NAME` of the host on which to restore (default: that of the source)")
	p.StringVar(&f.at, "at", "", atHelp)
	p.StringVar(&f.reason, "reason", "", "a `TEXT` for who approves")
	p.Var(span(&f.expires, 24*time.Hour), "expires", "the `TIME` for which the request is valid, at most 7d")
	p.StringVar(&f.out, "out", "", "`FILE` to write")
	return cmd
}

func (a *app) approveRequest(ctx context.Context, f requestFlags, args []string) error {
	switch {
	case f.out == "":
		return usagef("approve request: --out names the file to write")
	case (f.to == "") == !f.inPlace:
		return usagef("approve request: want --to or --in-place")
	}
	id, at, err := a.requested(ctx, args[0], f.at)
	if err != nil {
		return err
	}
	now := a.now().UTC().Truncate(time.Second)
	r := &approval.Request{
		Version: approval.Version, ID: approval.NewID(), Host: f.on, Source: id.Source.String(), Snapshot: id.Sequence, At: at,
		Target: f.to, InPlace: f.inPlace, Reason: f.reason, Created: now, Expires: now.Add(f.expires),
	}
	if r.Host == "" {
		r.Host = id.Host
	}
	for _, p := range args[1:] {
		r.Paths = append(r.Paths, filepath.Clean(p))
	}
	b, err := approval.Encode(r)
	if err != nil {
		return usageError{err}
	}
	if err := writeNew(f.out, &events.RestoreOrder{Request: b, Signatures: []events.Signature{}}); err != nil {
		return err
	}
	return a.printOrder(f.out, r, nil, nil)
}

// requested is the snapshot that a request names, and of a database the time up to which its log is wanted; only where it
// is not named in full is the repository asked.
func (a *app) requested(ctx context.Context, arg, at string) (snapshot.ID, time.Time, error) {
	var log time.Time
	sel, err := selector(arg)
	if err != nil {
		return snapshot.ID{}, log, err
	}
	if sel.Host != "" && sel.Sequence != 0 && at == "" {
		return snapshot.ID{Source: snapshot.Source{Host: sel.Host, Name: sel.Name}, Sequence: sel.Sequence}, log, nil
	}
	repo, err := a.open(ctx)
	if err != nil {
		return snapshot.ID{}, log, err
	}
	m, err := a.find(ctx, repo, arg, "")
	switch {
	case err != nil:
		return snapshot.ID{}, log, err
	case sel.Sequence == 0 && (m.Kind == policy.KindSQLite || m.Kind == policy.KindPostgres && !isDump(m.Manifest)):
		return a.requestedMoment(ctx, repo, m.ID().Source, at)
	case at != "" && isDump(m.Manifest):
		m, err = a.dumpAt(ctx, repo, m.ID().Source, arg, at)
	case at != "":
		m, err = a.find(ctx, repo, arg, at)
	}
	if err != nil {
		return snapshot.ID{}, log, err
	}
	return m.ID(), log, nil
}

// requestedMoment is the state of a database that a request names: a snapshot, and a time where its log is needed as well.
func (a *app) requestedMoment(ctx context.Context, repo *repository.Repository, src snapshot.Source, at string) (id snapshot.ID, log time.Time, err error) {
	var want recovery.Selector
	if at != "" && at != latest {
		if want.At, err = parseTime(at, a.now()); err != nil {
			return id, log, err
		}
	}
	all, err := a.readMoments(ctx, repo, src)
	if err != nil {
		return id, log, err
	}
	m, err := all.choose(ctx, want)
	if err != nil {
		return id, log, err
	}
	if m.chosen.Log != nil {
		log = m.chosen.Reached.UTC()
	}
	return m.base.ID(), log, nil
}

func (a *app) approveSignCommand() *cobra.Command {
	var as, key, signature, arn string
	cmd := &cobra.Command{
		Use:   "sign FILE --as NAME {--key FILE | --kms ARN | --signature FILE}",
		Short: "Sign a request to restore",
		Long: `Sign a request with an Ed25519 key of SSH or a key in AWS KMS, as the approver NAME of the policy, and add the signature
to the file. Look at it first: ` + "`holdfast approve show FILE`" + `.

A key in KMS is asymmetric, for SIGN_VERIFY, of spec ECC_NIST_P256 or ECC_NIST_EDWARDS25519. The policy has its public key:
` + "`holdfast approve key --kms ARN`" + ` prints it. Give each approver a key that nobody else may sign with.

A key that this program can not read, in a security token or an agent, signs by ssh-keygen:

  holdfast approve show restore.json --request > request
  ssh-keygen -Y sign -n holdfast-restore -f KEY request
  holdfast approve sign restore.json --as NAME --signature request.sig`,
		Example: `  holdfast approve sign restore.json --as operator --key ~/.ssh/id_ed25519
  holdfast approve sign restore.json --as security --kms arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab`,
		Args: arguments(1, 1, "the FILE to sign"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case as == "":
				return usagef("approve sign: --as says which approver of the policy you are")
			case given(key, signature, arn) != 1:
				return usagef("approve sign: want one of --key, --kms and --signature")
			}
			order, r, err := readOrder(args[0])
			if err != nil {
				return err
			}
			var s events.Signature
			switch {
			case key != "":
				s, err = a.signWith(order.Request, as, key)
			case arn != "":
				s, err = signWithKMS(cmd.Context(), order.Request, as, arn)
			default:
				s, err = signatureFile(as, signature)
			}
			if err != nil {
				return err
			}
			return a.addSignature(args[0], order, r, s)
		},
	}
	cmd.Flags().StringVar(&as, "as", "", "`NAME` of the approver in the policy")
	cmd.Flags().StringVar(&key, "key", "", "private key `FILE` of SSH")
	cmd.Flags().StringVar(&arn, "kms", "", "`ARN` of a key in AWS KMS")
	cmd.Flags().StringVar(&signature, "signature", "", "`FILE` that ssh-keygen -Y sign has written")
	return cmd
}

// given counts what is not empty.
func given(list ...string) (n int) {
	for _, s := range list {
		if s != "" {
			n++
		}
	}
	return n
}

func (a *app) addSignature(path string, order *events.RestoreOrder, r *approval.Request, s events.Signature) error {
	order.Signatures = slices.DeleteFunc(order.Signatures, func(have events.Signature) bool { return have.Signer == s.Signer })
	order.Signatures = append(order.Signatures, s)
	p, err := a.loadPolicy()
	if err != nil {
		return err
	}
	var names []string
	if p != nil {
		// A signature that will not count is found here, not on the host.
		if names, err = approval.SignedBy(p, order); err != nil {
			return hinted{fmt.Errorf("sign %s: %w", path, err), "the policy's approvers have the name and the public key of each"}
		}
	} else {
		a.warn("no policy here: whether the host knows %s is not checked", s.Signer)
	}
	if err := replaceFile(path, order); err != nil {
		return err
	}
	return a.printOrder(path, r, names, nil)
}

func signatureFile(as, path string) (events.Signature, error) {
	b, err := readLimited(path, 64<<10)
	if err != nil {
		return events.Signature{}, fmt.Errorf("read signature: %w", err)
	}
	return approval.FromSSH(b, as)
}

func (a *app) signWith(request []byte, as, path string) (events.Signature, error) {
	key, err := a.sshKey(path)
	if err != nil {
		return events.Signature{}, err
	}
	return approval.Sign(request, as, key)
}

// sshKey reads a private key and asks for its passphrase where it has one.
func (a *app) sshKey(path string) (ed25519.PrivateKey, error) {
	b, err := readLimited(path, 64<<10)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	key, err := parseSSHKey(b, func() ([]byte, error) { return a.passphrase(path) })
	if errors.Is(err, errNoTerminal) {
		return nil, hinted{fmt.Errorf("read key %s: %w", path, err), "sign at a terminal; `holdfast approve sign --help` tells how an agent of SSH or another program can sign"}
	}
	if err != nil {
		return nil, hinted{fmt.Errorf("read key %s: %w", path, err), "ssh-keygen -t ed25519 makes one; `holdfast approve sign --help` tells how another program can sign"}
	}
	return key, nil
}

func (a *app) approveShowCommand() *cobra.Command {
	var request bool
	cmd := &cobra.Command{
		Use:   "show FILE",
		Short: "Show a request to restore, who signed it, and whether it would run",
		Long: `Show what a request asks for, who signed it, and whether it would run now by the policy at hand. The policy that counts
is the one on the host. --request prints the bytes that are signed.`,
		Example: "  holdfast approve show restore.json",
		Args:    arguments(1, 1, "the FILE to show"),
		RunE: func(_ *cobra.Command, args []string) error {
			order, r, err := readOrder(args[0])
			if err != nil {
				return err
			}
			if request {
				_, err := a.stdio.Out.Write(order.Request)
				return err
			}
			p, err := a.loadPolicy()
			if err != nil {
				return err
			}
			if p == nil {
				return a.printOrder(args[0], r, nil, nil)
			}
			names, _ := approval.SignedBy(p, order) // what is wrong is in why
			_, why := approval.Check(p, r.Host, r.ID, order, a.now())
			return a.printOrder(args[0], r, names, &verdict{why})
		},
	}
	cmd.Flags().BoolVar(&request, "request", false, "print the bytes that are signed")
	return cmd
}

// verdict is what a policy says to a request.
type verdict struct{ why error }

func (a *app) printOrder(path string, r *approval.Request, names []string, v *verdict) error {
	doc := struct {
		File    string            `json:"file"`
		Request *approval.Request `json:"request"`
		Signed  []string          `json:"signed"` // approvers of the policy at hand
		Runs    *bool             `json:"runs,omitempty"`
		Why     string            `json:"why,omitempty"`
		Code    string            `json:"code,omitempty"`
	}{File: path, Request: r, Signed: append([]string{}, names...)}
	if v != nil {
		runs := v.why == nil
		doc.Runs = &runs
		var refused *events.RefusedError
		if errors.As(v.why, &refused) {
			doc.Why, doc.Code = refused.Reason, string(refused.Code)
		}
	}
	return a.print(doc, func(w io.Writer) {
		writeRequest(w, r)
		if len(names) > 0 {
			fmt.Fprintf(w, "signed by   %s\n", strings.Join(names, ", "))
		}
		switch {
		case v == nil:
		case v.why == nil:
			fmt.Fprintln(w, "by the policy here it would run")
		default:
			fmt.Fprintf(w, "by the policy here it would NOT run: %s: %s\n", doc.Code, printable(doc.Why))
		}
	})
}

func writeRequest(w io.Writer, r *approval.Request) {
	fmt.Fprintf(w, "request     %s\n", r.ID)
	fmt.Fprintf(w, "restore     %s@%d\n", r.Source, r.Snapshot)
	if !r.At.IsZero() {
		fmt.Fprintf(w, "as it was   at %s, by the log after the snapshot\n", exact(r.At))
	}
	for _, p := range r.Paths {
		fmt.Fprintf(w, "only        %s\n", printable(p))
	}
	if r.InPlace {
		fmt.Fprintf(w, "to          its original place on host %s, OVER WHAT IS THERE\n", r.Host)
	} else {
		fmt.Fprintf(w, "to          %s on host %s\n", printable(r.Target), r.Host)
	}
	if r.Reason != "" {
		fmt.Fprintf(w, "because     %s\n", printable(r.Reason))
	}
	fmt.Fprintf(w, "valid       %s to %s\n", r.Created.UTC().Format(time.RFC3339), r.Expires.UTC().Format(time.RFC3339))
}

// readOrder reads a request and what was signed.
func readOrder(path string) (*events.RestoreOrder, *approval.Request, error) {
	b, err := readLimited(path, events.MaxMessage)
	if err != nil {
		return nil, nil, fmt.Errorf("read request: %w", err)
	}
	order := &events.RestoreOrder{}
	if err := json.Unmarshal(b, order); err != nil {
		return nil, nil, fmt.Errorf("read request %s: %w", path, err)
	}
	r, err := approval.Decode(order.Request)
	if err != nil {
		return nil, nil, fmt.Errorf("read request %s: %w", path, err)
	}
	return order, r, nil
}

func orderText(order *events.RestoreOrder) ([]byte, error) {
	b, err := json.MarshalIndent(order, "", "  ")
	return append(b, '\n'), err
}

// writeNew writes a request to a file that must not exist.
func writeNew(path string, order *events.RestoreOrder) error {
	b, err := orderText(order)
	if err != nil {
		return fmt.Errorf("write request: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return hinted{fmt.Errorf("write request: %w", err), "no request is written over another: name a new file, or remove that one"}
	}
	if err != nil {
		return fmt.Errorf("write request: %w", err)
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write request: %w", err), os.Remove(path))
	}
	return nil
}

// replaceFile writes a request over an old one in one step.
func replaceFile(path string, order *events.RestoreOrder) error {
	fresh := path + ".new"
	_ = os.Remove(fresh) // of a run that was cut off
	if err := writeNew(fresh, order); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return errors.Join(fmt.Errorf("write request: %w", err), os.Remove(fresh))
	}
	return nil
}
