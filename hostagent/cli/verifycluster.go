package cli

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/btcdecoded/holdfast/hostagent/pgbin"
	"github.com/btcdecoded/holdfast/hostagent/pgserver"
	"github.com/btcdecoded/holdfast/hostagent/proof"
	pgproof "github.com/btcdecoded/holdfast/hostagent/proof/postgres"
	"github.com/btcdecoded/holdfast/hostagent/restorer/postgres"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// verifyCluster tries a restore of a cluster: a real server recovers on a scratch directory, and is looked at. Its error says
// that there is no verdict.
func (a *app) verifyCluster(ctx context.Context, repo *repository.Repository, id snapshot.ID, scratch string) (*restoredSnapshot, error) {
	source, err := a.policySource(id.Source)
	if err != nil {
		return nil, err
	}
	began := a.now()
	all, err := a.readMoments(ctx, repo, id.Source)
	if err != nil {
		return nil, err
	}
	want := clusterWant{target: postgres.Target{Kind: postgres.Latest}, sequence: id.Sequence, alone: id.Sequence != 0}
	m, err := all.chooseCluster(ctx, want)
	if m != nil && errors.As(err, new(*lostError)) {
		return a.fallsShort(m.moment, began, err), nil
	}
	if err != nil {
		return nil, err
	}
	meter := a.meter()
	o := postgres.Options{Target: want.target, Progress: meter, Phase: meter.Phase, Now: a.now, Began: phases(meter), Temp: a.tempPath()}
	a.serverOptions(&o, "", source)
	if o.Fetch, err = fetchCommand(); err != nil {
		return nil, err
	}
	if err := a.passable(scratch); err != nil {
		return nil, err
	}
	var report *proof.Report
	o.Prove = func(ctx context.Context, s *pgserver.Server) (err error) {
		checks := a.drillChecks(ctx, s, source, m.base)
		checks.Began = meter.Phase
		report, err = a.proveCluster(ctx, s, checks, source)
		return err
	}
	var got *postgres.Result
	err = meter.Run("verify "+id.Source.Name, func() (err error) {
		got, err = postgres.Scratch(ctx, scratch, func(ctx context.Context) (*postgres.Source, error) { return m.open(ctx, a) }, o)
		return err
	})
	r := a.tried(m.base, began)
	switch {
	case err == nil:
		r.tookCluster(got, m)
	case ctx.Err() != nil || !rottenCluster(err):
		switch {
		case errors.Is(err, postgres.ErrPreload):
			err = hinted{err, hintPreload}
		case errors.Is(err, postgres.ErrLibrary):
			err = hinted{err, hintLibrary}
		}
		return nil, err
	default:
		r.Problems = append(r.Problems, cause(err))
	}
	r.found(report)
	if report != nil {
		for _, n := range report.Notes {
			a.warn("%s", n)
		}
	}
	r.Pass = len(r.Problems) == 0
	return r, nil
}

// policySource is the source in the policy; nil: it is not known there.
func (a *app) policySource(src snapshot.Source) (*policy.Source, error) {
	p, err := a.loadPolicy()
	if err != nil || p == nil {
		return nil, err
	}
	source, err := p.Lookup(src.Host, src.Name)
	if err != nil {
		return nil, nil //nolint:nilerr // its queries are not known
	}
	return source, nil
}

// drillChecks are what a restored cluster must pass by the policy; p may be nil.
func (a *app) drillChecks(_ context.Context, s *pgserver.Server, p *policy.Source, base *repository.Stored) pgproof.Options {
	o := pgproof.Options{Amcheck: true}
	if p == nil || p.Postgres == nil {
		return o
	}
	o.Checks = p.Checks
	if p.Postgres.Amcheck != nil {
		o.Amcheck = *p.Postgres.Amcheck
	}
	if !p.Postgres.DumpCheck {
		return o
	}
	o.Dump = func(ctx context.Context, database string) error {
		major, err := majorOf(base.Postgres.Version)
		if err != nil {
			return err
		}
		program, err := pgbin.Client(ctx, p.Postgres.Bin, "pg_dump", major)
		if err != nil {
			return err
		}
		cmd, messages := pgbin.Command(ctx, program.Path, "-f", "/dev/null", "-d", pgbin.Conninfo(s.Conninfo(), database))
		if err := cmd.Run(); err != nil {
			return pgbin.Failed(cmd, messages, err)
		}
		return nil
	}
	return o
}

// passable lets the user whose server runs in the scratch directory go through the directories of this program above it.
// They keep what they have to themselves: nobody may list them.
func (a *app) passable(scratch string) error {
	return pgserver.Passable(scratch, filepath.Clean(a.statePath()))
}

const (
	hintPreload = "the policy's `preload` names what every restore and drill loads"
	hintLibrary = "install the package of the extension for the cluster's major version, or take the library out of the policy's `preload`"
)

// rottenCluster reports whether an error is a verdict on what the repository holds. That this host lacks something is none.
func rottenCluster(err error) bool {
	if errors.Is(err, postgres.ErrPreload) {
		return false
	}
	var damage *repository.DamageError
	var hole *log.HoleError
	var gap *postgres.HoleError
	return errors.As(err, &damage) || errors.As(err, &hole) || errors.As(err, &gap) || errors.Is(err, snapshot.ErrFormat) ||
		errors.Is(err, postgres.ErrShort) || errors.Is(err, postgres.ErrBase) || errors.Is(err, postgres.ErrIncomplete) ||
		errors.Is(err, postgres.ErrBranch) || errors.Is(err, errNoCluster) || errors.Is(err, errMissing)
}

func (r *restoredSnapshot) tookCluster(got *postgres.Result, m *clusterMoment) {
	r.Reached, r.Bytes, r.WAL = m.chosen.Reached.UTC(), got.Bytes, got.WAL
	r.steps(got.Steps, postgres.StepProve)
}
