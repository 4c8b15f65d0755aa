package alert

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/policy"
)

// Summary is one source as a digest shows it.
type Summary struct {
	Source    string
	Tier      policy.Tier
	Snapshots int
	Newest    time.Time // arrival of the newest snapshot
	Stored    int64
	Growth    float64 // bytes a day
	States    []compliance.State
}

// The periods of a digest.
const (
	Daily  = 24 * time.Hour
	Weekly = 7 * 24 * time.Hour
)

// DigestDue reports whether a digest is due: at the hour (UTC) of each day, on Mondays the weekly one instead.
func (b *Book) DigestDue(hour int, now time.Time) (period time.Duration, due bool) {
	now = now.UTC()
	at := time.Date(now.Year(), now.Month(), now.Day(), hour, 0, 0, 0, time.UTC)
	if now.Before(at) || !b.Digest.Before(at) {
		return 0, false
	}
	if now.Weekday() == time.Monday {
		return Weekly, true
	}
	return Daily, true
}

// AddDigest puts a digest into the outbox: how many sources there are and how they are, what is open, what is no breach
// and worth a look, what grows most.
func (b *Book) AddDigest(period time.Duration, all []Summary, o Options, now time.Time) Message {
	o = o.defaults()
	now = now.UTC()
	breached := 0
	var stored int64
	for i := range all {
		stored += all[i].Stored
		if compliance.Breached(all[i].States) {
			breached++
		}
	}
	name := "daily"
	if period >= Weekly {
		name = "weekly"
	}
	m := Message{ID: id("digest|"+name, now), Kind: Digest, Time: now}
	m.Subject = subject(fmt.Sprintf("[holdfast] %s digest: %d of %d sources not met, %d alerts open", name, breached, len(all), len(b.Open)))
	var t strings.Builder
	fmt.Fprintf(&t, "%d sources, %d not met; %s stored; %d alerts open.\n", len(all), breached, compliance.RoughSize(float64(stored)), len(b.Open))
	byTier(&t, all)
	b.openAlerts(&t, now)
	notes(&t, all)
	if period >= Weekly {
		growing(&t, all)
	}
	fmt.Fprintf(&t, "\nRunbook: %s\n", o.Runbook)
	m.Text = t.String()
	b.Digest = now
	if period >= Weekly {
		b.Weekly = now
	}
	b.put(m)
	return m
}

func byTier(t *strings.Builder, all []Summary) {
	t.WriteString("\nBy tier:\n")
	for _, tier := range []policy.Tier{policy.Critical, policy.High, policy.Standard, policy.Low} {
		n, bad := 0, 0
		for i := range all {
			if all[i].Tier == tier {
				n++
				if compliance.Breached(all[i].States) {
					bad++
				}
			}
		}
		if n > 0 {
			fmt.Fprintf(t, "  %s: %d sources, %d not met\n", tier, n, bad)
		}
	}
}

func (b *Book) openAlerts(t *strings.Builder, now time.Time) {
	open := b.List()
	if len(open) > 0 {
		t.WriteString("\nOpen:\n")
	}
	for i := range open {
		if i == named {
			fmt.Fprintf(t, "  and %d more\n", len(open)-named)
			break
		}
		o := &open[i]
		word := ""
		switch {
		case b.muted(o, now):
			word = " (maintenance)"
		case b.acknowledged(o, now):
			word = " (acknowledged)"
		}
		fmt.Fprintf(t, "  %s %s since %s%s: %s\n", o.Source, o.Code, stamp(o.Since), word, clean(o.Cause))
	}
	for _, a := range b.Acks {
		fmt.Fprintf(t, "  acknowledged by %s until %s: %s %s %s\n", clean(a.By), stamp(a.Until), a.Source, a.Code, clean(a.Reason))
	}
	for _, w := range b.Windows {
		fmt.Fprintf(t, "  maintenance by %s from %s until %s: %s %s\n", clean(w.By), stamp(w.From), stamp(w.Until), w.Source, clean(w.Reason))
	}
}

// notes tells what is no breach, many alike in one line.
func notes(t *strings.Builder, all []Summary) {
	type group struct {
		code  compliance.Code
		names []string
		cause string
	}
	var groups []*group
	for i := range all {
		for _, s := range all[i].States {
			if s.Breach || s.Code == compliance.OK {
				continue
			}
			at := slices.IndexFunc(groups, func(g *group) bool { return g.code == s.Code })
			if at < 0 {
				groups, at = append(groups, &group{code: s.Code, cause: s.Cause}), len(groups)
			}
			groups[at].names = append(groups[at].names, all[i].Source)
		}
	}
	if len(groups) == 0 {
		return
	}
	slices.SortFunc(groups, func(x, y *group) int { return cmp.Compare(x.code, y.code) })
	t.WriteString("\nWorth a look:\n")
	for _, g := range groups {
		shown := g.names[:min(len(g.names), named)]
		fmt.Fprintf(t, "  %s: %s", g.code, strings.Join(shown, ", "))
		if len(g.names) > named {
			fmt.Fprintf(t, " and %d more", len(g.names)-named)
		}
		fmt.Fprintf(t, " (%s)\n", clean(g.cause))
	}
}

func growing(t *strings.Builder, all []Summary) {
	most := slices.DeleteFunc(slices.Clone(all), func(s Summary) bool { return s.Growth <= 0 })
	if len(most) == 0 {
		return
	}
	slices.SortFunc(most, func(x, y Summary) int {
		return cmp.Or(cmp.Compare(y.Growth, x.Growth), cmp.Compare(x.Source, y.Source))
	})
	t.WriteString("\nGrowing most:\n")
	for _, s := range most[:min(len(most), named)] {
		fmt.Fprintf(t, "  %s: %s a day, %s stored\n", s.Source, compliance.RoughSize(s.Growth), compliance.RoughSize(float64(s.Stored)))
	}
}
