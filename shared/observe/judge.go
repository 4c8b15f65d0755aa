package observe

import (
	"cmp"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Rules are the limits that a policy does not have: they are the control plane's own.
type Rules struct {
	SilentAfter   time.Duration // an agent that was not heard for longer is silent
	ReceiptWithin time.Duration // what arrives is checked within this time; 0: nobody checks
	KeyProven     time.Time     // last proof of the offline identity that a person told of; receipts tell the same
}

// Judged is the judgement on one source.
type Judged struct {
	Source  snapshot.Source
	Policy  *policy.Source // nil: an orphan
	Known   bool           // false: nobody has looked yet, and there is still time
	Memory  *Memory        // nil: nobody has looked yet
	States  []compliance.State
	Reaches time.Time // newest state that can be restored; zero: none
	Age     float64   // of it, as a share of the RPO; 0 where there is none
}

// JudgedHost is the judgement on one host.
type JudgedHost struct {
	Host    string
	Tier    policy.Tier // the highest of its sources
	Stored  int64
	Known   bool // all its sources were looked at
	States  []compliance.State
	Sources []*Judged
}

// Judge judges every source and host of the policy by what a pass remembers. Sources of shards that could not be read
// are left out. The result is ordered by name.
func (f *Fleet) Judge(p *Pass, r Rules) ([]*Judged, []*JudgedHost) {
	now := f.Now()
	var sources []*Judged
	hosts := map[string]*JudgedHost{}
	var names []string
	f.Policy.Each(func(host, name string, s *policy.Source) {
		shard := p.Shards[ShardOf(host)]
		if shard == nil {
			return
		}
		j := judge(shard, snapshot.Source{Host: host, Name: name}, s, p, r, now)
		sources = append(sources, j)
		h := hosts[host]
		if h == nil {
			h = &JudgedHost{Host: host, Tier: s.Objectives.Tier, Known: true}
			hosts[host], names = h, append(names, host)
		}
		h.Sources = append(h.Sources, j)
		if tierRank(s.Objectives.Tier) < tierRank(h.Tier) {
			h.Tier = s.Objectives.Tier
		}
		h.Known = h.Known && j.Memory != nil
		if j.Memory != nil {
			h.Stored += j.Memory.Stored
		}
	})
	out := make([]*JudgedHost, 0, len(names))
	for _, name := range names {
		h := hosts[name]
		memory := p.Shards[ShardOf(name)].Hosts[name]
		if memory != nil && r.SilentAfter > 0 {
			h.States = append(h.States, compliance.EvaluateAgent(name, memory.Agent(r.SilentAfter), now)...)
		}
		if h.Known {
			h.States = append(h.States, compliance.EvaluateHost(name, f.Policy.Hosts[name].MaxSize, h.Stored)...)
		}
		out = append(out, h)
	}
	return sources, out
}

func tierRank(t policy.Tier) int {
	tiers := []policy.Tier{policy.Critical, policy.High, policy.Standard, policy.Low}
	if i := slices.Index(tiers, t); i >= 0 {
		return i
	}
	return len(tiers)
}

func judge(shard *Shard, src snapshot.Source, s *policy.Source, p *Pass, r Rules, now time.Time) *Judged {
	j := &Judged{Source: src, Policy: s, Memory: shard.Sources[src.String()]}
	host := shard.Hosts[src.Host]
	if j.Memory == nil {
		// Nobody has looked: that is no proof that there is nothing. It is told when it lasts.
		if host == nil || now.Sub(host.Known) <= max(s.Objectives.RPO.Std(), time.Hour) {
			return j
		}
		j.Known = true
		j.States = compliance.EvaluateUnseen(src.String(), host.Known.Add(max(s.Objectives.RPO.Std(), time.Hour)), p.Failures[src.String()])
		return j
	}
	facts := j.Memory.Facts(src)
	facts.CheckWithin = r.ReceiptWithin
	if r.KeyProven.After(facts.KeyProven) {
		facts.KeyProven = r.KeyProven
	}
	facts.Looked, facts.LookError = j.Memory.Looked, p.Failures[src.String()]
	facts.Findings = slices.Clone(p.Findings[src.String()])
	slices.SortFunc(facts.Findings, func(a, b compliance.Finding) int {
		return cmp.Or(cmp.Compare(a.By, b.By), a.First.Compare(b.First), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Problem, b.Problem))
	})
	facts.Deep = j.Memory.Deep.wanted(s.Verification)
	if host != nil {
		jobs := host.Sources[src.Name]
		facts.LastRun, facts.Lost = jobs.LastRun, jobs.Lost
		facts.Log = jobs.Log
		if until := host.logUntil(jobs.Log, r.SilentAfter, now); until.After(facts.LogUntil) {
			facts.LogUntil = until
		}
		for i := range facts.Deep {
			facts.Deep[i].Error = jobs.Unverified
		}
	}
	j.Known = true
	j.States = compliance.Evaluate(&s.Objectives, *facts, now)
	if j.Reaches = compliance.Reaches(facts); !j.Reaches.IsZero() && s.Objectives.RPO > 0 {
		j.Age = float64(now.Sub(j.Reaches)) / float64(s.Objectives.RPO.Std())
	}
	return j
}

// Newest returns the newest manifests that were seen, newest first: who watches a replica expects them there.
func (p *Pass) Newest(most int) []control.Arrived {
	var out []control.Arrived
	for _, s := range p.Shards {
		for _, m := range s.Sources {
			if m == nil || len(m.Kept) == 0 {
				continue
			}
			src, err := snapshot.ParseSource(m.Source)
			if err != nil {
				continue
			}
			k := m.Kept[len(m.Kept)-1]
			out = append(out, control.Arrived{Host: src.Host, Source: src.Name, Sequence: k.Sequence, Time: k.listed})
		}
	}
	slices.SortFunc(out, func(a, b control.Arrived) int {
		return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(a.Host, b.Host), cmp.Compare(a.Source, b.Source))
	})
	return slices.Clip(out[:min(most, len(out))])
}

// OldestLook is when the source that was looked at longest ago was; zero if one never was, or there is none.
func (p *Pass) OldestLook() time.Time {
	var oldest time.Time
	for _, s := range p.Shards {
		for _, m := range s.Sources {
			if m == nil {
				return time.Time{}
			}
			if oldest.IsZero() || m.Looked.Before(oldest) {
				oldest = m.Looked
			}
		}
	}
	return oldest
}
