package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/hostagent/daemon"
	"github.com/btcdecoded/holdfast/hostagent/replicate"
	postgreslog "github.com/btcdecoded/holdfast/hostagent/replicate/postgres"
	sqlitelog "github.com/btcdecoded/holdfast/hostagent/replicate/sqlite"
	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// followers are the followers of the agent: of the sources that its policy wants to be followed, whichever it is at the
// time.
func (w *agentWork) followers(policies *daemon.Policies) *replicate.Group {
	return &replicate.Group{
		Want: func() map[string]replicate.Spec {
			p, out := policies.Current(), map[string]replicate.Spec{}
			for _, name := range continuousSources(p, w.host) {
				if one, ok := followedOf(snapshot.Source{Host: w.host, Name: name}, p.Hosts[w.host].Sources[name]); ok {
					out[name] = one.spec()
				}
			}
			return out
		},
		Make: func(ctx context.Context, name string, spec replicate.Spec) (replicate.Follower, error) {
			p := policies.Current()
			s, err := p.Lookup(w.host, name)
			if err != nil {
				return nil, err
			}
			a := w.with(p)
			repo, err := a.open(ctx)
			if err != nil {
				return nil, err
			}
			one, ok := followedOf(snapshot.Source{Host: w.host, Name: name}, s)
			if !ok || one.spec() != spec {
				return nil, errors.New("the policy has changed")
			}
			return a.follower(repo, one, false, w.tellFollowed), nil
		},
		Tell: func(name string, err error) {
			told := []any{"source", name, "error", err}
			if _, hint := code(context.Background(), err); hint != "" {
				told = append(told, "hint", hint)
			}
			w.log.Error("a source is not followed", told...)
		},
	}
}

// tellFollowed logs what happens to a follower. Records are the normal case.
func (w *agentWork) tellFollowed(e replicate.Event) {
	if e.Kind == replicate.Shipped {
		return
	}
	text, bad := followText(e)
	if bad {
		w.log.Warn("log", "source", e.Source, "what", text)
		return
	}
	w.log.Info("log", "source", e.Source, "what", text)
}

const (
	// mostLogs is of how many logs a heartbeat tells.
	mostLogs = 100
	// behindAfter is how old commits that wait are in a log that is behind. All else is the usual way of a record.
	behindAfter = time.Minute
)

// tellLogs is what a heartbeat tells of logs.
func (w *agentWork) tellLogs(policies *daemon.Policies) map[string]events.Log {
	logs, err := w.app.logs(policies.Current(), w.host)
	if err != nil {
		w.log.Warn("what is known of logs can not be read", "error", err)
	}
	out := map[string]events.Log{}
	// A message has its limit: of very many, those that are not well come first.
	names := slices.SortedFunc(maps.Keys(logs), func(x, y string) int {
		well := func(name string) int {
			if logs[name].Well() && logs[name].Alive {
				return 1
			}
			return 0
		}
		return cmp.Or(well(x)-well(y), strings.Compare(x, y))
	})
	for _, name := range names[:min(len(names), mostLogs)] {
		s := logs[name]
		out[name] = events.Log{
			State: string(s.State), Well: s.Well() && s.Alive, Since: s.Since.UTC(), Why: clipped(s.Why), Next: clipped(s.Hint), Until: s.Until.UTC(),
			Lag: s.Lag.P99 / 1000, Behind: !s.Oldest.IsZero() && time.Since(s.Oldest) > behindAfter,
		}
	}
	return out
}

