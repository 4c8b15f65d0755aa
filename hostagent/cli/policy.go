package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/shared/policy"
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

func (a *app) policyCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Check the policy file",
		Long: `Read the policy strictly and name everything that is wrong in it, with line and column: unknown keys (with the
nearest known one), values of the wrong form, what contradicts itself. Exit code 1 if anything is.`,
		Example: "  holdfast policy check --policy policy.yaml",
		Args:    arguments(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			p, err := a.needPolicy()
			if err != nil {
				return err
			}
			var result struct {
				Policy  string   `json:"policy"`
				Hosts   int      `json:"hosts"`
				Sources int      `json:"sources"`
				Notes   []string `json:"notes"`
			}
			result.Policy, result.Hosts = a.policyPath(), len(p.Hosts)
			p.Each(func(string, string, *policy.Source) { result.Sources++ })
			result.Notes = policyNotes(p)
			return a.print(result, func(w io.Writer) {
				fmt.Fprintf(w, "%s: good; %s, %s\n", result.Policy, count(uint64(result.Hosts), "host", "hosts"), count(uint64(result.Sources), "source", "sources"))
				for _, note := range result.Notes {
					fmt.Fprintf(w, "note: %s\n", note)
				}
			})
		},
	}
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
		if s.Kind() != policy.KindFiles {
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
