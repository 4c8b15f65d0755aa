package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/alert"
	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/emf"
	"github.com/btcdecoded/holdfast/shared/objstore/address"
	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

// controlPlane is the name under which the control plane's own troubles are told.
const controlPlane = "control-plane"

// summary is the answer of a pass.
type summary struct {
	Sources  int               `json:"sources"`
	Breached int               `json:"breached"`
	Looks    int               `json:"looks"`
	Audits   int               `json:"audits"`
	Late     int               `json:"late"` // due, and not reached in time: the next pass begins with them
	Requests int64             `json:"requests"`
	Open     int               `json:"open_alerts"`
	Sent     int               `json:"sent_messages"`
	Failures map[string]string `json:"failures,omitempty"` // of very many the first
}

// findings is what a pass found, ready to be told.
type findings struct {
	pass       *observe.Pass
	sources    []*observe.Judged
	hosts      []*observe.JudgedHost
	orphans    []string
	monitor    *control.Monitor
	conditions []alert.Condition
	requests   int64
	digest     bool
}

// pass looks at what is due, judges everything, tells people and writes metrics.
//
// Order: 1. the shards, each as soon as it is done; 2. the book of alerts with the messages in its outbox; 3. the messages,
// each taken out of the outbox when it is sent; 4. metrics, rows, heartbeat, ping. A crash before 2 loses looks, which the
// next pass does again; after 2 the next pass sends what is in the outbox, perhaps a second time. Metrics and ping come
// last: where they are missing, somebody is told by other means.
func (f *function) pass(ctx context.Context, digest bool) (any, error) {
	p, tag, err := f.cloud.Policy(ctx)
	if err != nil {
		return nil, err
	}
	m, err := f.begin(ctx)
	if errors.Is(err, errBusy) {
		invoke.Log(ctx).Info("another pass is at work")
		return map[string]string{"skipped": err.Error()}, nil
	}
	if err != nil {
		return nil, err
	}
	answer, err := f.work(ctx, p, tag, m, digest)
	if err != nil {
		f.release(ctx, m.Busy.Owner)
	}
	return answer, err
}

// errBusy says that another pass is at work: two would send what is in the outbox twice.
var errBusy = errors.New("another pass is at work")

// begin takes the lease and reads what the pass before left. A pass that crashed has it until its deadline is over.
func (f *function) begin(ctx context.Context) (*control.Monitor, error) {
	now := f.now().UTC()
	until := time.Minute
	if end, ok := ctx.Deadline(); ok {
		until = time.Until(end) + time.Minute // what is between this and the deadline of Lambda
	}
	owner := rand.Text()
	var m *control.Monitor
	err := statestore.Update(ctx, f.state, control.MonitorKey, func(doc *control.Monitor) error {
		if doc.Busy.Held(owner, now) {
			return errBusy
		}
		doc.Version, doc.Busy = 1, control.Lease{Owner: owner, Until: now.Add(until)}
		m = doc
		return nil
	})
	return m, err
}

// release gives the lease back after a failure. Where it can't, it ends by itself.
func (f *function) release(ctx context.Context, owner string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	err := statestore.Update(ctx, f.state, control.MonitorKey, func(m *control.Monitor) error {
		if m.Busy.Owner != owner {
			return statestore.ErrUnchanged
		}
		m.Busy = control.Lease{}
		return nil
	})
	if err != nil {
		invoke.Log(ctx).Warn("release", "error", err.Error())
	}
}

// work is a pass, once it has its lease.
func (f *function) work(ctx context.Context, p *policy.Policy, tag string, m *control.Monitor, digest bool) (any, error) {
	begun := f.now().UTC()
	fleet, err := f.fleet(ctx, p)
	if err != nil {
		return nil, err
	}
	found := &findings{monitor: m, digest: digest}
	if found.pass, err = fleet.Pass(ctx, m.Next, softEnd(ctx)); err != nil {
		return nil, err
	}
	var troubles []error
	troubles = append(troubles, f.daily(ctx, fleet, m))
	found.judge(fleet, f.rules(m))
	found.orphans = m.Orphans
	found.requests = fleet.Watch.Requests()
	book, err := f.tell(ctx, p, found)
	if err != nil {
		return nil, errors.Join(append(troubles, err)...)
	}
	sent, err := f.deliver(ctx, book.Outbox)
	troubles = append(troubles, err)
	found.log(ctx, tag)
	troubles = append(troubles, f.finish(ctx, begun, found, book))
	if n := found.pass.Unread; n > 0 {
		// Their sources are in no metric and open no alert: that the pass fails is what tells.
		troubles = append(troubles, fmt.Errorf("%d of the documents about sources can not be read: %v", n, found.summary(0, 0).Failures))
	}
	if len(found.pass.Unheard) > 0 {
		// The same: what was found about them opens no alert.
		troubles = append(troubles, fmt.Errorf("what verify and lifecycle have found can not all be read: %v", found.summary(0, 0).Failures))
	}
	if err := errors.Join(troubles...); err != nil {
		return nil, err
	}
	if f.ping != nil {
		if err := f.ping(ctx); err != nil {
			return nil, err
		}
	}
	return found.summary(len(book.Open), sent), nil
}

