package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/hostagent/state"
	"github.com/btcdecoded/holdfast/shared/objstore/open"
	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/prune"
	"github.com/btcdecoded/holdfast/shared/retention"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const pruneLong = `Remove the snapshots that retention does not keep, by the rules of the policy or of the flags, and what nothing needs
any more. Each snapshot is shown with the reason why it stays or goes.

Nothing goes at once. A snapshot is announced for removal first; seven days later, if still nothing keeps it, it is
removed. A retention that was shortened waits seven days before that. A snapshot that is not verified never displaces
one that is. The newest snapshot always stays.

Announced snapshots that the rules keep again, because they were made longer or a newer one failed, stay: their
announcement is withdrawn.

A run that would announce more than one snapshot and more than 20 % of a source's changes nothing and ends with exit
code 6; look at --dry-run, then repeat it with --force. Other sources are pruned meanwhile. One single snapshot may
always go.`

// pruneFlags are the flags of prune.
type pruneFlags struct {
	dryRun, force bool
	rules         policy.Retention
	within        string
}

func (a *app) pruneCommand() *cobra.Command {
	var f pruneFlags
	cmd := &cobra.Command{
		Use:   "prune [SOURCE...]",
		Short: "Remove snapshots that retention does not keep",
		Long:  pruneLong,
		Example: `  holdfast prune --dry-run
  holdfast prune
  holdfast prune etc --keep-last 3 --keep-daily 14 --keep-weekly 8`,
		GroupID: groupTend,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.prune(cmd.Context(), f, args)
		},
	}
	p := cmd.Flags()
	p.SortFlags = false
	p.BoolVar(&f.dryRun, "dry-run", false, "change nothing, show what would go and why")
	p.BoolVar(&f.force, "force", false, "go on even if more than 20 % of a source's snapshots would go")
	p.IntVar(&f.rules.KeepLast, "keep-last", 0, "in place of the policy's rules: keep the last `N`")
	p.StringVar(&f.within, "keep-within", "", "keep what is younger than the newest by up to `AGE`, such as 30d")
	p.IntVar(&f.rules.Hourly, "keep-hourly", 0, "keep one of each of the last `N` hours that have one")
	p.IntVar(&f.rules.Daily, "keep-daily", 0, "the same for `N` days")
	p.IntVar(&f.rules.Weekly, "keep-weekly", 0, "the same for `N` weeks")
	p.IntVar(&f.rules.Monthly, "keep-monthly", 0, "the same for `N` months")
	p.IntVar(&f.rules.Yearly, "keep-yearly", 0, "the same for `N` years")
	p.StringArrayVar(&f.rules.KeepTags, "keep-tag", nil, "keep all with the `TAG` (repeatable)")
	return cmd
}

// pruneResult is what was decided and done for one source.
type pruneResult struct {
	Source    string               `json:"source"`
	DryRun    bool                 `json:"dry_run"`
	Decisions []retention.Decision `json:"decisions"`
	Warning   string               `json:"warning,omitempty"`
	Condemned []uint64             `json:"condemned"` // sequence numbers; announced now, or would be
	Withdrawn []uint64             `json:"withdrawn"` // announcements taken back
	Removed   []uint64             `json:"removed"`
	Waiting   []waitingLine        `json:"waiting"`
	Kept      []prune.Kept         `json:"kept"` // objects that nothing needs, but too young or locked
	Lists     int                  `json:"lists"`
	Packs     int                  `json:"packs"`
	Keys      int                  `json:"keys"`
	Logs      int                  `json:"logs,omitempty"`   // objects of logs that no moment needs any more
	Joined    int                  `json:"joined,omitempty"` // pieces of logs of which a segment has all
	Freed     int64                `json:"freed_bytes"`
	Stopped   bool                 `json:"stopped"` // too much would go: nothing was changed
}

// waitingLine is a condemned snapshot and when it may be removed.
type waitingLine struct {
	Sequence uint64    `json:"sequence"`
	From     time.Time `json:"from"`
}

func (r *pruneResult) fill(report *prune.Report) {
	numbers := func(actions []prune.Action) []uint64 {
		out := []uint64{}
		for _, x := range actions {
			out = append(out, x.Snapshot.Sequence)
		}
		return out
	}
	r.Condemned, r.Withdrawn, r.Removed = numbers(report.Condemned), numbers(report.Withdrawn), numbers(report.Removed)
	r.Waiting = []waitingLine{}
	for _, x := range report.Waiting {
		r.Waiting = append(r.Waiting, waitingLine{x.Snapshot.Sequence, x.From})
	}
	r.Kept = append([]prune.Kept{}, report.Kept...)
	r.Lists, r.Packs, r.Keys, r.Freed = report.Lists, report.Packs, report.Keys, report.Freed
	r.Logs, r.Joined = report.Logs, report.Joined
}

