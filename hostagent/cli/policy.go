package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/shared/compliance/cost"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func (a *app) policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "policy",
		Short:   "Check and show the policy file",
		Long:    "The policy file says what is backed up, when, how long it is kept and which objectives it must meet.",
		Example: "  holdfast policy check --policy policy.yaml\n  holdfast policy show",
		GroupID: groupConfig,
	}
	parent(cmd)
	cmd.AddCommand(a.policyCheckCommand(), a.policyShowCommand(), a.policySchemaCommand())
	return cmd
}

// policyResult is what policy check found.
type policyResult struct {
	Policy  string           `json:"policy"`
	Hosts   int              `json:"hosts"`
	Sources int              `json:"sources"`
	Notes   []string         `json:"notes"`
	Cost    *cost.Projection `json:"cost"`
}

func (a *app) policyCheckCommand() *cobra.Command {
	var measure bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the policy file and project its cost",
		Long: `Read the policy strictly and name everything that is wrong in it, with line and column: unknown keys (with the
nearest known one), values of the wrong form, what contradicts itself. Exit code 1 if anything is.

A good policy is shown with what it will cost: requests and bytes a day, and what is stored after a year. With --measure
the sizes of the sources are taken from their newest snapshots; without, only requests are projected.`,
		Example: "  holdfast policy check --policy policy.yaml\n  holdfast policy check --measure",
		Args:    arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := a.needPolicy()
			if err != nil {
				return err
			}
			result := policyResult{Policy: a.policyPath(), Hosts: len(p.Hosts), Notes: policyNotes(p)}
			p.Each(func(string, string, *policy.Source) { result.Sources++ })
			measures := map[snapshot.Source]cost.Measure{}
			if measure {
				if measures, err = a.measures(cmd.Context(), p); err != nil {
					return err
				}
			}
			if result.Cost, err = cost.Project(p, measures, a.now()); err != nil {
				return fmt.Errorf("check policy: %w", err)
			}
			return a.print(result, result.write)
		},
	}
	cmd.Flags().BoolVar(&measure, "measure", false, "take the sizes of the sources from the repository")
	return cmd
}

func (r policyResult) write(w io.Writer) {
	fmt.Fprintf(w, "%s: good; %s, %s\n", r.Policy, count(uint64(r.Hosts), "host", "hosts"), count(uint64(r.Sources), "source", "sources"))
	for _, note := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", note)
	}
	t := newTable("SOURCE", ">RUNS/DAY", ">PUTS/DAY", ">LISTS/DAY", ">GETS/DAY", ">SENT/DAY", ">SNAPSHOTS", ">STORED")
	for _, s := range append(r.Cost.Sources, r.Cost.Total) {
		sent, stored := "?", "?"
		if s.Known {
			sent, stored = size(uint64(max(0, s.Uploaded))), size(uint64(max(0, s.Stored)))
		}
		t.row(s.Source, rounded(s.Runs), rounded(s.Puts), rounded(s.Lists), rounded(s.Gets), sent, fmt.Sprint(s.Kept), stored)
	}
	fmt.Fprintln(w, "projected, after a year:")
	t.write(w)
	if !r.Cost.Total.Known {
		fmt.Fprintln(w, "note: ? needs the sizes of the sources: --measure takes them from their newest snapshots")
	}
	for _, note := range r.Cost.Notes {
		fmt.Fprintf(w, "note: %s\n", note)
	}
}

// rounded is a number a day with as much precision as it deserves.
func rounded(n float64) string {
	if n < 10 {
		return fmt.Sprintf("%.2g", n)
	}
	return fmt.Sprintf("%.0f", n)
}

// measures are the sizes of the policy's sources, by their newest snapshots.
func (a *app) measures(ctx context.Context, p *policy.Policy) (map[snapshot.Source]cost.Measure, error) {
	repo, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	out := map[snapshot.Source]cost.Measure{}
	var failed error
	p.Each(func(host, name string, _ *policy.Source) {
		src := snapshot.Source{Host: host, Name: name}
		listed, err := repo.Sequences(ctx, src)
		if err != nil || len(listed) == 0 {
			failed = errors.Join(failed, err)
			return
		}
		m, err := repo.Manifest(ctx, snapshot.ID{Source: src, Sequence: listed[len(listed)-1].Sequence})
		if err != nil {
			failed = errors.Join(failed, err)
			return
		}
		out[src] = cost.Measure{Bytes: int64(min(m.Counts.Bytes, 1<<62))}
	})
	return out, failed
}

// policyNotes is what is allowed but may not be meant.
func policyNotes(p *policy.Policy) []string {
	notes := []string{}
	if p.Repository.Primary == "" {
		notes = append(notes, "no primary repository: each command needs -r or HOLDFAST_REPOSITORY")
	}
	p.Each(func(host, name string, s *policy.Source) {
		if s.Retention.Empty() {
			notes = append(notes, fmt.Sprintf("%s/%s: no retention: everything is kept forever", host, name))
		}
		if n := 1 + len(p.Repository.Copies); n < s.Objectives.Copies {
			notes = append(notes, fmt.Sprintf("%s/%s: wants %d copies, the policy names %s", host, name, s.Objectives.Copies, count(uint64(n), "place", "places")))
		}
		if s.Kind() == policy.KindDocker {
			notes = append(notes, fmt.Sprintf("%s/%s: sources of kind %s can not be backed up by this version", host, name, s.Kind()))
		}
	})
	return notes
}

func (a *app) policyShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "show",
		Short:   "Print the policy with all defaults",
		Long:    "Print the policy with all defaults filled in, as YAML that is a policy itself, or as JSON with --json.",
		Example: "  holdfast policy show\n  holdfast policy show --json",
		Args:    arguments(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			p, err := a.needPolicy()
			if err != nil {
				return err
			}
			b, err := p.Marshal()
			if err != nil {
				return fmt.Errorf("show policy: %w", err)
			}
			return a.print(p, func(w io.Writer) { fmt.Fprintln(w, strings.TrimRight(string(b), "\n")) })
		},
	}
}

func (a *app) policySchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the policy file",
		Long: `Print the JSON Schema of the policy file. Editors use it to complete and check: save it and begin the policy with
"# yaml-language-server: $schema=FILE".`,
		Example: "  holdfast policy schema > policy.schema.json",
		Args:    arguments(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			_, err := a.stdio.Out.Write(policy.Schema())
			return err
		},
	}
}
