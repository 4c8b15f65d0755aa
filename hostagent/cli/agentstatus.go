package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
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
	Sources map[string]*events.JobFinished `json:"sources"` // how the newest job of each ended
	Heard   time.Time                      `json:"heard,omitzero"`
	Unsent  int                            `json:"unsent"`
	Damaged int                            `json:"damaged,omitempty"`
}

func (a *app) agentStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "What the agent does, has to do, and did last",
		Long: `Show what the journal of this host's agent says: whether an agent runs, the job it is at, those that wait, and how the
newest job of each source ended. It asks neither the agent nor the repository.`,
		Example: "  holdfast agent status\n  holdfast agent status --json",
		Args:    arguments(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			s, alive, err := journal.Read(a.agentDir())
			if err != nil {
				return err
			}
			out := agentState{Alive: alive, Waiting: []journal.Entry{}, Sources: s.Last, Heard: s.Heard, Unsent: s.Unsent(), Damaged: s.Damaged}
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
	if s.Unsent > 0 {
		fmt.Fprintf(w, "%s to be sent\n", count(uint64(s.Unsent), "event waits", "events wait"))
	}
	if s.Damaged > 0 {
		fmt.Fprintf(w, "%s of the journal damaged\n", count(uint64(s.Damaged), "line is", "lines are"))
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
