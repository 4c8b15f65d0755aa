package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/pgserver"
	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/shared/postgres"
)

// The names of what recoveries are measured against: a copy of the data directory that has all WAL in pg_wal already.
const (
	toolCopy        = "cp -a"
	stepRecovery    = "point-in-time recovery"
	recoveryPort    = "25932"
	walPerRun       = 4000 // transactions of pgbench, until there is enough WAL
	walDelivery     = 10 * time.Minute
	recoveryPart    = 10.0 / 17 // of the size that full backups are measured with: 1 GB of 1.7 GB
	recoverySegment = postgres.DefaultSegmentSize
)

// recoveries measures how long it takes until a cluster is back at a moment, as far of WAL away from its base as the base is
// large: with Holdfast, and from a copy of the data directory that has all WAL in pg_wal.
func (c *clusterBench) recoveries(ctx context.Context, r *report, own *tool, size int64, rounds int) error {
	if err := c.start(ctx, size); err != nil {
		return err
	}
	p := &pointInTime{clusterBench: c, own: own, plain: filepath.Join(c.dir, "plain"), out: filepath.Join(c.dir, "out")}
	defer func() { _ = p.remove(p.plain, p.out) }() // what stays is removed by the next run
	if err := p.remove(p.plain, p.out); err != nil {
		return err
	}
	wal, err := p.record(ctx, size)
	if err != nil {
		return err
	}
	if err := p.complete(); err != nil {
		return err
	}
	base, err := bytesBelow(filepath.Join(p.plain, "base"))
	if err != nil {
		return err
	}
	r.Notes = append(r.Notes, fmt.Sprintf("%s: %.2f GB of databases and %.2f GB of WAL of pgbench; against it the copy of a data directory that has all of the WAL in pg_wal, "+
		"and a server with the same settings that recovers there; both end with the cluster promoted, stopped and synced, and the rows of pgbench_history were compared",
		stepRecovery, float64(base)/1e9, float64(wal)/1e9))
	for round := range rounds {
		runs := []func(context.Context) (usage, error){p.holdfast, p.copied}
		names := []string{toolHoldfast, toolCopy}
		for i := range runs {
			k := (i + round) % len(runs)
			if err := p.once(ctx, r, names[k], round, runs[k]); err != nil {
				return fmt.Errorf("%s, %s, round %d: %w", stepRecovery, names[k], round, err)
			}
		}
	}
	return nil
}

// pointInTime is a cluster whose base and WAL are in a repository, and beside it.
type pointInTime struct {
	*clusterBench
	own        *tool
	plain, out string
	target     string // the moment, as PostgreSQL and Holdfast both read it
	history    string // of the rows that are there at that moment: see check
}

const historyQuery = "SELECT count(*), sum(delta), max(mtime) FROM pgbench_history"

// record makes the base backups and so much WAL; it returns how much there is before the target.
func (p *pointInTime) record(ctx context.Context, size int64) (wal uint64, err error) {
	for _, statement := range []string{"ALTER SYSTEM SET wal_keep_size='64GB'", "ALTER SYSTEM SET max_wal_size='64GB'", "SELECT pg_reload_conf()", "CHECKPOINT", "SELECT pg_switch_wal()"} {
		if _, err := p.query(ctx, statement); err != nil {
			return 0, err
		}
	}
	d, shipped, err := p.follow(ctx)
	if err != nil {
		return 0, err
	}
	defer d.kill()
	if err := os.Mkdir(p.plain, 0o700); err != nil {
		return 0, err
	}
	if err := p.server.give(p.plain); err != nil {
		return 0, err
	}
	if err := p.server.run(ctx, toolBaseBackup, p.client("-D", p.plain, "-Fp", "-X", "none", "-c", "fast", "--no-sync")...); err != nil {
		return 0, err
	}
	begin, err := p.at(ctx)
	if err != nil {
		return 0, err
	}
	p.log("writing %d MB of WAL", size/1e6)
	for wal < uint64(size) { //nolint:gosec // a size
		if err := p.server.run(ctx, "pgbench", p.client("-n", "-c", "4", "-t", fmt.Sprint(walPerRun/4), "postgres")...); err != nil {
			return 0, err
		}
		now, err := p.at(ctx)
		if err != nil {
			return 0, err
		}
		wal = uint64(now - begin)
	}
	if p.history, err = p.query(ctx, historyQuery); err != nil {
		return 0, err
	}
	if p.target, err = p.query(ctx, "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'"); err != nil {
		return 0, err
	}
	if err := p.server.run(ctx, "pgbench", p.client("-n", "-c", "1", "-t", "10", "postgres")...); err != nil {
		return 0, err
	}
	if _, err := p.query(ctx, "SELECT pg_switch_wal()"); err != nil {
		return 0, err
	}
	end, err := p.at(ctx)
	if err != nil {
		return 0, err
	}
	if err := shipped.reach(ctx, end); err != nil {
		return 0, err
	}
	return wal, d.stop()
}

