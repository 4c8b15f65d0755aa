package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The names of what the mode -postgres measures.
const (
	toolBaseBackup = "pg_basebackup"
	toolBackRest   = "pgbackrest"

	stepClusterFull = "full"
	stepClusterNext = "after 12,000 transactions"
	serversPart     = ", the server's part" // of a step: what the server spent for it

	clusterSource = "cluster"
	clusterPort   = "25931"
	transactions  = 12000
	bytesPerScale = 15_500_000 // of pgbench's tables and index
)

// clusters measures base backups of a cluster, of which three quarters are pgbench's tables and one quarter is text, and
// recoveries of a smaller one.
func (b *bench) clusters(ctx context.Context) (*report, error) {
	own, err := b.holdfast(ctx)
	if err != nil {
		return nil, err
	}
	if err := b.tidy(); err != nil {
		return nil, err
	}
	rounds := 3
	if b.rounds > 0 {
		rounds = b.rounds
	}
	size := b.sizeOr(1700e6)
	var r *report
	err = b.withCluster(ctx, func(c *clusterBench) error {
		r, err = c.backups(ctx, own, size, rounds)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = b.withCluster(ctx, func(c *clusterBench) error {
		return c.recoveries(ctx, r, own, int64(recoveryPart*float64(size)), rounds)
	})
	if err != nil {
		return nil, err
	}
	r.Tools = append(r.Tools, toolCopy)
	return r, b.tidy()
}

// withCluster gives do a place for a cluster, and removes it.
func (b *bench) withCluster(ctx context.Context, do func(*clusterBench) error) error {
	c, err := newClusterBench(b)
	if err != nil {
		return err
	}
	return errors.Join(do(c), c.close(context.WithoutCancel(ctx)))
}

// backups measures base backups.
func (c *clusterBench) backups(ctx context.Context, own *tool, size int64, rounds int) (*report, error) {
	tools, err := c.tools(ctx, own)
	if err != nil {
		return nil, err
	}
	if err := c.start(ctx, size); err != nil {
		return nil, err
	}
	r := c.newReport("postgres", tools)
	r.Versions["PostgreSQL"] = c.version
	text, err := c.query(ctx, "SELECT sum(pg_database_size(oid)) FROM pg_database")
	if err != nil {
		return nil, err
	}
	if r.Corpus.Bytes, err = strconv.ParseInt(text, 10, 64); err != nil {
		return nil, err
	}
	r.Notes = append(r.Notes,
		fmt.Sprintf("PostgreSQL %s with checksums of pages and %s bytes of databases: pgbench's tables and, a quarter of it, text; the server runs on the same CPUs", c.version, text),
		"CPU is that of the tool; what the server's process spent for it has rows of its own (pgbackrest reads the files by itself)",
		fmt.Sprintf("the second step follows %d transactions of pgbench and a checkpoint; holdfast adds changed pages, pgbackrest changed files", transactions))
	for round := range rounds {
		for i := range tools {
			if err := c.once(ctx, r, tools[(i+round)%len(tools)], stepClusterFull, round); err != nil {
				return nil, err
			}
		}
		if err := c.load(ctx); err != nil {
			return nil, err
		}
		for i := range tools {
			if err := c.once(ctx, r, tools[(i+round)%len(tools)], stepClusterNext, round); err != nil {
				return nil, err
			}
		}
		if err := os.RemoveAll(filepath.Join(c.dir, "work")); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// clusterBench is a server and what is measured on it.
type clusterBench struct {
	*bench
	server  *server
	data    string
	version string
	runs    bool
}

func newClusterBench(b *bench) (*clusterBench, error) {
	c := &clusterBench{bench: b, data: filepath.Join(b.dir, "postgres")}
	if err := b.remove(c.data); err != nil {
		return nil, err
	}
	socket, err := os.MkdirTemp("", "pg") // a socket's path must be short
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(c.data, 0o700); err != nil {
		return nil, err
	}
	c.server, err = newServer(c.data, socket)
	return c, err
}

func (c *clusterBench) close(ctx context.Context) error {
	return errors.Join(c.stop(ctx), os.RemoveAll(c.server.socket), c.remove(c.data))
}

func (c *clusterBench) stop(ctx context.Context) error {
	if !c.runs {
		return nil
	}
	c.runs = false
	return c.server.run(ctx, "pg_ctl", "-D", c.data, "-w", "-t", "120", "-m", "fast", "stop")
}

// connection is how Holdfast reaches the server.
func (c *clusterBench) connection() string {
	return fmt.Sprintf("host=%s port=%s user=postgres", c.server.socket, clusterPort)
}

// start makes the cluster and fills it.
func (c *clusterBench) start(ctx context.Context, size int64) error {
	s := c.server
	if err := s.run(ctx, "initdb", "-D", c.data, "-k", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"); err != nil {
		return err
	}
	config := "listen_addresses=''\nport=" + clusterPort + "\nmax_wal_size=4GB\nshared_buffers=128MB\nautovacuum=off\nsynchronous_commit=off\nunix_socket_directories='" + s.socket + "'\n"
	if err := appendTo(filepath.Join(c.data, "postgresql.conf"), config); err != nil {
		return err
	}
	if err := s.run(ctx, "pg_ctl", "-D", c.data, "-w", "-t", "120", "-l", filepath.Join(s.socket, "log"), "start"); err != nil {
		return err
	}
	c.runs = true
	version, err := c.query(ctx, "SHOW server_version")
	if err != nil {
		return err
	}
	c.version, _, _ = strings.Cut(version, " ")
	c.log("filling a cluster of %d MB", size/1e6)
	if err := s.run(ctx, "pgbench", c.client("-i", "-q", "-s", fmt.Sprint(max(1, size*3/4/bytesPerScale)), "postgres")...); err != nil {
		return err
	}
	return c.text(ctx, size/4)
}

// text adds a table of about size bytes of text.
func (c *clusterBench) text(ctx context.Context, size int64) error {
	t, err := readText(ctx)
	if err != nil {
		return err
	}
	if _, err := c.query(ctx, "CREATE TABLE document (id bigint, body text)"); err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(c.seed, 9)) //nolint:gosec // rows
	err = feed(c.psql(ctx, "COPY document FROM STDIN"), func(w io.Writer) error {
		for id, n := 1, int64(0); n < size*94/100; id++ {
			body := t.row(random)
			n += int64(len(body)) + 32
			if _, err := fmt.Fprintf(w, "%d\t%s\n", id, body); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, statement := range []string{"VACUUM (FREEZE) document", "CHECKPOINT"} {
		if _, err := c.query(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// client are the arguments by which PostgreSQL's programs reach the server.
func (c *clusterBench) client(args ...string) []string {
	return append([]string{"-h", c.server.socket, "-p", clusterPort, "-U", "postgres"}, args...)
}

func (c *clusterBench) psql(ctx context.Context, statement string) *exec.Cmd {
	return c.server.command(ctx, "psql", c.client("-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-c", statement)...)
}

func (c *clusterBench) query(ctx context.Context, statement string) (string, error) {
	cmd := c.psql(ctx, statement)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", statement, err, problems.Bytes())
	}
	return strings.TrimSpace(string(out)), nil
}

// load changes pages.
func (c *clusterBench) load(ctx context.Context) error {
	c.log("%d transactions", transactions)
	const clients = 4
	if err := c.server.run(ctx, "pgbench", c.client("-n", "-c", fmt.Sprint(clients), "-t", fmt.Sprint(transactions/clients), "postgres")...); err != nil {
		return err
	}
	_, err := c.query(ctx, "CHECKPOINT")
	return err
}

// once measures one backup, and what the server spent for it.
func (c *clusterBench) once(ctx context.Context, r *report, t *tool, step string, round int) error {
	p := place{home: c.home(t)}
	i, ok := t.at(step, p)
	if !ok {
		return nil
	}
	if step == stepClusterFull {
		if err := os.MkdirAll(p.home, 0o700); err != nil {
			return err
		}
		for _, setup := range t.prepare(p) {
			if _, err := setup.run(ctx); err != nil {
				return err
			}
		}
	}
	before, err := bytesBelow(p.repository())
	if err != nil {
		return err
	}
	unix.Sync()
	if err := pause(ctx, settle); err != nil {
		return err
	}
	spent, err := c.spent()
	if err != nil {
		return err
	}
	u, err := c.launcher.run(ctx, i)
	if err != nil {
		return fmt.Errorf("%s of %s, round %d: %w", step, t.name, round, err)
	}
	if err := pause(ctx, settle/2); err != nil { // the server's process ends a little later
		return err
	}
	now, err := c.spent()
	if err != nil {
		return err
	}
	after, err := bytesBelow(p.repository())
	if err != nil {
		return err
	}
	r.Runs = append(r.Runs,
		run{Step: step, Tool: t.name, Round: round, usage: u, Repository: after, Added: after - before},
		run{Step: step + serversPart, Tool: t.name, Round: round, usage: usage{Wall: u.Wall, CPU: now - spent}})
	c.log("%-26s %-13s round %2d: %7.2f s, CPU %6.2f s and %5.2f s of the server, %4.0f MB peak, added %7.1f MB",
		step, t.name, round+1, u.Wall, u.CPU, now-spent, float64(u.RSS)/mega, float64(after-before)/mega)
	return nil
}

// spent is the CPU time of all processes of the server that have ended, in seconds.
func (c *clusterBench) spent() (float64, error) {
	b, err := os.ReadFile(filepath.Join(c.data, "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	pid, _, _ := strings.Cut(string(b), "\n")
	stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat")) //nolint:gosec // of a process of ours
	if err != nil {
		return 0, err
	}
	// proc(5): cutime and cstime are fields 16 and 17, in ticks; the name before them may have anything in it.
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 15 {
		return 0, fmt.Errorf("read /proc/%s/stat: %d fields", pid, len(fields))
	}
	const ticks = 100
	user, err1 := strconv.ParseFloat(fields[13], 64)
	system, err2 := strconv.ParseFloat(fields[14], 64)
	return (user + system) / ticks, errors.Join(err1, err2)
}

// tools are those that are measured; pgbackrest, if it is installed.
func (c *clusterBench) tools(ctx context.Context, own *tool) ([]*tool, error) {
	backup := func(place) invocation {
		return call(own.path, "backup", "-q", "--postgres", c.connection(), "--name", clusterSource)
	}
	holdfast := *own
	holdfast.how, holdfast.step = "defaults", map[string]func(place) invocation{stepClusterFull: backup, stepClusterNext: backup}
	all := []*tool{&holdfast}
	base := filepath.Join(c.server.bin, toolBaseBackup)
	version, err := call(base, "--version").run(ctx)
	if err != nil {
		return nil, err
	}
	all = append(all, &tool{
		name: toolBaseBackup, path: base, version: strings.Fields(version)[2], how: "-Ft -X fetch --compress=client-zstd:1",
		env:   func(place) []string { return nil },
		setup: func(p place) []invocation { return []invocation{call("mkdir", p.repository())} },
		step: map[string]func(place) invocation{stepClusterFull: func(p place) invocation {
			return call(append([]string{base}, c.client("-D", p.below("repository/1"), "-Ft", "-X", "fetch", "-c", "fast", "--compress=client-zstd:1")...)...)
		}},
	})
	path, err := exec.LookPath(toolBackRest)
	if err != nil {
		c.log("pgbackrest is not installed: it is left out")
		return all, nil //nolint:nilerr // a peer that is not there is no error
	}
	if version, err = call(path, "version").run(ctx); err != nil {
		return nil, err
	}
	return append(all, c.backRest(path, strings.Fields(version)[1])), nil
}

func (c *clusterBench) backRest(path, version string) *tool {
	backrest := func(p place, command string, args ...string) invocation {
		return call(append([]string{
			path, "--config=/dev/null", "--stanza=" + clusterSource, "--repo1-path=" + p.repository(), "--pg1-path=" + c.data,
			"--pg1-socket-path=" + c.server.socket, "--pg1-port=" + clusterPort, "--pg1-user=postgres", "--lock-path=" + p.below("lock"),
			"--log-level-file=off",
		}, append(args, command)...)...)
	}
	backup := func(kind string) func(place) invocation {
		return func(p place) invocation {
			return backrest(p, "backup", "--type="+kind, "--compress-type=zst", "--compress-level=1", "--process-max=2", "--start-fast", "--no-archive-check", "--no-resume",
				"--repo1-retention-full=9", "--repo1-cipher-type=none")
		}
	}
	return &tool{
		name: toolBackRest, path: path, version: version, how: "--compress-type=zst --compress-level=1 --process-max=2, not encrypted, without WAL",
		env: func(p place) []string { return []string{"HOME=" + p.home} },
		setup: func(p place) []invocation {
			return []invocation{call("mkdir", p.repository(), p.below("lock")), backrest(p, "stanza-create")}
		},
		step: map[string]func(place) invocation{stepClusterFull: backup("full"), stepClusterNext: backup("incr")},
	}
}