func (a *app) prune(ctx context.Context, f pruneFlags, args []string) error {
	if f.within != "" {
		d, err := policy.ParseDuration(f.within)
		if err != nil {
			return usageError{err}
		}
		f.rules.KeepWithin = d
	}
	if err := checkRules(f.rules); err != nil {
		return err
	}
	pol, err := a.loadPolicy()
	if err != nil {
		return err
	}
	if pol == nil && f.rules.Empty() {
		return hinted{usagef("prune: no rules"), "name them with --keep-last, --keep-daily and so on, or have a policy with retention"}
	}
	repo, err := a.open(ctx)
	if err != nil {
		return err
	}
	sources, err := a.sources(ctx, repo, args)
	if err != nil {
		return err
	}
	results := []pruneResult{}
	var failed error
	var stopped stoppedPrunes
	for _, src := range sources {
		rules, ok := rulesOf(pol, f.rules, src)
		if !ok {
			a.warn("%s is not in the policy: nothing of it is removed", src)
			continue
		}
		result, err := a.pruneSource(ctx, repo, src, rules, f)
		if result != nil {
			results = append(results, *result)
		}
		if errors.Is(err, retention.ErrTooMany) {
			// Nothing of it was changed; the others have nothing to do with it.
			stopped.add(src, err)
			continue
		}
		if err != nil {
			failed = err
			break
		}
	}
	err = a.print(results, func(w io.Writer) {
		for _, r := range results {
			r.write(w, a)
		}
	})
	if failed := together(stopped.err(), failed); failed != nil {
		return failed
	}
	return err
}

// stoppedPrunes are the sources of which too much would go.
type stoppedPrunes struct {
	sources []string
	errs    []error
}

func (s *stoppedPrunes) add(src snapshot.Source, err error) {
	s.sources = append(s.sources, src.String())
	s.errs = append(s.errs, err)
}

func (s *stoppedPrunes) err() error {
	if len(s.errs) == 0 {
		return nil
	}
	return hinted{together(s.errs...), "look at what is listed, then repeat it with --force for " + strings.Join(s.sources, " ")}
}

// checkRules refuses rules that mean nothing, which are mistakes.
func checkRules(r policy.Retention) error {
	for name, n := range map[string]int{
		"--keep-last": r.KeepLast, "--keep-hourly": r.Hourly, "--keep-daily": r.Daily, "--keep-weekly": r.Weekly,
		"--keep-monthly": r.Monthly, "--keep-yearly": r.Yearly,
	} {
		if n < 0 {
			return usagef("prune: %s %d: want 0 or more", name, n)
		}
	}
	return nil
}

// rulesOf are the flags' rules, or else the policy's for the source.
func rulesOf(p *policy.Policy, flags policy.Retention, src snapshot.Source) (policy.Retention, bool) {
	if !flags.Empty() {
		return flags, true
	}
	s, err := p.Lookup(src.Host, src.Name)
	if err != nil {
		return policy.Retention{}, false
	}
	return s.Retention, true
}

func (a *app) pruneSource(ctx context.Context, repo *repository.Repository, src snapshot.Source, rules policy.Retention, f pruneFlags) (*pruneResult, error) {
	if err := maySign(repo, src.Host, "condemned", "expired", "receipts/host"); err != nil && !f.dryRun {
		return nil, fmt.Errorf("prune %s: %w", src, err)
	}
	h, err := observe.Read(ctx, repo, src)
	if err != nil {
		return nil, err
	}
	if err := h.Broken(); err != nil {
		return nil, fmt.Errorf("prune: %w", err)
	}
	if err := a.checkRollback(ctx, repo, src); err != nil {
		return nil, err
	}
	decisions, shortened, err := a.plan(repo, src, h, rules, f)
	if err != nil {
		return nil, err
	}
	result := &pruneResult{Source: src.String(), DryRun: f.dryRun, Decisions: decisions}
	if shortened != nil {
		result.Warning = shortened.String()
		a.warn("%s: %s", src, shortened)
	}
	address, err := a.address()
	if err != nil {
		return nil, err
	}
	report, err := prune.Run(ctx, repo, src, prune.Options{
		Decisions: decisions, Seen: a.everSeen(repo, src), LogBase: a.logBase(repo, src, h, rules, f), DryRun: f.dryRun, Force: f.force, HostClock: mayJump(address), Now: a.now,
	})
	result.fill(report)
	if result.Stopped = errors.Is(err, retention.ErrTooMany); result.Stopped {
		for _, d := range decisions {
			if !d.Keep && !h.Condemned[d.Sequence] {
				result.Condemned = append(result.Condemned, d.Sequence)
			}
		}
	}
	return result, err
}

