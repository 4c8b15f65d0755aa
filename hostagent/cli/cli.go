// Package cli is the command line of Holdfast: it resolves the configuration, calls the packages that do the work and
// prints what came of it. [Main] is all that others use.
//
// Exit codes, the names of commands and flags, and the members of JSON output stay as they are.
package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// Stdio is where a command reads and writes.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
}

// Main runs one command and returns its exit code. When ctx ends, the command stops at the next safe point.
func Main(ctx context.Context, args []string, stdio Stdio, version string) int {
	out := &output{w: stdio.Out}
	stdio.Out = out
	a := &app{stdio: stdio, version: version, now: time.Now, env: os.LookupEnv}
	root := a.root()
	root.SetArgs(args)
	if isWalFetch(root, args) {
		return walFetch(ctx, root, stdio)
	}
	err := root.ExecuteContext(ctx)
	return report(ctx, stdio.Err, out.judge(err), a.flags.json)
}

const rootLong = `Holdfast backs up and recovers hosts that run a stateful application.

A repository keeps the snapshots of any number of sources, on a disk, in S3 or in Google Cloud Storage. Everything is
encrypted before it leaves the host; the identity file opens it again. Keep a copy of it elsewhere.

Where no flag says otherwise, the repository is taken from HOLDFAST_REPOSITORY or the policy, the identity from
HOLDFAST_IDENTITY or ~/.config/holdfast/identity, the policy from HOLDFAST_POLICY or /etc/holdfast/policy.yaml.

` + exitHelp

const rootExample = `  holdfast init -r /mnt/backup
  holdfast backup -r /mnt/backup --files /etc --name etc
  holdfast snapshots -r /mnt/backup
  holdfast restore -r /mnt/backup etc --to /tmp/etc`

// Groups of commands in the help.
const (
	groupUse    = "use"
	groupTend   = "tend"
	groupConfig = "config"
)

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "holdfast",
		Short:         "Back up and recover hosts that run a stateful application",
		Long:          rootLong,
		Example:       rootExample,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       a.version,
	}
	parent(root)
	root.SetIn(a.stdio.In)
	root.SetOut(a.stdio.Out)
	root.SetErr(a.stdio.Err)
	root.SetVersionTemplate("holdfast {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return hinted{usageError{err}, fmt.Sprintf("`%s --help` lists the flags", cmd.CommandPath())}
	})
	root.AddGroup(
		&cobra.Group{ID: groupUse, Title: "Back up and restore:"},
		&cobra.Group{ID: groupTend, Title: "Look after a repository:"},
		&cobra.Group{ID: groupConfig, Title: "Configuration and help:"},
	)
	root.SetUsageTemplate(root.UsageTemplate() + "{{if .HasParent}}\n" + exitLine + "\n{{end}}")
	root.SetHelpCommandGroupID(groupConfig)
	root.SetCompletionCommandGroupID(groupConfig)
	a.flags.register(root)
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		a.noPolicy = cmd.Flags().Changed("policy") && a.flags.policy == ""
		if a.flags.connections < 0 {
			return usagef("%s: --connections %d: want 0 or more", cmd.CommandPath(), a.flags.connections)
		}
		return refuseEmpty(cmd)
	}
	for _, add := range a.commands() {
		root.AddCommand(add())
	}
	helpers(root)
	return root
}

// refuseEmpty refuses flags that were given an empty value, as by a script whose variable is not set: each would mean
// something else than its user wanted, such as the newest snapshot instead of an old one.
func refuseEmpty(cmd *cobra.Command) error {
	for _, name := range []string{"repository", "identity", "host", "also", "at", "as-of", "until", "tag", "keep-tag", "to", "from", "name", "files", "sqlite", "level", "sample"} {
		f := cmd.Flags().Lookup(name)
		if f == nil || !f.Changed {
			continue
		}
		values := []string{f.Value.String()}
		if s, ok := f.Value.(interface{ GetSlice() []string }); ok {
			values = s.GetSlice()
		}
		if slices.Contains(values, "") {
			return usagef("%s: --%s has an empty value", cmd.CommandPath(), name)
		}
	}
	return nil
}

// helpers makes the commands that come with cobra end with 2 where they are called wrongly.
func helpers(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "completion":
			parent(cmd)
		case "help":
			cmd.Run = nil
			cmd.RunE = func(_ *cobra.Command, args []string) error {
				about, rest, err := root.Find(args)
				if err != nil || about == nil || len(rest) > 0 {
					return hinted{usagef("help: unknown command %q", strings.Join(args, " ")), "`holdfast --help` lists the commands"}
				}
				about.InitDefaultHelpFlag()
				return about.Help()
			}
		}
	}
}

// commands lists all commands in the order of the help.
func (a *app) commands() []func() *cobra.Command {
	return []func() *cobra.Command{
		a.initCommand, a.backupCommand, a.snapshotsCommand, a.lsCommand, a.catCommand, a.diffCommand, a.findCommand,
		a.restoreCommand, a.mountCommand, a.replicateCommand, a.walPushCommand, a.walFetchCommand, a.agentCommand, a.approveCommand,
		a.verifyCommand, a.statusCommand, a.copyCommand, a.repairCommand, a.pruneCommand, a.pinCommand, a.unpinCommand, a.tagCommand,
		a.keyCommand, a.hostCommand,
		a.policyCommand,
		a.versionCommand, a.manCommand,
	}
}

// parent makes cmd one that only holds others: alone it prints its help, with anything unknown it is called wrongly.
func parent(cmd *cobra.Command) {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		err := usagef("%s: unknown command %q", cmd.CommandPath(), args[0])
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return hinted{err, "did you mean " + strings.Join(near, " or ") + "?"}
		}
		return hinted{err, fmt.Sprintf("`%s --help` lists the commands", cmd.CommandPath())}
	}
}

// arguments checks how many arguments a command gets; more than low when high is negative.
func arguments(low, high int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= low && (high < 0 || len(args) <= high) {
			return nil
		}
		if what == "" {
			return usagef("%s: takes no arguments, got %q", cmd.CommandPath(), args[0])
		}
		return usagef("%s: want %s", cmd.CommandPath(), what)
	}
}
