package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/alert"
	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/emf"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
	"github.com/btcdecoded/holdfast/shared/statestore/s3state"
)

// watchdog looks from the region of the replica at the primary one: at the heartbeat of its monitor, and whether the
// newest manifests that the monitor has seen have come over; it tells what lifecycle and verify of its region find in the
// replica. It needs no policy and opens no repository.
type watchdog struct {
	env     environment.Watchdog
	primary statestore.Store // of the primary region: read only
	state   statestore.Store // of its own region
	replica func(ctx context.Context) (objstore.Store, error)
	people  *people
	out     io.Writer
	now     func() time.Time
}

// The defaults of the watchdog's environment.
const (
	defaultPrimarySilent = 30 * time.Minute
	defaultReplicaWithin = time.Hour
	clockSkew            = 5 * time.Minute // by how much the clocks of two regions may differ
)

func buildWatchdog() (invoke.Handler, error) {
	var env environment.Watchdog
	if err := environment.Load(os.Getenv, &env); err != nil {
		return nil, err
	}
	c, err := invoke.Open(env.Cloud)
	if err != nil {
		return nil, err
	}
	there := c.Config.Copy()
	there.Region = env.PrimaryRegion
	w := &watchdog{
		env: env, state: c.State, out: os.Stdout, now: time.Now, people: newPeople(env.Topic, "", snsClient(c.Config), nil),
		primary: s3state.New(there, s3state.Options{Bucket: env.Primary, Endpoint: primaryEndpoint(env)}),
		replica: func(ctx context.Context) (objstore.Store, error) {
			return invoke.Store(ctx, env.Repository)
		},
	}
	return w.handle, nil
}

func primaryEndpoint(env environment.Watchdog) string {
	if env.Endpoint != "" {
		return env.Endpoint
	}
	return invoke.Endpoint(os.Getenv, "S3")
}

func (w *watchdog) handle(ctx context.Context, _ json.RawMessage) (any, error) {
	now := w.now().UTC()
	m, _, err := statestore.Read[control.Monitor](ctx, w.primary, control.MonitorKey)
	var conditions []alert.Condition
	if err != nil {
		// That the primary region does not answer is what the watchdog is for: it is told, it does not end the function.
		invoke.Log(ctx).Error("primary region", "error", err.Error())
		m = &control.Monitor{}
	}
	known, lerr := w.remembered(ctx, m)
	if lerr != nil {
		return nil, lerr
	}
	silent := orDefault(w.env.SilentAfter, defaultPrimarySilent)
	age := now.Sub(known.Seen)
	if age > silent {
		cause := "the monitor of the primary region was last at work at " + known.Seen.Format(time.RFC3339)
		if err != nil {
			cause += fmt.Sprintf("; its state can't be read: %v", errors.Unwrap(err))
		}
		conditions = append(conditions, w.condition("heartbeat", compliance.PrimarySilent, known.Seen.Add(silent), cause,
			"aws lambda invoke --region "+w.env.PrimaryRegion+" --function-name holdfast-monitor --payload '{\"action\":\"status\"}' /dev/stdout"))
	}
	late, rerr := w.replicated(ctx, known, now)
	if late != nil {
		conditions = append(conditions, *late)
	}
	found, ferr := w.findings(ctx)
	conditions, rerr = append(conditions, found...), errors.Join(rerr, ferr)
	book, err := w.tell(ctx, conditions, known, rerr == nil, now)
	if err != nil {
		return nil, errors.Join(err, rerr)
	}
	sent, err := w.people.deliver(ctx, book.Outbox, func(id string) error {
		return statestore.Update(ctx, w.state, control.WatchdogKey, func(k *watched) error {
			k.Sent(id)
			return nil
		})
	})
	if err := errors.Join(err, rerr); err != nil {
		return nil, err
	}
	lag := 0.0
	if len(known.Waiting) > 0 {
		lag = max(0, now.Sub(known.Waiting[0].Time).Seconds())
	}
	unit := units()
	g := gauge{environment.MetricWatchdogPass: 1, environment.MetricPrimaryHeartbeat: max(0, age.Seconds()), environment.MetricReplicaLag: lag}
	if err := emf.Write(w.out, g.entry(unit, "", "", nil, now)); err != nil {
		return nil, err
	}
	return map[string]any{"primary_seen": known.Seen, "replica_lag_seconds": lag, "open_alerts": len(book.Open), "sent_messages": sent}, nil
}