// clipped keeps a text short enough for a heartbeat.
func clipped(text string) string {
	const most = 300
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// beside lets a backup of a source that is followed stand in its log.
func (w *agentWork) beside(ctx context.Context, a *app, source string) (done func(), err error) {
	if w.group == nil {
		return func() {}, nil
	}
	switch f := w.group.Follower(source).(type) {
	case *sqlitelog.Follower:
		c, err := f.Capture(ctx)
		if err != nil {
			return nil, err
		}
		a.beside = map[string]logTail{source: c}
		return c.Close, nil
	case *postgreslog.Follower:
		return f.Take(ctx) // all that a backup must know of the log stands in its mark
	}
	return func() {}, nil
}

// logStatus is what is known of the log of a source of this host.
type logStatus struct {
	replicate.Status
	Alive bool      `json:"alive"`
	Until time.Time `json:"until,omitzero"` // all commits by then are durable
}

// MarshalJSON is that of both together.
func (s logStatus) MarshalJSON() ([]byte, error) {
	type status replicate.Status
	return json.Marshal(struct {
		status
		Alive bool      `json:"alive"`
		Until time.Time `json:"until,omitzero"`
	}{status(s.Status), s.Alive, s.Until})
}

// logOf reads the status of a source from its state directory; nil where nobody ever followed it.
func logOf(dir string) (*logStatus, error) {
	s, alive, err := replicate.Read(dir)
	if s == nil || err != nil {
		return nil, err
	}
	return &logStatus{Status: *s, Alive: alive, Until: s.Until()}, nil
}

// logs are those of the sources of this host that the policy wants to be followed, and of those that somebody follows.
// It does not ask the repository, and does not know which it is: of several the newest counts.
func (a *app) logs(p *policy.Policy, host string) (map[string]*logStatus, error) {
	out := map[string]*logStatus{}
	wanted := map[string]bool{}
	if p != nil {
		for _, name := range continuousSources(p, host) {
			wanted[name] = true
		}
	}
	found, err := filepath.Glob(filepath.Join(literalGlob(a.statePath()), "*", host, "*", "follow.json"))
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, path := range found {
		dir := filepath.Dir(path)
		s, err := logOf(dir)
		if err != nil || s == nil {
			errs = append(errs, err)
			continue
		}
		name := filepath.Base(dir)
		if old := out[name]; (s.Alive || wanted[name]) && (old == nil || s.Written.After(old.Written)) {
			out[name] = s
		}
	}
	for name := range wanted {
		if out[name] == nil {
			out[name] = neverFollowed()
		}
	}
	return out, errors.Join(errs...)
}

// literalGlob is a pattern for exactly one path.
func literalGlob(path string) string {
	var b []byte
	for i := range len(path) {
		switch path[i] {
		case '*', '?', '[', '\\':
			b = append(b, '\\')
		}
		b = append(b, path[i])
	}
	return string(b)
}

// writeLogs prints a line for each log.
func writeLogs(w io.Writer, logs map[string]*logStatus, now time.Time) {
	for _, name := range slices.Sorted(maps.Keys(logs)) {
		fmt.Fprintf(w, "log of %s: %s\n", name, logs[name].text(now))
	}
}

// text is a log in a line.
func (s *logStatus) text(now time.Time) string {
	text := string(s.State)
	if s.Why != "" {
		text += ": " + printable(s.Why)
	}
	switch {
	case s.State == replicate.Following && s.Oldest.IsZero():
		text += ", all is durable"
	case s.State == replicate.Following && s.Cluster != nil:
		text += fmt.Sprintf(", %s of WAL since %s ago are on their way", size(uint64(max(s.Pending.Bytes, 0))), duration(now.Sub(s.Oldest)))
	case s.State == replicate.Following:
		text += fmt.Sprintf(", %d commits since %s ago are on their way", s.Pending.Commits, duration(now.Sub(s.Oldest)))
	case !s.Until.IsZero():
		text += "; durable up to " + stamp(s.Until)
	}
	if s.Lag.Commits > 0 && s.Alive {
		text += fmt.Sprintf("; lag %s (half of the commits), %s (99 of 100), %s at most", lagText(s.Lag.P50), lagText(s.Lag.P99), lagText(s.Lag.Max))
	}
	if s.Cluster != nil {
		text += clusterText(s.Cluster)
	}
	if n := len(s.Gaps); n > 0 {
		text += fmt.Sprintf("; last gap %s: %s", stamp(s.Gaps[n-1].From), printable(s.Gaps[n-1].Why))
	}
	return text
}

// lagText is a lag of so many milliseconds.
func lagText(ms float64) string {
	if ms < 10_000 {
		return fmt.Sprintf("%.0f ms", ms)
	}
	return duration(time.Duration(ms * float64(time.Millisecond)))
}

// clusterText is what a line about a log says of a cluster.
func clusterText(c *replicate.Cluster) string {
	text := ""
	if c.Durable != "" {
		text += fmt.Sprintf("; WAL up to %s of timeline %d", c.Durable, c.Timeline)
	}
	if s := c.Slot; s != nil {
		text += fmt.Sprintf("; slot %s keeps %s", s.Name, size(s.Retained))
		if s.State != "" && s.State != "reserved" {
			text += " (" + printable(s.State) + ")"
		}
		if s.Free != nil {
			text += fmt.Sprintf(", %s free on its disk", size(*s.Free))
		}
	}
	for _, note := range c.Notes {
		text += "; " + printable(note)
	}
	return text
}

// judge adds a log to what the objectives judge.
func (s *logStatus) judge(f *compliance.Facts) {
	if s == nil {
		return
	}
	f.Log = &compliance.Log{
		State: string(s.State), Well: s.Well() && s.Alive, Since: s.Since, Why: s.Why, Next: s.Hint, Until: s.Until,
	}
	if s.Until.After(f.LogUntil) {
		f.LogUntil = s.Until
	}
}

// sourceLog is the log of a source that this host follows, or should by its policy; nil for others.
func (a *app) sourceLog(repo *repository.Repository, p *policy.Policy, src snapshot.Source) (*logStatus, error) {
	host, err := a.host()
	if err != nil || src.Host != host {
		return nil, err
	}
	wanted := p != nil && slices.Contains(continuousSources(p, host), src.Name)
	s, err := logOf(a.followDir(repo.ID(), src))
	switch {
	case err != nil:
		return nil, err
	case s == nil && wanted:
		return neverFollowed(), nil
	case s != nil && (wanted || s.Alive):
		return s, nil
	}
	return nil, nil //nolint:nilnil // there is none, and there need not be
}

func neverFollowed() *logStatus {
	return &logStatus{Status: replicate.Status{
		State: replicate.Stopped, Why: "nobody has followed the source yet",
		Hint: "`holdfast agent` follows the sources of the policy, `holdfast replicate` in the foreground",
	}}
}
