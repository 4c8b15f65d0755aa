package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/hostagent/daemon/journal"
)

// agentState is what the journal tells of an agent.
type agentState struct {
	Alive   bool                           `json:"alive"`
	Running *journal.Entry                 `json:"running,omitempty"`
	Waiting []journal.Entry                `json:"waiting"`
	Sources map[string]*events.JobFinished `json:"sources"` // how the newest backup of each ended
	Heard   time.Time                      `json:"heard,omitzero"`
	Logs    map[string]*logStatus          `json:"logs,omitempty"` // of the sources that are followed
	Unsent  int                            `json:"unsent"`
	Damaged int                            `json:"damaged,omitempty"`
	Policy  string                         `json:"policy_error,omitempty"` // what is wrong with the policy file as it is now

	nowhere string // the journal's directory, if there is none
}

func (a *app) agentStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "What the agent does, has to do, and did last",
		Long: `Show what the journal of this host's agent says: whether an agent runs, the job it is at, those that wait, and how the
newest backup of each source ended; and whether the policy file is in order. It asks neither the agent nor the repository.`,
		Example: "  holdfast agent status\n  holdfast agent status --json",
		Args:    arguments(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			s, alive, err := journal.Read(a.agentDir())
			if err != nil {
				return err
			}
			// An agent at work keeps the old policy when the new one is not in order, and one that starts does not: nobody
			// should learn of it only then.
			pol, perr := a.loadPolicy()
			out := agentState{Alive: alive, Waiting: []journal.Entry{}, Sources: s.Last, Heard: s.Heard, Unsent: s.Unsent(), Damaged: s.Damaged}
			if perr != nil {
				out.Policy = perr.Error()
			}
			if host, herr := a.host(); herr == nil {
				if out.Logs, err = a.logs(pol, host); err != nil {
					return err
				}
			}
			if _, err := os.Stat(a.agentDir()); errors.Is(err, fs.ErrNotExist) {
				out.nowhere = a.agentDir()
			}
			for _, e := range s.Open {
				if alive && out.Running == nil && !e.Started.IsZero() {
					out.Running = &e
					continue
				}
				out.Waiting = append(out.Waiting, e)
			}
			return a.print(out, func(w io.Writer) { out.write(w, a.now()) })
		},
	}
}

func (s agentState) write(w io.Writer, now time.Time) {
	state := "no agent runs on this host"
	if s.Alive {
		state = "the agent runs"
	}
	fmt.Fprintln(w, state)
	// Root's agent has another place than an ordinary user's, so that this may be the wrong one to look at.
	if s.nowhere != "" {
		fmt.Fprintf(w, "there is no journal in %s; --state names another place\n", s.nowhere)
	}
	if s.Policy != "" {
		effect := "an agent would not start"
		if s.Alive {
			effect = "the agent goes on with the one before"
		}
		fmt.Fprintf(w, "the policy file is not in order, and %s:\n  %s\n", effect, strings.ReplaceAll(s.Policy, "\n", "\n  "))
	}
	if !s.Heard.IsZero() {
		fmt.Fprintf(w, "the last job from the queue came %s ago\n", duration(now.Sub(s.Heard)))
	}
	if s.Running != nil {
		fmt.Fprintf(w, "now: %s, for %s\n", jobText(s.Running.Job), duration(now.Sub(s.Running.Started)))
	}
	for _, e := range s.Waiting {
		cut := ""
		if !e.Started.IsZero() {
			cut = ", was cut off"
		}
		fmt.Fprintf(w, "next: %s, accepted %s ago%s\n", jobText(e.Job), duration(now.Sub(e.Accepted)), cut)
	}
	for _, source := range slices.Sorted(maps.Keys(s.Sources)) {
		f := s.Sources[source]
		fmt.Fprintf(w, "%s, %s ago\n", finishedLine(*f), duration(now.Sub(f.Finished)))
	}
	writeLogs(w, s.Logs, now)
	if s.Unsent > 0 {
		fmt.Fprintf(w, "%s to be sent\n", count(uint64(s.Unsent), "event waits", "events wait"))
	}
	if s.Damaged > 0 {
		fmt.Fprintf(w, "%s damaged: look at the disk; a job may be lost or run twice\n", count(uint64(s.Damaged), "line of the journal is", "lines of the journal are"))
	}
}

func jobText(job *events.Job) string {
	text := string(job.Kind)
	if job.Type != "" {
		text = job.Type + " " + text
	}
	if job.Source != "" {
		text += " of " + job.Source
	}
	return text
}
