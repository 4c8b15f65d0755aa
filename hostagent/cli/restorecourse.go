package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/hook"
	"github.com/btcdecoded/holdfast/hostagent/proof"
	"github.com/btcdecoded/holdfast/hostagent/restorer/steps"
	"github.com/btcdecoded/holdfast/hostagent/state"
	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// What restores of databases have in common, of whatever kind they are.

// errProof says that a restored database did not pass its checks.
var errProof = errors.New("the restored database does not pass")

// The words of --checks.
const (
	checkIntegrity   = "integrity"
	checkQuick       = "quick"
	checkForeignKeys = "foreign-keys"
	checkAmcheck     = "amcheck"
	checkQueries     = "queries"
	checkNone        = "none"
)

// checkWords refuses words of --checks that are not known, or none beside others.
func checkWords(words []string, known ...string) error {
	for _, word := range words {
		switch {
		case word == checkNone && len(words) > 1:
			return usagef("restore: --checks none goes with no other")
		case word != checkNone && !slices.Contains(known, word):
			return usagef("restore: --checks %s: want some of %s, or none", word, strings.Join(known, ", "))
		}
	}
	return nil
}

// application is who uses a source that is restored in place, as the policy of this host says; p may be nil. Its hooks are told
// what is restored: a variable of their environment.
func (a *app) application(src snapshot.Source, p *policy.Source, variable string) (steps.Application, error) {
	own, err := a.host()
	if err != nil {
		return steps.Application{}, err
	}
	if p == nil || own != src.Host {
		a.warn("no policy of this host has the source: nothing is stopped, started or asked")
		return steps.Application{}, nil
	}
	env := []string{"HOLDFAST_HOST=" + src.Host, "HOLDFAST_SOURCE=" + src.Name, variable}
	runs := func(hooks []policy.Hook, run func(context.Context, []policy.Hook, []string, io.Writer) error) func(context.Context) error {
		if len(hooks) == 0 {
			return nil
		}
		return func(ctx context.Context) error { return run(ctx, hooks, env, a.stdio.Err) }
	}
	return steps.Application{
		Stop: runs(p.Hooks.Stop, hook.Run), Start: runs(p.Hooks.Start, hook.Run), Healthy: runs(p.Hooks.Health, hook.Until),
	}, nil
}

// passes is nil if a proof was made and passed.
func passes(r *proof.Report, err error) error {
	if err == nil && !r.Passed() {
		err = fmt.Errorf("%w: %s", errProof, strings.Join(r.Problems(), "; "))
	}
	return err
}

// measured notes how long a restore took, for the objective of its time. Where it failed that says something of the backup only
// in the steps that are named.
func (a *app) measured(repo *repository.Repository, src snapshot.Source, began time.Time, bytes uint64, err error, about ...string) {
	done := compliance.Restore{Time: began.UTC(), Took: a.now().Sub(began)}
	if err != nil {
		var f *steps.Failure
		if !errors.As(err, &f) || !slices.Contains(about, f.Step) {
			return
		}
		done.Failed = f.Step + " failed" // what a query or a table is called is nobody's business
	} else {
		done.Bytes = int64(min(bytes, 1<<62)) //nolint:gosec // bounded
	}
	if err := state.Open(a.statePath(), repo.ID()).SetLastRestore(src, done); err != nil {
		a.warn("%v", err)
	}
}

// details prints what a proof found, for the person at the terminal.
func (a *app) details(r *proof.Report, err error) {
	if !errors.Is(err, errProof) || r == nil {
		return
	}
	for _, s := range r.Steps {
		for _, d := range s.Details {
			fmt.Fprintf(a.stdio.Err, "%s: %s\n", s.Name, printable(d))
		}
	}
}

// failure finds in an error which step ended a restore; nil: none did. What is left to do afterwards is told also where the
// restore was interrupted.
func failure(err error) (*steps.Failure, error) {
	var f *steps.Failure
	if !errors.As(err, &f) {
		return nil, err
	}
	if f.Start != nil || f.Back != nil {
		err = &afterError{err}
	}
	return f, err
}

// Hints that restores of databases have in common.
const hintMoved = "look at what is there, take away what does not belong there, and do it again"

func hintGood(source string, until time.Time) string {
	return fmt.Sprintf("the log is good up to there: `holdfast restore %s --at %s`; `holdfast verify %s` names what is damaged", source, exact(until), source)
}

func hintProof(source string) string {
	return fmt.Sprintf("`holdfast snapshots %s --points` shows other moments; --checks none restores without looking", source)
}

// stepLine is a step of a restore, or a check, for programs.
type stepLine struct {
	Step    string  `json:"step"`
	Seconds float64 `json:"seconds"`
}

func stepLines(list []steps.Step) []stepLine {
	out := []stepLine{}
	for _, s := range list {
		out = append(out, stepLine{s.Name, s.Took.Seconds()})
	}
	return out
}

// checkLines are the checks of a proof; r may be nil.
func checkLines(r *proof.Report) []stepLine {
	out := []stepLine{}
	if r != nil {
		for _, s := range r.Steps {
			out = append(out, stepLine{s.Name, s.Took.Seconds()})
		}
	}
	return out
}

// stepText are steps in a line.
func stepText(list []steps.Step) string {
	var out []string
	for _, s := range list {
		out = append(out, s.Name+" "+duration(s.Took))
	}
	return strings.Join(out, ", ")
}

// checkText are the checks of a proof in a line.
func checkText(r *proof.Report) string {
	var out []string
	for _, s := range r.Steps {
		out = append(out, fmt.Sprintf("%s (%s)", s.Name, duration(s.Took)))
	}
	return strings.Join(out, ", ")
}

func secondsOf(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// warnings tells what an earlier restore to the place had left, if it is not empty, and what a restore warns of.
func (a *app) warnings(settled string, list []string) {
	if settled != "" {
		a.warn("%s", settled)
	}
	for _, w := range list {
		a.warn("%s", w)
	}
}
