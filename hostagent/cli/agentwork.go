package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/hostagent/daemon"
	"github.com/btcdecoded/holdfast/hostagent/hook"
	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/shared/approval"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/schedule"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// agentWork does the agent's jobs by the commands that a person would type, in this process: what the agent does can
// always be done, and looked at, by hand.
type agentWork struct {
	app       *app
	host      string
	restoreBy string // AWS profile for restores
	log       *slog.Logger
	group     *replicate.Group // nil: nothing is followed

	mu    sync.Mutex
	known map[string]seenHistory // by source; guarded by mu
}

func newAgentWork(a *app, host, restoreBy string, log *slog.Logger) *agentWork {
	return &agentWork{app: a, host: host, restoreBy: restoreBy, log: log, known: map[string]seenHistory{}}
}

// with is the command line with a policy of the agent instead of what stands in the file now. What commands tell people
// goes to the log.
func (w *agentWork) with(p *policy.Policy) *app {
	a := *w.app
	a.pinned = p
	a.flags.host, a.flags.json, a.flags.quiet = w.host, true, true
	a.stdio = Stdio{In: strings.NewReader(""), Out: &bytes.Buffer{}, Err: &logLines{log: w.log}}
	return &a
}

// command runs a command and returns what it printed. Whatever it had in memory goes back to the system: the agent
// lives for months and works for minutes.
func (w *agentWork) command(ctx context.Context, a *app, cmd *cobra.Command, args ...string) ([]byte, error) {
	defer debug.FreeOSMemory()
	var out bytes.Buffer
	a.stdio.Out = &out
	cmd.SilenceUsage, cmd.SilenceErrors, cmd.GroupID = true, true, ""
	cmd.SetArgs(args)
	cmd.SetOut(a.stdio.Err)
	cmd.SetErr(a.stdio.Err)
	err := cmd.ExecuteContext(ctx)
	if _, hint := code(ctx, err); hint != "" {
		err = hinted{err, hint} // for the log
	}
	return out.Bytes(), err
}

// Backup runs `holdfast backup SOURCE --type TYPE`.
func (w *agentWork) Backup(ctx context.Context, p *policy.Policy, source string, t snapshot.SnapshotType) (daemon.Outcome, error) {
	a := w.with(p)
	done, err := w.beside(ctx, a, source)
	if err != nil {
		return daemon.Outcome{}, err
	}
	defer done()
	text, err := w.command(ctx, a, a.backupCommand(), "--type", string(t), "--", source)
	var doc struct {
		Backups []backupResult `json:"backups"`
	}
	if len(text) > 0 {
		if jerr := json.Unmarshal(text, &doc); jerr != nil {
			return daemon.Outcome{}, together(err, jerr)
		}
	}
	if len(doc.Backups) == 0 {
		if err == nil {
			err = errors.New("nothing was backed up")
		}
		return daemon.Outcome{}, err
	}
	b := doc.Backups[0]
	sel, serr := snapshot.ParseSelector(b.Snapshot)
	if serr != nil {
		return daemon.Outcome{}, serr
	}
	out := daemon.Outcome{
		Result: events.OK, Type: b.Type, Snapshot: sel.Sequence, Added: b.Counts.AddedBytes,
		Counts: &events.Counts{
			Files: b.Counts.Files, Bytes: b.Counts.Bytes, ReadBytes: b.Counts.ReadBytes,
			Errors: b.Counts.Errors, NotConsistent: b.Counts.NotConsistent,
		},
	}
	// The snapshot is there; what else went wrong is told beside it.
	switch {
	case b.Rollback:
		out.Result, out.Problem = events.Partial, "the repository had less than this host has seen: somebody may have put an old state back"
	case b.Partial:
		out.Result, out.Problem = events.Partial, leftOutText(b)
	}
	if err != nil && !isOutcome(err) {
		out.Result, out.Problem = events.Partial, strings.TrimPrefix(out.Problem+"; "+err.Error(), "; ")
	}
	return out, nil
}

// after runs the hooks after a backup of a source.
func (w *agentWork) after(ctx context.Context, p *policy.Policy, source string) error {
	s, err := p.Lookup(w.host, source)
	if err != nil {
		return err
	}
	env := []string{"HOLDFAST_HOST=" + w.host, "HOLDFAST_SOURCE=" + source}
	return hook.Run(context.WithoutCancel(ctx), s.Hooks.After, env, &logLines{log: w.log})
}

func leftOutText(b backupResult) string {
	text := count(b.Counts.Errors, "thing", "things") + " could not be captured"
	if len(b.Problems) > 0 {
		text += fmt.Sprintf(", the first is %s: %s", printable(b.Problems[0].Path), printable(b.Problems[0].Error))
	}
	return text
}

// isOutcome reports whether a command did its work and says with its exit code how it went.
func isOutcome(err error) bool {
	_, ok := err.(outcome) //nolint:errorlint // an outcome is never wrapped
	return ok
}

