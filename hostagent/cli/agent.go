package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/hostagent/daemon"
	"github.com/btcdecoded/holdfast/hostagent/daemon/journal"
	"github.com/btcdecoded/holdfast/hostagent/source/sqlite"
)

const agentLong = `Run the agent of this host: it backs up the sources of the policy as their schedules say, until it is stopped.

With --queue it takes jobs from the control plane: backups, verifications, and restores that two approvers of the policy
have signed. What a job does stands in the policy of this host alone. When the control plane is silent for so long that
an objective is in danger, the agent follows the schedule by itself. With --bus it reports what it does.

Sources with "continuous" are followed all the time, beside the jobs: what their applications commit is shipped within
that interval.

Every job is in a journal on this host before its message is deleted. A job that was cut off is taken up at the next
start. One job runs at a time.

SIGTERM ends the agent: a job that runs has --grace to finish, and is taken up by the next start after that. SIGHUP reads
the policy again, which also happens when its file changes; one that is not in order is reported, and the old one stays.

--once does what is due now, and ends.`

// agentFlags are the flags of agent.
type agentFlags struct {
	once                           bool
	queue, bus, profile, restoreBy string
	grace, heartbeat               time.Duration
}

func (a *app) agentCommand() *cobra.Command {
	var f agentFlags
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run the agent of this host",
		Long:  agentLong,
		Example: `  holdfast agent
  holdfast agent --queue holdfast-web-1
  holdfast agent --once
  holdfast agent status`,
		GroupID: groupUse,
		Args:    arguments(0, 0, ""),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.agent(cmd.Context(), f) },
	}
	p := cmd.Flags()
	p.SortFlags = false
	p.BoolVar(&f.once, "once", false, "do what is due now, and end")
	p.StringVar(&f.queue, "queue", "", "`NAME` or URL of this host's queue (HOLDFAST_QUEUE; default: none)")
	p.StringVar(&f.bus, "bus", "", "`NAME` or ARN of the bus for events (HOLDFAST_BUS; default with a queue: "+events.BusName+")")
	p.StringVar(&f.profile, "profile", "", "AWS profile for queue and bus, a `NAME` (default: that of AWS_PROFILE)")
	p.StringVar(&f.restoreBy, "restore-profile", "", "AWS profile with which restores of the queue read the repository, a `NAME` (HOLDFAST_RESTORE_PROFILE)")
	p.Var(span(&f.grace, daemon.DefaultGrace), "grace", "how long a running job may go on after SIGTERM, a `TIME`")
	p.Var(span(&f.heartbeat, daemon.DefaultHeartbeat), "heartbeat", "how often to show a sign of life on the bus, a `TIME`")
	cmd.AddCommand(a.agentStatusCommand())
	return cmd
}

func (a *app) agent(ctx context.Context, f agentFlags) error {
	if f.grace < 0 || f.heartbeat <= 0 {
		return usagef("agent: --grace and --heartbeat want a time such as 5m")
	}
	path := a.policyPath()
	if _, err := a.needPolicy(); err != nil {
		return err
	}
	host, err := a.host()
	if err != nil {
		return err
	}
	// What could not work at all is told now, not at the first job in the night.
	if _, err := a.identity(); err != nil {
		return err
	}
	if _, err := a.address(); err != nil {
		return err
	}
	policies, err := daemon.LoadPolicies(path, host)
	if err != nil {
		return hinted{err, "say which host this is with --host; `holdfast policy check` names what is wrong in a policy"}
	}
	policies.Databases = sqlite.Find
	// Only now is SIGHUP no reason to end any more.
	reload, stop := a.reloads()
	defer stop()
	j, err := journal.Open(a.agentDir(), a.now())
	if err != nil {
		return journalError(err)
	}
	defer func() { _ = j.Close() }()
	log := a.logger()
	work := newAgentWork(a, host, a.setting(f.restoreBy, "HOLDFAST_RESTORE_PROFILE"), log)
	c := daemon.Config{
		Host: host, Version: a.version, Policies: policies, Journal: j, Work: work, Log: log, Reload: reload,
		Systemd: daemon.NewSystemd(a.env), Heartbeat: f.heartbeat, Grace: f.grace, After: work.after,
	}
	if f.grace == 0 {
		c.Grace = -1
	}
	queue, bus, name, err := a.connect(ctx, host, f)
	if err != nil {
		return err
	}
	if bus != nil {
		c.Bus = bus
	}
	if queue != nil {
		feed := &daemon.QueueFeed{Queue: queue, Name: name}
		if f.once {
			feed.Wait = time.Second
		}
		c.Feeds = append(c.Feeds, feed)
	}
	c.Feeds = append(c.Feeds, &daemon.ScheduleFeed{Host: host, Policies: policies, Journal: j, Work: work, Remote: queue != nil && !f.once})
	log.Info("agent", "version", a.version, "host", host, "policy", path, "queue", name, "reports", bus != nil)
	if f.once {
		ended, err := daemon.New(c).Once(ctx)
		if ctx.Err() != nil {
			err = together(err, ctx.Err())
		}
		return a.agentOnce(ended, j.Last(), err)
	}
	work.group = work.followers(policies)
	c.Logs = func() map[string]events.Log { return work.tellLogs(policies) }
	var following sync.WaitGroup
	following.Go(func() { work.group.Run(ctx) })
	err = daemon.New(c).Run(ctx)
	following.Wait()
	return err
}