// at is up to where the server has written WAL.
func (p *pointInTime) at(ctx context.Context) (postgres.LSN, error) {
	text, err := p.query(ctx, "SELECT pg_current_wal_lsn()")
	if err != nil {
		return 0, err
	}
	return postgres.ParseLSN(text)
}

// shipments is how far Holdfast has come.
type shipments struct {
	mu    sync.Mutex
	based bool         // the base backup is in the repository; guarded by mu
	end   postgres.LSN // guarded by mu
}

func (s *shipments) event(_ *daemon, line []byte) {
	var e replicate.Event
	if json.Unmarshal(line, &e) != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.based = s.based || e.Kind == replicate.Based
	if at, err := postgres.ParseLSN(e.LSN); err == nil && at > s.end {
		s.end = at
	}
}

// reach waits until all WAL before an LSN is in the repository.
func (s *shipments) reach(ctx context.Context, end postgres.LSN) error {
	for limit := time.Now().Add(walDelivery); ; {
		s.mu.Lock()
		at := s.end
		s.mu.Unlock()
		switch {
		case at >= end:
			return nil
		case time.Now().After(limit):
			return fmt.Errorf("wait for WAL up to %s: it came to %s within %s", end, at, walDelivery)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// follow begins to follow the cluster, which begins with a base backup.
func (p *pointInTime) follow(ctx context.Context) (*daemon, *shipments, error) {
	at := place{home: p.home(p.own)}
	if err := os.RemoveAll(at.home); err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(at.home, 0o700); err != nil {
		return nil, nil, err
	}
	for _, setup := range p.own.prepare(at) {
		if _, err := setup.run(ctx); err != nil {
			return nil, nil, err
		}
	}
	s := &shipments{}
	d, err := startDaemon(p.own.env(at), s.event, p.own.path, "replicate", "--postgres", p.connection(), "--name", clusterSource, "--interval", "1s", "--json")
	if err != nil {
		return nil, nil, err
	}
	close(d.gone)
	err = d.await(func() (bool, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.based, nil
	})
	return d, s, err
}

// complete stops the server and puts its WAL into the copy.
func (p *pointInTime) complete() error {
	if err := p.stop(context.Background()); err != nil {
		return err
	}
	label, err := os.ReadFile(filepath.Join(p.plain, "backup_label"))
	if err != nil {
		return err
	}
	l, err := postgres.ParseLabel(label)
	if err != nil {
		return err
	}
	first := postgres.SegmentName(1, l.Start.SegmentStart(recoverySegment), recoverySegment)
	all, err := os.ReadDir(filepath.Join(p.data, "pg_wal"))
	if err != nil {
		return err
	}
	for _, e := range all {
		if len(e.Name()) != len(first) || e.Name() < first {
			continue
		}
		from, to := filepath.Join(p.data, "pg_wal", e.Name()), filepath.Join(p.plain, "pg_wal", e.Name())
		if err := errors.Join(os.Rename(from, to), p.server.give(to)); err != nil {
			return err
		}
	}
	settings := slices.Concat(pgserver.Alone(), []pgserver.Setting{
		{Name: "port", Value: recoveryPort},
		{Name: "unix_socket_directories", Value: p.server.socket},
		{Name: "hot_standby", Value: "off"},
		{Name: "recovery_target_time", Value: p.target},
		{Name: "recovery_target_action", Value: "promote"},
	})
	var text strings.Builder
	for _, s := range settings {
		fmt.Fprintf(&text, "%s = '%s'\n", s.Name, s.Value)
	}
	// A standby without a restore_command reads pg_wal, and nothing else.
	signal := filepath.Join(p.plain, "standby.signal")
	return errors.Join(appendTo(filepath.Join(p.plain, "postgresql.auto.conf"), text.String()), os.WriteFile(signal, nil, 0o600), p.server.give(signal))
}

// holdfast restores from the repository.
func (p *pointInTime) holdfast(ctx context.Context) (usage, error) {
	i := call(p.own.path, "restore", "-q", clusterSource, "--at", p.target, "--to", p.out)
	i.env = p.own.env(place{home: p.home(p.own)})
	return p.launcher.run(ctx, i)
}

// copied copies the data directory and lets a server recover there.
func (p *pointInTime) copied(ctx context.Context) (usage, error) {
	const script = `set -e
cp -a "$1" "$2"
$5 "$3/postgres" -D "$2" >"$2.log" 2>&1 &
until "$3/pg_isready" -q -h "$4" -p ` + recoveryPort + `; do kill -0 $!; sleep 0.02; done
kill -INT $!
wait $!
sync -f "$2"`
	return p.launcher.run(ctx, call("sh", "-c", script, "sh", p.plain, p.out, p.server.bin, p.server.socket, p.server.as()))
}

// once measures one recovery, and compares what came out of it.
func (p *pointInTime) once(ctx context.Context, r *report, name string, round int, do func(context.Context) (usage, error)) error {
	for _, dir := range []string{p.plain, filepath.Join(p.home(p.own), "repository")} {
		if err := warm(dir); err != nil {
			return err
		}
	}
	unix.Sync()
	if err := pause(ctx, settle); err != nil {
		return err
	}
	u, err := do(ctx)
	if err != nil {
		return err
	}
	r.Runs = append(r.Runs, run{Step: stepRecovery, Tool: name, Round: round, usage: u})
	p.log("%-26s %-13s round %2d: %7.2f s, CPU %6.2f s, %4.0f MB peak", stepRecovery, name, round+1, u.Wall, u.CPU, float64(u.RSS)/mega)
	return errors.Join(p.check(ctx), p.remove(p.out))
}

// check starts the recovered cluster and looks whether it is of the moment.
func (p *pointInTime) check(ctx context.Context) error {
	options := "-c port=" + recoveryPort + " -c listen_addresses= -c unix_socket_directories=" + p.server.socket
	if err := p.server.run(ctx, "pg_ctl", "-D", p.out, "-w", "-t", "120", "-l", filepath.Join(p.server.socket, "recovered.log"), "-o", options, "start"); err != nil {
		return err
	}
	var got strings.Builder
	cmd := p.server.command(ctx, "psql", "-h", p.server.socket, "-p", recoveryPort, "-U", "postgres", "-X", "-q", "-A", "-t", "-d", "postgres", "-c", historyQuery)
	cmd.Stdout = &got
	err := cmd.Run()
	err = errors.Join(err, p.server.run(context.WithoutCancel(ctx), "pg_ctl", "-D", p.out, "-w", "-t", "120", "-m", "fast", "stop"))
	if text := strings.TrimSpace(got.String()); err == nil && text != p.history {
		err = fmt.Errorf("the cluster has other rows than at %s: %s, not %s", p.target, text, p.history)
	}
	return err
}

// give makes a file or directory the server's.
func (s *server) give(path string) error {
	if s.credential == nil {
		return nil
	}
	return os.Chown(path, int(s.credential.Uid), int(s.credential.Gid))
}

// as are the words before a command that make it run as the server's user.
func (s *server) as() string {
	if s.credential == nil {
		return ""
	}
	return "setpriv --clear-groups --reuid=" + strconv.FormatUint(uint64(s.credential.Uid), 10) + " --regid=" + strconv.FormatUint(uint64(s.credential.Gid), 10)
}

// rates lists how fast clusters were backed up, and how long recoveries took beside that of a copy.
func (r *report) rates() string {
	gb := float64(r.Corpus.Bytes) / 1e9
	if gb == 0 {
		return "" // of a run that did not note it
	}
	t := newTable("full", "MB/s", "CPU s/GB", "with the server's part", "wall ratio to holdfast [95 % interval]")
	ours := r.values(stepClusterFull, toolHoldfast, wall())
	for _, tool := range r.Tools {
		v := r.values(stepClusterFull, tool, wall())
		if len(v) == 0 || len(ours) == 0 {
			continue
		}
		own, servers := median(r.values(stepClusterFull, tool, cpu())), median(r.values(stepClusterFull+serversPart, tool, cpu()))
		t.row(tool, number(1000*gb/median(v)), number(own/gb), number((own+servers)/gb), ratioOf(v, ours, r.Seed).String())
	}
	out := t.b.String()
	if least := r.values(stepRecovery, toolCopy, wall()); len(least) > 0 {
		q := ratioOf(r.values(stepRecovery, toolHoldfast, wall()), least, r.Seed)
		out += fmt.Sprintf("\nA recovery with Holdfast takes %s times what it takes from a copy that has all WAL in pg_wal.\n", q)
	}
	return out
}