// Restore runs `holdfast restore HOST/SOURCE@N PATH... --to DIR`, or --in-place.
func (w *agentWork) Restore(ctx context.Context, p *policy.Policy, r *approval.Request) (daemon.Outcome, error) {
	a := w.with(p)
	if err := a.readAs(w.restoreBy); err != nil {
		return daemon.Outcome{}, err
	}
	if h := p.Hosts[w.host]; !r.InPlace && (h == nil || !reallyBelow(h.Restore.Targets, r.Target)) {
		return daemon.Outcome{}, fmt.Errorf("restore to %s: a symbolic link on the way leads out of where the policy lets restores go", r.Target)
	}
	args := []string{"--to=" + r.Target}
	if r.InPlace {
		args = []string{"--in-place"}
	}
	if !r.At.IsZero() {
		args = append(args, "--at="+exact(r.At))
	}
	args = append(append(args, "--", fmt.Sprintf("%s@%d", r.Source, r.Snapshot)), r.Paths...)
	text, err := w.command(ctx, a, a.restoreCommand(), args...)
	var doc struct {
		Files    uint64        `json:"files"`
		Bytes    uint64        `json:"bytes"`
		Written  uint64        `json:"written_bytes"`
		Failed   uint64        `json:"failed"`
		Problems []problemLine `json:"problems"`
	}
	if len(text) == 0 || json.Unmarshal(text, &doc) != nil {
		if err == nil {
			err = errors.New("the restore said nothing about itself")
		}
		return daemon.Outcome{}, err
	}
	out := daemon.Outcome{
		Result: events.OK, Snapshot: r.Snapshot, Added: doc.Written,
		Counts: &events.Counts{Files: doc.Files, Bytes: doc.Bytes, ReadBytes: doc.Written, Errors: doc.Failed},
	}
	if isOutcome(err) {
		out.Result, err = events.Partial, nil
		out.Problem = count(doc.Failed, "thing", "things") + " could not be restored"
		if len(doc.Problems) > 0 {
			out.Problem += fmt.Sprintf(", the first is %s: %s", printable(doc.Problems[0].Path), printable(doc.Problems[0].Error))
		}
	}
	return out, err
}

// reallyBelow reports whether a target lies below one of the roots also when symbolic links are followed: an earlier
// restore, or whoever may write there, could have made one that leads elsewhere.
func reallyBelow(roots []string, target string) bool {
	real := realPath(target)
	return slices.ContainsFunc(roots, func(root string) bool {
		return snapshot.Within(realPath(root), real) && realPath(root) != real
	})
}

// readAs makes a command read the repository with another AWS profile: that of the agent may add, and not read what is
// in the packs.
func (a *app) readAs(profile string) error {
	if profile == "" {
		return nil
	}
	address, err := a.address()
	if err != nil || !strings.HasPrefix(strings.ToLower(address), "s3:") {
		return err
	}
	u, err := url.Parse(address)
	if err != nil {
		return errors.New("restore: the address of the repository can not be read")
	}
	query := u.Query()
	query.Set("profile", profile)
	u.RawQuery = query.Encode()
	a.flags.repository = u.String()
	return nil
}

// clockSkew is by how much a snapshot may have begun in the future.
const clockSkew = 10 * time.Minute

// seenHistory is what was read of a source up to a snapshot.
type seenHistory struct {
	repo snapshot.RepositoryID
	daemon.History
}

// History looks at the newest snapshots of a source, as far back as the newest full; unfinished ones do not count. What
// was seen before is not read again.
func (w *agentWork) History(ctx context.Context, p *policy.Policy, source string) (daemon.History, error) {
	a := w.with(p)
	repo, err := a.open(ctx)
	if err != nil {
		return daemon.History{}, err
	}
	src := snapshot.Source{Host: w.host, Name: source}
	listed, err := repo.Sequences(ctx, src)
	if err != nil {
		return daemon.History{}, err
	}
	w.mu.Lock()
	known := w.known[source]
	w.mu.Unlock()
	// Another repository, or one that was put back to an old state: what was seen means nothing.
	if known.repo != repo.ID() || len(listed) == 0 || listed[len(listed)-1].Sequence < known.Sequence {
		known = seenHistory{repo: repo.ID()}
	}
	h := known.History
	var settled, stored schedule.History
	for i := len(listed) - 1; i >= 0 && listed[i].Sequence > known.Sequence && settled.Full.IsZero(); i-- {
		m, err := repo.Manifest(ctx, snapshot.ID{Source: src, Sequence: listed[i].Sequence})
		var bad *repository.BadManifestError
		if errors.As(err, &bad) || errors.Is(err, repository.ErrNoSnapshot) {
			continue // damaged, or removed since: it settles nothing
		}
		if err != nil {
			return daemon.History{}, err
		}
		if m.Unfinished {
			continue
		}
		// A clock that was ahead must not put off all backups until it is right.
		if m.Started.After(a.now().Add(clockSkew)) {
			continue
		}
		settled = settled.Settle(m.Type, m.Started)
		stored = stored.Settle(m.Type, schedule.Began(m.Manifest, m.Arrived))
		if h.Sequence < m.Sequence {
			h.Sequence, h.Started = m.Sequence, m.Started
		}
	}
	h.Settled, h.Stored = h.Settled.Joined(settled), h.Stored.Joined(stored)
	w.mu.Lock()
	w.known[source] = seenHistory{repo: repo.ID(), History: h}
	w.mu.Unlock()
	return h, nil
}

// logLines turns what commands write for people into lines of the log.
type logLines struct {
	log *slog.Logger

	mu   sync.Mutex
	rest []byte // guarded by mu
}

// Write logs whole lines; warnings, which come as JSON, as such.
func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, b...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			break
		}
		l.rest = append([]byte(nil), rest...)
		var warning struct {
			Warning string `json:"warning"`
		}
		if json.Unmarshal(line, &warning) == nil && warning.Warning != "" {
			l.log.Warn(warning.Warning)
		} else if text := strings.TrimSpace(string(line)); text != "" {
			l.log.Info(printable(text))
		}
	}
	if len(l.rest) > 64<<10 { // a hook that never ends its line
		l.log.Info(printable(string(l.rest)))
		l.rest = nil
	}
	return len(b), nil
}