// agentOnce prints how the jobs of a single run ended. Where none was due, what failed last is told again: it waits for
// its next attempt, and nothing is well.
func (a *app) agentOnce(ended []events.JobFinished, last map[string]events.JobFinished, err error) error {
	if ended == nil {
		ended = []events.JobFinished{}
	}
	perr := a.print(struct {
		Jobs []events.JobFinished `json:"jobs"`
	}{ended}, func(w io.Writer) {
		if len(ended) == 0 && err == nil { // with an error, nobody knows what is due
			fmt.Fprintln(w, "nothing was due")
			for _, source := range slices.Sorted(maps.Keys(last)) {
				if f := last[source]; f.Result == events.Failed {
					fmt.Fprintf(w, "%s, %s ago; it will be tried again\n", finishedLine(f), duration(a.now().Sub(f.Finished)))
				}
			}
		}
		for _, f := range ended {
			fmt.Fprintln(w, finishedLine(f))
		}
	})
	errs := []error{err, perr}
	code := exitOK
	for _, f := range ended {
		switch f.Result {
		case events.Failed:
			errs = append(errs, fmt.Errorf("%s of %s: %s", f.Kind, f.Source, f.Error))
		case events.Partial:
			code = exitPartial
		case events.OK:
		}
	}
	if err := together(errs...); err != nil {
		return err
	}
	if code != exitOK {
		return outcome(code)
	}
	return nil
}

func finishedLine(f events.JobFinished) string {
	source := f.Source
	if source == "" {
		source = "another host's source"
	}
	text := fmt.Sprintf("%s of %s: %s", f.Kind, source, f.Result)
	if f.Snapshot > 0 && f.Source != "" {
		text += fmt.Sprintf(", %s@%d", source, f.Snapshot)
	}
	if f.Error != "" {
		text += ": " + printable(f.Error)
	}
	return text
}

// agentDir is where the agent keeps its journal.
func (a *app) agentDir() string { return filepath.Join(a.statePath(), "agent") }

// journalError tells what to do about a journal that can't be opened.
func journalError(err error) error {
	if errors.Is(err, journal.ErrBusy) {
		return hinted{err, "one agent runs on a host; `holdfast agent status` shows what it does"}
	}
	return err
}

// reloads delivers a word for each SIGHUP. Until here the signal ended the program.
func (a *app) reloads() (words <-chan struct{}, stop func()) {
	signals, out, done := make(chan os.Signal, 1), make(chan struct{}), make(chan struct{})
	signal.Reset(syscall.SIGHUP)
	signal.Notify(signals, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-signals:
			case <-done:
				return
			}
			select {
			case out <- struct{}{}:
			case <-done:
				return
			}
		}
	}()
	return out, func() {
		signal.Stop(signals)
		close(done)
	}
}

// logger writes the agent's log to standard error.
func (a *app) logger() *slog.Logger {
	options := &slog.HandlerOptions{}
	if a.flags.quiet {
		options.Level = slog.LevelWarn
	}
	if a.flags.json {
		return slog.New(slog.NewJSONHandler(a.stdio.Err, options))
	}
	// systemd adds the time by itself.
	if _, ok := a.env("JOURNAL_STREAM"); ok {
		options.ReplaceAttr = func(groups []string, at slog.Attr) slog.Attr {
			if len(groups) == 0 && at.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return at
		}
	}
	return slog.New(slog.NewTextHandler(a.stdio.Err, options))
}
