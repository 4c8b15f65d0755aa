package cli

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	pgsource "github.com/btcdecoded/holdfast/hostagent/source/postgres"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// clusterResult is how a cluster was captured.
type clusterResult struct {
	System      string `json:"system"` // identifier
	Version     string `json:"version"`
	Timeline    uint32 `json:"timeline"`
	StartLSN    string `json:"start_lsn"`
	StopLSN     string `json:"stop_lsn"`
	Standby     bool   `json:"standby"`
	Checksums   bool   `json:"checksums"`     // the cluster has checksums of pages
	Damaged     uint64 `json:"damaged_pages"` // whose checksum is wrong
	Tablespaces int    `json:"tablespaces"`
	Unlogged    int    `json:"unlogged_relations"` // tables and indexes that restore empty
	WALBytes    uint64 `json:"wal_bytes"`
}

// walTail is who follows the WAL of a cluster into the repository.
type walTail interface {
	// Proof is how the server is known whose WAL is followed; nil: nothing tells.
	Proof() *pgsource.Proof
	// Place is where a snapshot that has WAL from start to end stands in the log; nil: the log is of another system or
	// timeline, or does not go on from there.
	Place(ctx context.Context, system uint64, timeline uint32, start, end postgres.LSN) (*snapshot.LogPlace, error)
}

// clusterJob is the cluster that the flags name.
func (f backupFlags) clusterJob(src snapshot.Source) ([]job, error) {
	if f.selects() {
		return nil, usagef("backup: patterns and limits are for --files; a cluster is captured whole")
	}
	if hasPassword(f.cluster) {
		return nil, hinted{
			usagef("backup: --postgres: a password does not belong into an argument, which other users of this host can see"),
			"it stands in .pgpass, or in the service of pg_service.conf",
		}
	}
	if _, err := pgsource.Config(f.cluster); err != nil {
		return nil, err
	}
	return []job{{source: src, cluster: &pgsource.Options{Connection: f.cluster}}}, nil
}

// hasPassword reports whether a connection string has a password in it.
func hasPassword(connection string) bool {
	if u, err := url.Parse(connection); err == nil && u.User != nil {
		if _, ok := u.User.Password(); ok {
			return true
		}
	}
	return strings.Contains(connection, "=") && strings.Contains(strings.ToLower(connection), "password")
}

func clusterOptions(p *policy.Postgres) *pgsource.Options {
	return &pgsource.Options{Connection: p.Service}
}

// captureCluster captures a cluster into the session and commits it.
func (a *app) captureCluster(ctx context.Context, session *repository.Session, j job, tags []string) (*backupResult, error) {
	meter := a.meter()
	options := *j.cluster
	options.Label = "holdfast " + j.source.String()
	options.Temp = a.statePath()
	options.Note = func(text string) {
		meter.Clear()
		a.note("%s", text)
	}
	options.Total = func(bytes uint64) { meter.Total(0, bytes) }
	if j.followWAL != nil {
		options.Log = j.followWAL.Proof()
	}
	return a.captureWith(ctx, session, j, tags, meter, func() (*seen, error) {
		r, err := pgsource.Capture(ctx, options, session, meter)
		if err != nil {
			return nil, err
		}
		s := &seen{roots: r.Roots, counts: r.Counts, problems: r.Problems, cluster: clusterResultOf(r), until: r.Until, postgres: &snapshot.Postgres{
			System: r.System, Version: r.Version.Text, Timeline: r.Timeline, SegmentSize: r.SegmentSize, Start: r.Start, Stop: r.Stop,
		}}
		if ahead := r.Until.Sub(a.now()); ahead > repository.ClockTolerance/2 {
			meter.Clear()
			a.warn("the clock of the server, or of its primary, is %s ahead of this host's: a restore by --at may have to refuse this snapshot; set the clocks", duration(ahead))
		}
		switch {
		case r.Apart:
			meter.Clear()
			a.warn("the server has other WAL than the log of %s, or less: it was put back to an older state, or is another one; the snapshot stands for itself, outside of the log", j.source)
		case j.followWAL != nil:
			if s.log, err = j.followWAL.Place(ctx, r.System, r.Timeline, r.Start, r.WALEnd); err != nil {
				return nil, err
			}
		}
		return s, nil
	})
}

func clusterResultOf(r *pgsource.Result) *clusterResult {
	return &clusterResult{
		System: fmt.Sprint(r.System), Version: r.Version.String(), Timeline: r.Timeline, StartLSN: r.Start.String(), StopLSN: r.Stop.String(),
		Standby: r.Standby, Checksums: r.Checksums, Damaged: r.Damaged, Tablespaces: r.Tablespaces, Unlogged: r.Unlogged, WALBytes: r.WALBytes,
	}
}

// writeCluster tells how a cluster was captured.
func (r backupResult) writeCluster(w io.Writer) {
	c := r.Cluster
	from := ""
	if c.Standby {
		from = ", a standby"
	}
	fmt.Fprintf(w, "  PostgreSQL %s%s, %s, WAL from %s to %s on timeline %d; read %s, added %s in %s\n", c.Version, from, size(r.Counts.Bytes),
		c.StartLSN, c.StopLSN, c.Timeline, size(r.Counts.ReadBytes), size(r.Counts.AddedBytes), duration(time.Duration(r.Seconds*float64(time.Second))))
	if !c.Checksums {
		fmt.Fprintln(w, "  the cluster has no checksums of pages: damaged ones can not be noticed")
	}
	if c.Unlogged > 0 {
		fmt.Fprintf(w, "  %s restored empty\n", count(uint64(c.Unlogged), "unlogged relation is", "unlogged relations are"))
	}
}

// partialWord says what is wrong with a snapshot that is partial.
func (r backupResult) partialWord() string {
	if r.Cluster != nil {
		return "saved, with " + count(r.Counts.Errors, "DAMAGED PAGE", "DAMAGED PAGES")
	}
	return "saved, PARTIAL: " + count(r.Counts.Errors, "thing", "things") + " left out"
}