func (w *watchdog) condition(objective string, code compliance.Code, since time.Time, cause, next string) alert.Condition {
	return alert.Condition{Tier: policy.Critical, State: compliance.State{
		Source: controlPlane, Objective: objective, Code: code, Breach: true, Since: since, Cause: cause, Next: next,
	}}
}

// watched is the watchdog's book and what it last saw of the primary: that lasts when the primary does not answer.
type watched struct {
	alert.Book
	Seen   time.Time         `json:"seen"`             // heartbeat of the primary's monitor
	Newest []control.Arrived `json:"newest,omitempty"` // manifests that it had seen by then

	// Waiting are manifests that it had seen and that are not in the replica, oldest first. In a large fleet the newest are
	// always new: only who remembers them sees that they do not come over.
	Waiting []control.Arrived `json:"waiting,omitempty"`
}

const (
	// mostWaiting bounds what is remembered: the oldest tell how late the replica is.
	mostWaiting = 100
	// waitFor is how long a manifest is waited for: afterwards it may have been removed from the primary before it came over.
	waitFor = 7 * 24 * time.Hour
)

// remembered joins what the primary says now with what it said before. A primary that was never heard is given time
// from the watchdog's first pass on.
func (w *watchdog) remembered(ctx context.Context, m *control.Monitor) (*watched, error) {
	k, _, err := statestore.Read[watched](ctx, w.state, control.WatchdogKey)
	if k, err = missing(k, err); err != nil {
		return nil, err
	}
	now := w.now().UTC()
	if k.Seen.After(now) {
		k.Seen = now
	}
	// What lies ahead stems from a clock that was wrong, or from whoever wants the watchdog to be quiet.
	if m.Time.After(k.Seen) && !m.Time.After(now.Add(clockSkew)) {
		k.Seen, k.Newest = m.Time, m.Newest
	}
	if k.Seen.IsZero() {
		k.Seen = now
	}
	return k, nil
}

// replicated looks for manifests in the replica: the newest, and those that were not there before. It remembers which are
// not, and returns what is wrong.
func (w *watchdog) replicated(ctx context.Context, known *watched, now time.Time) (*alert.Condition, error) {
	store, err := w.replica(ctx)
	if err != nil {
		return nil, err
	}
	var waiting []control.Arrived
	asked := map[snapshot.ID]bool{}
	for _, a := range slices.Concat(known.Waiting, known.Newest) {
		id := a.ID()
		if asked[id] || now.Sub(a.Time) > waitFor {
			continue
		}
		asked[id] = true
		_, err := store.Stat(ctx, layout.ManifestKey(id))
		switch {
		case errors.Is(err, objstore.ErrNotExist):
			waiting = append(waiting, a)
		case err != nil:
			return nil, fmt.Errorf("look for %s in the replica: %w", id, err)
		}
	}
	slices.SortStableFunc(waiting, func(a, b control.Arrived) int { return a.Time.Compare(b.Time) })
	known.Waiting = waiting[:min(len(waiting), mostWaiting)]
	within := orDefault(w.env.ReplicaWithin, defaultReplicaWithin)
	if len(waiting) == 0 || now.Sub(waiting[0].Time) <= within {
		return nil, nil
	}
	first := waiting[0]
	c := w.condition("replica", compliance.ReplicaLate, first.Time.Add(within),
		fmt.Sprintf("the manifest of %s, which arrived at %s, is not in the replica", first.ID(), first.Time.UTC().Format(time.RFC3339)),
		"aws s3api get-bucket-replication --bucket BUCKET")
	return &c, nil
}

// tell brings the watchdog's book up to date. Where the replica did not answer nothing is known of it.
func (w *watchdog) tell(ctx context.Context, conditions []alert.Condition, known *watched, complete bool, now time.Time) (*alert.Book, error) {
	var book *alert.Book
	err := statestore.Update(ctx, w.state, control.WatchdogKey, func(k *watched) error {
		k.Seen, k.Newest, k.Waiting = known.Seen, known.Newest, known.Waiting
		k.Step(conditions, func(string) bool { return complete }, alert.Options{Runbook: w.env.Runbook}, now)
		book = &k.Book
		return nil
	})
	return book, err
}