// softEnd leaves a quarter of the time for what comes after the looks.
func softEnd(ctx context.Context) time.Time {
	end, ok := ctx.Deadline()
	if !ok {
		return time.Now().Add(10 * time.Minute)
	}
	return end.Add(-time.Until(end) / 4)
}

func (f *function) fleet(ctx context.Context, p *policy.Policy) (*observe.Fleet, error) {
	repo, err := f.cloud.Repository(ctx, p)
	if err != nil {
		return nil, err
	}
	copied, err := observe.IsCopy(ctx, repo)
	if err != nil {
		return nil, err
	}
	w := &observe.Watch{Repo: repo, Copied: copied}
	for _, at := range p.Repository.Copies {
		w.Places = append(w.Places, f.place(ctx, p.Repository.Primary, at))
	}
	return &observe.Fleet{Watch: w, State: f.state, Policy: p, Parallel: f.env.Parallel, Now: f.now, Jobs: min(observe.DefaultJobs, orDefault(f.env.SilentAfter, defaultSilent)/3)}, nil
}

// place opens a copy, once.
func (f *function) place(ctx context.Context, primary, at string) observe.Place {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p, ok := f.places[at]; ok {
		return p
	}
	p := observe.Place{Address: at, Dependent: observe.Dependence(primary, at) != ""}
	// A disk is its host's to look at, and what other credentials open is theirs.
	if l, err := address.Parse(at); err == nil && (l.Scheme != "s3" || l.S3.Profile != "") {
		p.Unseen = true
	} else if p.Store, p.Err = invoke.Store(ctx, at); p.Err != nil {
		p.Store = nil
		return p // it is tried again
	}
	if f.places == nil {
		f.places = map[string]observe.Place{}
	}
	f.places[at] = p
	return p
}

func (f *function) rules(m *control.Monitor) observe.Rules {
	return observe.Rules{
		SilentAfter: orDefault(f.env.SilentAfter, defaultSilent), ReceiptWithin: orDefault(f.env.ReceiptWithin, defaultReceipt), KeyProven: m.KeyProven,
	}
}

// daily looks at what changes rarely: subscriptions and orphans. What went wrong is returned, and tried again.
func (f *function) daily(ctx context.Context, fleet *observe.Fleet, m *control.Monitor) error {
	now := f.now().UTC()
	var troubles []error
	// As long as something is wrong with the subscriptions they are looked at in each pass, so that it ends when it is over.
	if s := m.Subscriptions; s == nil || unconfirmed(s) > 0 || now.Sub(s.Checked) >= 24*time.Hour {
		next, err := f.people.subscriptions(ctx, s, now)
		if err == nil {
			m.Subscriptions = next
		}
		troubles = append(troubles, err)
	}
	if now.Sub(m.Listed) >= 24*time.Hour {
		orphans, err := fleet.Orphans(ctx)
		if err == nil {
			m.Orphans, m.Listed = nil, now
			for _, o := range orphans {
				m.Orphans = append(m.Orphans, o.String())
			}
		}
		troubles = append(troubles, err)
	}
	return errors.Join(troubles...)
}

// judge turns what was seen into conditions.
func (x *findings) judge(fleet *observe.Fleet, r observe.Rules) {
	x.sources, x.hosts = fleet.Judge(x.pass, r)
	for _, j := range x.sources {
		for _, s := range j.States {
			if compliance.Told(s) {
				x.conditions = append(x.conditions, alert.Condition{State: s, Tier: j.Policy.Objectives.Tier, Reaches: j.Reaches})
			}
		}
	}
	for _, h := range x.hosts {
		for _, s := range h.States {
			if compliance.Told(s) {
				x.conditions = append(x.conditions, alert.Condition{State: s, Tier: h.Tier})
			}
		}
	}
	if s := x.monitor.Subscriptions; unconfirmed(s) > 0 {
		cause := "nobody is subscribed to the topic of alerts"
		if len(s.Pending) > 0 {
			cause = fmt.Sprintf("subscriptions that nobody confirmed: %s (%d are confirmed)", strings.Join(s.Pending, ", "), s.Confirmed)
		}
		x.conditions = append(x.conditions, alert.Condition{Tier: policy.Critical, State: compliance.State{
			Source: controlPlane, Objective: "subscription", Code: compliance.Unconfirmed, Breach: true, Since: s.Since, Cause: cause,
			Next: "aws sns list-subscriptions-by-topic --topic-arn TOPIC",
		}})
	}
}

