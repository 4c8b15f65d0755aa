package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/hostagent/state"
	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/copier"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const statusLong = `Judge each source by the objectives of the policy: age of the newest usable snapshot (RPO), time of a restore (RTO),
verification, copies and their lag, size, history, protection. Each line says what is not met, since when, why and what
to do. Exit code 5 if anything is not met. Without a policy the defaults are the objectives.

With --quiet only what is not met is printed: run it from cron, and it is in the mail.

What was never measured is not met. A restore of a whole source on this host measures the RTO; "key check" proves the
offline identity.`

func (a *app) statusCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:     "status [SOURCE...]",
		Short:   "Say whether objectives are met",
		Long:    statusLong,
		Example: "  holdfast status\n  holdfast status etc --all\n  holdfast status --json",
		GroupID: groupTend,
		RunE: func(cmd *cobra.Command, args []string) error {
			pol, err := a.loadPolicy()
			if err != nil {
				return err
			}
			repo, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			doc, err := a.status(cmd.Context(), repo, pol, args)
			if err != nil {
				return err
			}
			if err := a.print(doc, func(w io.Writer) { doc.write(w, a, all) }); err != nil {
				return err
			}
			if a.flags.quiet && !a.flags.json {
				doc.writeStates(a.stdio.Out, a, func(s compliance.State) bool { return s.Breach })
			}
			if !doc.Met {
				return outcome(exitObjectives)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "show what is met as well")
	return cmd
}

// statusDoc is the judgement on all sources.
type statusDoc struct {
	Met     bool               `json:"met"`
	Policy  bool               `json:"policy"` // false: judged by the default objectives
	Sources []sourceStatus     `json:"sources"`
	Hosts   []compliance.State `json:"hosts"`
}

type sourceStatus struct {
	Source    string             `json:"source"`
	Snapshots int                `json:"snapshots"`
	Newest    time.Time          `json:"newest,omitzero"`
	Stored    int64              `json:"stored_bytes"`
	Log       *logStatus         `json:"log,omitempty"` // of a source that this host follows, or should
	States    []compliance.State `json:"states"`
}

func (a *app) status(ctx context.Context, repo *repository.Repository, pol *policy.Policy, args []string) (*statusDoc, error) {
	sources, err := a.statusSources(ctx, repo, pol, args)
	if err != nil {
		return nil, err
	}
	copies, err := a.copyStores(ctx, pol)
	if err != nil {
		return nil, err
	}
	doc := &statusDoc{Met: true, Policy: pol != nil, Sources: []sourceStatus{}, Hosts: []compliance.State{}}
	stored := map[string]int64{}
	for _, src := range sources {
		facts, err := a.facts(ctx, repo, pol, src, copies)
		if err != nil {
			return nil, err
		}
		s := sourceStatus{Source: src.String(), Snapshots: len(facts.Snapshots), Stored: facts.Stored}
		if n := len(facts.Snapshots); n > 0 {
			s.Newest = facts.Snapshots[n-1].Arrived.UTC()
		}
		if s.Log, err = a.sourceLog(repo, pol, src); err != nil {
			a.warn("%v", err)
		}
		s.Log.judge(facts)
		s.States = compliance.Evaluate(objectivesOf(pol, src), *facts, a.now())
		nameDependent(s.States, copies)
		doc.Met = doc.Met && !compliance.Breached(s.States)
		doc.Sources = append(doc.Sources, s)
		stored[src.Host] += facts.Stored
	}
	if pol != nil && len(args) == 0 {
		for _, host := range sortedHosts(pol) {
			if a.flags.host == "" || a.flags.host == host {
				doc.Hosts = append(doc.Hosts, compliance.EvaluateHost(host, pol.Hosts[host].MaxSize, stored[host])...)
			}
		}
		doc.Met = doc.Met && !compliance.Breached(doc.Hosts)
	}
	return doc, nil
}

// nameDependent says of copies that are too few which places do not count, and why.
func nameDependent(states []compliance.State, copies []copyStore) {
	var why []string
	for _, c := range copies {
		if c.dependence != "" {
			why = append(why, c.address+" is "+c.dependence)
		}
	}
	for i := range states {
		if states[i].Code == compliance.TooFewCopies && len(why) > 0 {
			states[i].Cause += ": " + strings.Join(why, "; ")
		}
	}
}

func sortedHosts(p *policy.Policy) []string {
	var hosts []string
	for h := range p.Hosts {
		hosts = append(hosts, h)
	}
	slices.Sort(hosts)
	return hosts
}

// statusSources are those of the repository and those that the policy says should be there.
func (a *app) statusSources(ctx context.Context, repo *repository.Repository, pol *policy.Policy, args []string) ([]snapshot.Source, error) {
	var sources []snapshot.Source
	var err error
	if len(args) == 0 || pol == nil {
		if sources, err = a.sources(ctx, repo, args); err != nil {
			return nil, err
		}
	}
	if pol == nil {
		return sources, nil
	}
	if len(args) > 0 {
		return a.policySources(ctx, repo, pol, args)
	}
	pol.Each(func(host, name string, _ *policy.Source) {
		src := snapshot.Source{Host: host, Name: name}
		if !slices.Contains(sources, src) && (a.flags.host == "" || a.flags.host == host) {
			sources = append(sources, src)
		}
	})
	slices.SortFunc(sources, func(x, y snapshot.Source) int {
		switch xs, ys := x.String(), y.String(); {
		case xs < ys:
			return -1
		case xs > ys:
			return 1
		}
		return 0
	})
	return sources, nil
}

// policySources finds the named sources in the policy, or else in the repository.
func (a *app) policySources(ctx context.Context, repo *repository.Repository, pol *policy.Policy, args []string) ([]snapshot.Source, error) {
	own, err := a.host()
	if err != nil {
		return nil, err
	}
	var out []snapshot.Source
	for _, arg := range args {
		sel, err := selector(arg)
		if err != nil {
			return nil, err
		}
		if sel.Host == "" {
			sel.Host = own
		}
		if _, err := pol.Lookup(sel.Host, sel.Name); err == nil {
			out = append(out, snapshot.Source{Host: sel.Host, Name: sel.Name})
			continue
		}
		found, err := a.sources(ctx, repo, []string{arg})
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

// objectivesOf are those of the policy; nil if the source is not in it. Without a policy the defaults apply.
func objectivesOf(p *policy.Policy, src snapshot.Source) *policy.Objectives {
	if p == nil {
		return &policy.Objectives{
			Tier: policy.DefaultTier, RPO: policy.DefaultRPO, Copies: policy.DefaultCopies,
			KeyCheck: policy.DefaultKeyCheck, Verify: policy.DefaultVerify,
		}
	}
	s, err := p.Lookup(src.Host, src.Name)
	if err != nil || p.Gone(src.Host, s) {
		return nil
	}
	return &s.Objectives
}

// copyStore is one copy of the policy.
type copyStore struct {
	address    string
	dependence string // why it does not count; empty if it does
	store      objstore.Store
	err        error // it can't be looked at
}

func (a *app) copyStores(ctx context.Context, pol *policy.Policy) ([]copyStore, error) {
	if pol == nil {
		return nil, nil
	}
	primary, err := a.address()
	if err != nil {
		return nil, err
	}
	var out []copyStore
	for _, address := range pol.Repository.Copies {
		c := copyStore{address: address, dependence: observe.Dependence(primary, address)}
		c.store, c.err = a.store(ctx, address)
		out = append(out, c)
	}
	return out, nil
}

// facts collects what is known about a source: from the repository, its copies and this host's memory.
func (a *app) facts(ctx context.Context, repo *repository.Repository, pol *policy.Policy, src snapshot.Source, copies []copyStore) (*compliance.Facts, error) {
	h, err := observe.Read(ctx, repo, src)
	if err != nil {
		return nil, err
	}
	if err := h.Broken(); err != nil {
		a.warn("%v", err)
	}
	dir := state.Open(a.statePath(), repo.ID())
	f := h.Facts()
	if pol != nil {
		if s, err := pol.Lookup(src.Host, src.Name); err == nil {
			f.Deep = h.Deep(s.Verification)
		}
	}
	if at := dir.KeyProven(); at.After(f.KeyProven) {
		f.KeyProven = at
	}
	if seen, _, ok := repository.LastSeen(a.statePath(), repo.ID(), src); ok && !a.elsewhere(repo) {
		f.LastSeen = seen
	}
	if run, ok := dir.LastRun(src); ok {
		f.LastRun = &run
	}
	if r, ok := dir.LastRestore(src); ok && (f.Restored == nil || r.Time.After(f.Restored.Time)) {
		f.Restored = &r
	}
	for _, c := range copies {
		one := compliance.Copy{Place: c.address, Dependent: c.dependence != ""}
		if err := lagOf(ctx, repo, c, src, &one); err != nil {
			one.Error = err.Error()
		}
		f.Copies = append(f.Copies, one)
	}
	return f, ctx.Err()
}

func lagOf(ctx context.Context, repo *repository.Repository, c copyStore, src snapshot.Source, to *compliance.Copy) error {
	if c.err != nil {
		return c.err
	}
	lags, err := copier.Lag(ctx, repo, c.store, []snapshot.Source{src})
	if err != nil {
		return err
	}
	for _, l := range lags {
		to.Missing += len(l.Missing)
		to.Waiting, to.Log = l.Since, l.Log
		if len(l.Ahead) > 0 {
			return fmt.Errorf("it has %s that the repository has not: the repository was rolled back", l.Ahead[len(l.Ahead)-1])
		}
	}
	return nil
}

func (d *statusDoc) write(w io.Writer, a *app, all bool) {
	if !d.Policy {
		a.note("no policy: judged by the default objectives")
	}
	if len(d.Sources) == 0 {
		fmt.Fprintln(w, "no sources")
	}
	t := newTable("SOURCE", ">SNAPSHOTS", "NEWEST", ">STORED", "STATE")
	for _, s := range d.Sources {
		newest, word := "never", "met"
		if !s.Newest.IsZero() {
			newest = stamp(s.Newest)
		}
		if compliance.Breached(s.States) {
			word = "NOT MET"
		}
		t.row(s.Source, fmt.Sprint(s.Snapshots), newest, size(uint64(s.Stored)), word)
	}
	if len(d.Sources) > 0 {
		t.write(w)
	}
	for _, s := range d.Sources {
		if s.Log != nil {
			fmt.Fprintf(w, "log of %s: %s\n", s.Source, s.Log.text(a.now()))
		}
	}
	d.writeStates(w, a, func(s compliance.State) bool { return all || s.Code != compliance.OK })
}

// writeStates prints those states that want says, of hosts first.
func (d *statusDoc) writeStates(w io.Writer, a *app, want func(compliance.State) bool) {
	states := slices.Clone(d.Hosts)
	for _, s := range d.Sources {
		states = append(states, s.States...)
	}
	states = unprotectedAtOnce(slices.DeleteFunc(states, func(s compliance.State) bool { return !want(s) }))
	for _, s := range states {
		word := a.paint(w, green, "ok")
		switch {
		case s.Breach:
			word = a.paint(w, red, "NOT MET")
		case s.Code != compliance.OK:
			word = a.paint(w, yellow, "note")
		}
		fmt.Fprintf(w, "%s %s, %s: %s", word, s.Source, s.Objective, s.Cause)
		if !s.Since.IsZero() {
			fmt.Fprintf(w, " (since %s)", stamp(s.Since))
		}
		fmt.Fprintln(w)
		if s.Next != "" && s.Code != compliance.OK {
			fmt.Fprintf(w, "    next: %s\n", s.Next)
		}
	}
}

// unprotectedAtOnce makes one note of those that say of several sources that this host may destroy them: it is true of the host,
// and repeated for each it would hide what is not.
func unprotectedAtOnce(states []compliance.State) []compliance.State {
	first, n := -1, 0
	var out []compliance.State
	for _, s := range states {
		if s.Code == compliance.NotProtected {
			if n++; n > 1 {
				continue
			}
			first = len(out)
		}
		out = append(out, s)
	}
	if n > 1 {
		s := &out[first]
		s.Next = strings.TrimSuffix(s.Next, " "+s.Source)
		s.Source = fmt.Sprintf("%d sources", n)
	}
	return out
}
