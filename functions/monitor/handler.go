package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/alert"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

// cloud is where policy and repository come from.
type cloud interface {
	Policy(ctx context.Context) (*policy.Policy, string, error)
	Repository(ctx context.Context, p *policy.Policy) (*repository.Repository, error)
}

// function is the monitor.
type function struct {
	env    environment.Monitor
	cloud  cloud
	state  statestore.Store
	people *people
	out    io.Writer                       // where metrics go: standard output
	ping   func(ctx context.Context) error // nil: nobody waits for it
	now    func() time.Time

	mu     sync.Mutex
	places map[string]observe.Place // copies that were opened, by address; guarded by mu
}

func buildMonitor() (invoke.Handler, error) {
	var env environment.Monitor
	if err := environment.Load(os.Getenv, &env); err != nil {
		return nil, err
	}
	// Where another server stands in for AWS, a test may want to see it sooner.
	if err := checkSilent(env.SilentAfter); err != nil && env.Endpoint == "" && invoke.Endpoint(os.Getenv, "S3") == "" {
		return nil, err
	}
	c, err := invoke.Open(env.Cloud)
	if err != nil {
		return nil, err
	}
	f := &function{
		env: env, cloud: c, state: c.State, out: os.Stdout, now: time.Now,
		people: newPeople(env.Topic, env.Bus, snsClient(c.Config), busClient(c.Config)),
	}
	if env.Ping != "" {
		f.ping = pinger(c.Config, env.Ping)
	}
	return f.handle, nil
}

// request is what a person, a dashboard or a schedule sends. docs/runbook.md has examples of each action.
type request struct {
	Describe      bool            `json:"describe"`      // CloudWatch asks for the documentation of the widget
	WidgetContext json.RawMessage `json:"widgetContext"` // CloudWatch asks for the widget
	Action        string          `json:"action"`

	// A schedule's tick; nothing of it is needed.
	Version int       `json:"version"`
	Time    time.Time `json:"time"`

	// Actions.
	alert.Pattern
	By     string          `json:"by"`
	Reason string          `json:"reason"`
	From   time.Time       `json:"from"`
	Until  time.Time       `json:"until"`
	For    policy.Duration `json:"for"` // instead of until
	At     time.Time       `json:"at"`
}

// The actions. No action is a pass.
const (
	actionPass        = "pass"
	actionAlarmTest   = "alarm-test"
	actionAcknowledge = "acknowledge"
	actionMaintenance = "maintenance"
	actionKeyChecked  = "key-checked"
	actionDigest      = "digest"
	actionStatus      = "status"
)

func (f *function) handle(ctx context.Context, payload json.RawMessage) (any, error) {
	r := request{}
	if trimmed := bytes.TrimSpace(payload); len(trimmed) > 0 {
		if err := json.Unmarshal(trimmed, &r); err != nil {
			return nil, fmt.Errorf("decode request: %w", err)
		}
	}
	switch {
	case r.Describe:
		return widgetDocumentation, nil
	case len(r.WidgetContext) > 0:
		return f.widget(ctx)
	}
	switch r.Action {
	case "", actionPass:
		return f.pass(ctx, false)
	case actionAlarmTest:
		return f.alarmTest(ctx, r)
	case actionAcknowledge, actionMaintenance:
		return f.quiet(ctx, r)
	case actionKeyChecked:
		return f.keyChecked(ctx, r)
	case actionDigest:
		return f.pass(ctx, true)
	case actionStatus:
		return f.status(ctx)
	}
	return nil, fmt.Errorf("unknown action %q: want %s, %s, %s, %s, %s, %s or %s", r.Action,
		actionPass, actionAlarmTest, actionAcknowledge, actionMaintenance, actionKeyChecked, actionDigest, actionStatus)
}

func (f *function) options() alert.Options {
	return alert.Options{Runbook: f.env.Runbook, Settle: f.env.SettleAfter}
}

// The defaults of the environment.
const (
	defaultSilent  = 45 * time.Minute
	defaultReceipt = 2 * time.Hour
)

// leastSilent is the shortest silence that means something: heartbeats come every 5 minutes, signs of life are written
// down every 15 (control.SeenEvery) and read every 15 (observe.DefaultJobs), and events may be 5 minutes under way.
const leastSilent = 40 * time.Minute

// checkSilent refuses a time after which agents would be called silent that are at work.
func checkSilent(d time.Duration) error {
	if d == 0 || d >= leastSilent {
		return nil
	}
	return fmt.Errorf("HOLDFAST_SILENT_AFTER=%s: want at least %s: a sign of life is written down every %s and read every %s, and heartbeats are 5 minutes apart, so that agents at work would be called silent",
		d, leastSilent, control.SeenEvery, observe.DefaultJobs)
}

func orDefault(d, standard time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return standard
}

// missing turns "there is no document yet" into an empty one.
func missing[T any](v *T, err error) (*T, error) {
	if errors.Is(err, statestore.ErrNotExist) {
		return new(T), nil
	}
	return v, err
}