// seen says about which sources and hosts the conditions are complete. What is not in the policy any more is complete:
// its alerts end.
func (x *findings) seen(p *policy.Policy) func(string) bool {
	known := map[string]bool{controlPlane: x.monitor.Subscriptions != nil}
	p.Each(func(host, name string, _ *policy.Source) {
		known[host], known[host+"/"+name] = false, false
	})
	for _, j := range x.sources {
		known[j.Source.String()] = j.Known && x.pass.Heard(j.Source.String())
	}
	for _, h := range x.hosts {
		known[h.Host] = h.Known
	}
	return func(source string) bool {
		complete, inPolicy := known[source]
		return complete || !inPolicy
	}
}

// tell brings the book of alerts up to date.
func (f *function) tell(ctx context.Context, p *policy.Policy, found *findings) (*alert.Book, error) {
	now := f.now()
	seen := found.seen(p)
	var book *alert.Book
	err := statestore.Update(ctx, f.state, control.AlertsKey, func(b *alert.Book) error {
		b.Step(found.conditions, seen, f.options(), now)
		period, due := b.DigestDue(f.env.DigestHour, now)
		if found.digest {
			period, due = max(period, alert.Daily), true
		}
		if due {
			b.AddDigest(period, found.digestOf(), f.options(), now)
		}
		book = b
		return nil
	})
	if err != nil {
		return nil, err
	}
	return book, nil
}

// deliver sends what is in the outbox.
func (f *function) deliver(ctx context.Context, outbox []alert.Message) (int, error) {
	return f.people.deliver(ctx, outbox, func(id string) error {
		return statestore.Update(ctx, f.state, control.AlertsKey, func(b *alert.Book) error {
			b.Sent(id)
			return nil
		})
	})
}

// finish writes metrics, rows and heartbeat.
func (f *function) finish(ctx context.Context, begun time.Time, found *findings, book *alert.Book) error {
	now := f.now().UTC()
	err := emf.Write(f.out, found.metrics(now, len(book.Open))...)
	rows := found.rows(now)
	err = errors.Join(err, statestore.Update(ctx, f.state, control.RowsKey, func(r *control.Rows) error {
		*r = rows
		return nil
	}))
	newest := found.pass.Newest(newestManifests)
	return errors.Join(err, statestore.Update(ctx, f.state, control.MonitorKey, func(m *control.Monitor) error {
		// A person may have said meanwhile that the key was checked.
		proven, by := m.KeyProven, m.KeyBy
		*m = *found.monitor
		if proven.After(m.KeyProven) {
			m.KeyProven, m.KeyBy = proven, by
		}
		m.Version, m.Begun, m.Time, m.Next, m.Newest, m.Busy = 1, begun, now, found.pass.Next, newest, control.Lease{}
		return nil
	}))
}

// newestManifests is how many manifests the watchdog looks for in the replica.
const newestManifests = 20

// log names what is not met: names are for the log, metrics have none.
func (x *findings) log(ctx context.Context, tag string) {
	log := invoke.Log(ctx)
	for i := range x.conditions {
		if i == 200 {
			log.Warn("more is not met", "count", len(x.conditions)-i)
			break
		}
		c := &x.conditions[i]
		log.Warn("not met", "source", c.Source, "objective", c.Objective, "code", c.Code, "tier", c.Tier, "since", c.Since, "cause", c.Cause)
	}
	log.Info("pass", "policy", tag, "sources", len(x.sources), "looks", x.pass.Looks, "audits", x.pass.Audits, "late", x.pass.Late,
		"conflicts", x.pass.Conflicts, "failures", len(x.pass.Failures), "requests", x.requests)
}

func (x *findings) summary(open, sent int) summary {
	s := summary{
		Sources: len(x.sources), Looks: x.pass.Looks, Audits: x.pass.Audits, Late: x.pass.Late, Requests: x.requests, Open: open, Sent: sent,
	}
	for _, j := range x.sources {
		if compliance.Breached(j.States) {
			s.Breached++
		}
	}
	const most = 10
	for _, name := range slices.Sorted(maps.Keys(x.pass.Failures)) {
		if len(s.Failures) == most {
			break
		}
		if s.Failures == nil {
			s.Failures = map[string]string{}
		}
		s.Failures[name] = x.pass.Failures[name]
	}
	return s
}

// digestOf is every source as a digest shows it, orphans included.
func (x *findings) digestOf() []alert.Summary {
	var out []alert.Summary
	for _, j := range x.sources {
		s := alert.Summary{Source: j.Source.String(), Tier: j.Policy.Objectives.Tier, States: j.States}
		if m := j.Memory; m != nil {
			s.Snapshots, s.Stored = m.Count, m.Stored
			s.Growth, _ = compliance.Growth(m.Days)
			if n := len(m.Kept); n > 0 {
				s.Newest = m.Kept[n-1].Arrived
			}
		}
		out = append(out, s)
	}
	for _, o := range x.orphans {
		out = append(out, alert.Summary{Source: o, Tier: policy.Low, States: []compliance.State{{
			Source: o, Objective: "policy", Code: compliance.Orphan, Cause: "in the repository and not in the policy",
		}}})
	}
	return out
}
