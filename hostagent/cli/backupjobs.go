package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// policyJobs are the named sources of this host in the policy, or all. Sources of kinds that can't be backed up yet
// are errors of their own and do not keep the others from running.
func (a *app) policyJobs(f backupFlags, args []string) (jobs []job, refused []error, p *policy.Policy, err error) {
	if p, err = a.loadPolicy(); err != nil {
		return nil, nil, nil, err
	}
	if p == nil {
		return nil, nil, nil, hinted{usagef("backup: nothing to back up"), "name directories with --files DIR --name NAME, or a policy with --policy"}
	}
	host, err := a.host()
	if err != nil {
		return nil, nil, nil, err
	}
	if a.unnamed != nil {
		refused = append(refused, a.unnamed)
	}
	names := databasesOf(p.Hosts[host], host, args)
	if len(args) == 0 {
		p.Each(func(h, name string, _ *policy.Source) {
			if h == host {
				names = append(names, name)
			}
		})
		if len(names) == 0 && (p.Hosts[host] == nil || len(p.Hosts[host].Globs) == 0) {
			return nil, nil, nil, hinted{
				fmt.Errorf("the policy has no sources for host %s; it has hosts %s", host, strings.Join(sortedHosts(p), ", ")),
				"say which host this is with --host",
			}
		}
	}
	for _, name := range names {
		name = strings.TrimPrefix(name, host+"/")
		if g := globOf(p.Hosts[host], name); g != nil {
			refused = append(refused, fmt.Errorf("back up %s/%s: no database fits %s", host, name, g.Glob))
			continue
		}
		s, err := p.Lookup(host, name)
		if err != nil {
			return nil, nil, nil, usageError{err}
		}
		j, err := a.policyJob(f, p, snapshot.Source{Host: host, Name: name}, s)
		var impossible *refusedError
		switch {
		case errors.As(err, &impossible):
			refused = append(refused, impossible.error)
		case err != nil:
			return nil, nil, nil, err
		default:
			jobs = append(jobs, j)
		}
	}
	return jobs, refused, p, nil
}

// refusedError says that one source can not be backed up, which keeps no other from it.
type refusedError struct{ error }

// policyJob is the job of a source of the policy. Errors: *refusedError.
func (a *app) policyJob(f backupFlags, p *policy.Policy, src snapshot.Source, s *policy.Source) (job, error) {
	host := p.Hosts[src.Host]
	j := job{source: src, hooks: s.Hooks}
	switch {
	case s.SQLite != nil && s.SQLite.Path != "":
		j.sqlite, j.follow = databaseOptions(s.SQLite), a.beside[src.Name]
	case s.SQLite != nil:
		return j, &refusedError{hinted{
			fmt.Errorf("back up %s: there is no such database now", src),
			fmt.Sprintf("source %s stands for the databases that %s names; its snapshots stay restorable", s.SQLite.Of, host.Globs[s.SQLite.Of].SQLite.Glob),
		}}
	case s.Postgres != nil && s.Postgres.Mode == policy.Physical:
		j.cluster = clusterOptions(s.Postgres)
	case s.Postgres != nil:
		j.dump = dumpOptions(s.Postgres)
	case s.Files == nil:
		return j, &refusedError{fmt.Errorf("back up %s: sources of kind %s can not be backed up by this version", src, s.Kind())}
	default:
		options, patterns, err := f.options(s.Files)
		if errors.Is(err, errOwnPlace) {
			return j, &refusedError{err}
		}
		if err != nil {
			return j, fmt.Errorf("source %s: %w", src, err)
		}
		options.Owned = host.Owned()
		j.options, j.left = options, leftOut(&options, patterns)
	}
	return j, nil
}