// everSeen is the highest number that this host has seen of a source in this place; 0: not known. A copy may lag.
func (a *app) everSeen(repo *repository.Repository, src snapshot.Source) uint64 {
	if a.elsewhere(repo) {
		return 0
	}
	n, _, _ := repository.LastSeen(a.statePath(), repo.ID(), src)
	return n
}

// mayJump reports whether the clock by which objects arrive may jump: that of a directory is this host's, that of a server of
// one's own is set like any other. Those of Amazon and Google do not.
func mayJump(address string) bool {
	l, err := open.Parse(address)
	own := err == nil && l.S3.Endpoint+l.GS.Endpoint != ""
	for _, name := range []string{"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "STORAGE_EMULATOR_HOST"} {
		own = own || os.Getenv(name) != ""
	}
	return own || err == nil && l.Scheme == "file"
}

// plan decides. Rules of the policy that replace longer ones wait; what is in force is recorded before anything is
// announced, so that a crash in between changes nothing.
func (a *app) plan(repo *repository.Repository, src snapshot.Source, h *observe.History, rules policy.Retention, f pruneFlags) ([]retention.Decision, *retention.Shortened, error) {
	now := a.now()
	if !f.rules.Empty() {
		decisions, err := retention.Plan(h.Retention(), rules, now)
		return decisions, nil, err
	}
	dir := state.Open(a.statePath(), repo.ID())
	rec, changed := dir.Retention(src).Update(rules, now)
	if changed && !f.dryRun {
		if err := dir.SetRetention(src, rec); err != nil {
			return nil, nil, fmt.Errorf("prune %s: %w", src, err)
		}
	}
	return rec.Plan(h.Retention(), now)
}

// logBase is the snapshot from which on the log stays, by the same rules as those that plan has put in force; 0: all of it.
func (a *app) logBase(repo *repository.Repository, src snapshot.Source, h *observe.History, rules policy.Retention, f pruneFlags) uint64 {
	now := a.now()
	n, ok := retention.LogBase(h.Retention(), rules, now)
	if f.rules.Empty() {
		rec, _ := state.Open(a.statePath(), repo.ID()).Retention(src).Update(rules, now)
		n, ok = rec.LogBase(h.Retention(), now)
	}
	if !ok {
		return 0
	}
	return n
}

func (r pruneResult) write(w io.Writer, a *app) {
	src, err := snapshot.ParseSource(r.Source)
	if err != nil {
		return
	}
	would := ""
	if r.DryRun || r.Stopped {
		would = "would be "
	}
	done := map[uint64]string{}
	for word, numbers := range map[string][]uint64{
		would + "announced": r.Condemned, would + "removed": r.Removed, "kept, announcement " + would + "withdrawn": r.Withdrawn,
	} {
		for _, n := range numbers {
			done[n] = word
		}
	}
	for _, x := range r.Waiting {
		if done[x.Sequence] == "" {
			done[x.Sequence] = "goes after " + stamp(x.From)
		}
	}
	t := newTable("SNAPSHOT", "DECISION", "WHY")
	for _, d := range r.Decisions {
		what, ok := done[d.Sequence]
		switch {
		case ok:
		case d.Keep:
			what = "kept"
		default:
			what = "announced before"
		}
		t.row(a.name(snapshot.ID{Source: src, Sequence: d.Sequence}), what, strings.Join(d.Reasons, ", "))
	}
	t.write(w)
	if r.Stopped {
		fmt.Fprintf(w, "%s: nothing was changed\n", r.Source)
		return
	}
	verb := ""
	if r.DryRun {
		verb = "would be: "
	}
	again := ""
	if len(r.Withdrawn) > 0 {
		again = fmt.Sprintf("%d withdrawn, ", len(r.Withdrawn))
	}
	fmt.Fprintf(w, "%s: %s%d announced, %s%d waiting, %d removed, %s freed (%s, %s, %s)\n", r.Source, verb,
		len(r.Condemned), again, len(r.Waiting), len(r.Removed), size(uint64(r.Freed)), count(uint64(r.Packs), "pack", "packs"),
		count(uint64(r.Lists), "list", "lists"), count(uint64(r.Keys), "key", "keys"))
	if n := r.Logs + r.Joined; n > 0 {
		fmt.Fprintf(w, "%s: %s%s of the log removed\n", r.Source, verb, count(uint64(n), "object", "objects"))
	}
}
