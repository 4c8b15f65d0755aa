package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// text is a pool of lines of real text, the machine's Go sources, of which rows are made.
type text struct{ lines [][]byte }

// textPool is how much text the pool has.
const textPool = 32 << 20

func readText(ctx context.Context) (*text, error) {
	root, _, err := goTrees(ctx)
	if err != nil {
		return nil, err
	}
	t, total := &text{}, 0
	err = filepath.WalkDir(filepath.Join(root, "src"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || filepath.Ext(path) != ".go" {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for line := range bytes.Lines(b) {
			if len(line) > 8 && len(line) < 200 && !bytes.ContainsAny(line, "\x00\\") && isText(line) {
				t.lines = append(t.lines, bytes.TrimSpace(line))
			}
		}
		if total += len(b); total > textPool {
			return fs.SkipAll
		}
		return nil
	})
	if err == nil && len(t.lines) == 0 {
		err = fmt.Errorf("read text from %s: no Go sources there", root)
	}
	return t, err
}

func isText(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c >= 0x80 || c < ' ' && c != '\t' && c != '\n' })
}

// row is a run of lines of 200 to 900 bytes, in one line.
func (t *text) row(random *rand.Rand) string {
	want := 200 + random.IntN(600)
	var b strings.Builder
	for at := random.IntN(len(t.lines)); b.Len() < want; at++ {
		b.Write(bytes.ReplaceAll(t.lines[at%len(t.lines)], []byte{'\t'}, []byte{' '}))
		b.WriteByte(' ')
	}
	return b.String()
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// feed runs a command with what write gives on its standard input.
func feed(cmd *exec.Cmd, write func(io.Writer) error) error {
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	w := bufio.NewWriterSize(in, 1<<20)
	err = errors.Join(write(w), w.Flush(), in.Close())
	if werr := cmd.Wait(); werr != nil {
		return fmt.Errorf("run %s: %w\n%s", cmd.Args[0], errors.Join(werr, err), said.Bytes())
	}
	return err
}

// makeSQLite makes a database of about size bytes with the command-line client, as a foreign program would.
func makeSQLite(ctx context.Context, path string, size int64, random *rand.Rand) error {
	t, err := readText(ctx)
	if err != nil {
		return err
	}
	err = feed(exec.CommandContext(ctx, "sqlite3", "-batch", path), func(w io.Writer) error { return t.sql(w, size, random) })
	if err != nil {
		return err
	}
	return os.Chtimes(path, epoch(), epoch())
}

// sql writes what makes the database.
func (t *text) sql(w io.Writer, size int64, random *rand.Rand) error {
	fmt.Fprintln(w, "PRAGMA page_size=4096; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; BEGIN;")
	fmt.Fprintln(w, "CREATE TABLE document (id INTEGER PRIMARY KEY, author INTEGER, changed INTEGER, body TEXT);")
	for id, n := 1, int64(0); n < size*94/100; id++ {
		body := t.row(random)
		n += int64(len(body)) + 24
		if _, err := fmt.Fprintf(w, "INSERT INTO document VALUES(%d,%d,%d,%s);\n", id, random.IntN(5000),
			epoch().Unix()+int64(id), quote(body)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w, "CREATE INDEX by_author ON document(author); COMMIT;")
	return err
}

// updateSQLite changes rows until about the given part of the pages has changed: each update finds its row in a page of
// its own, most of the time, and leaves its length as it is.
func updateSQLite(ctx context.Context, path string, part float64, random *rand.Rand) error {
	out, err := invocation{args: []string{"sqlite3", "-batch", path, "SELECT max(id), (SELECT page_count FROM pragma_page_count) FROM document"}}.run(ctx)
	if err != nil {
		return err
	}
	var rows, pages int
	if _, err := fmt.Sscanf(strings.ReplaceAll(out, "|", " "), "%d %d", &rows, &pages); err != nil {
		return fmt.Errorf("count rows of %s: %w", path, err)
	}
	updates := max(1, int(part*float64(pages)))
	return feed(exec.CommandContext(ctx, "sqlite3", "-batch", path), func(w io.Writer) error {
		fmt.Fprintln(w, "BEGIN;")
		for range updates {
			word := strconv.FormatUint(random.Uint64()|1<<63, 36)[:12]
			if _, err := fmt.Fprintf(w, "UPDATE document SET changed=changed+86400, body=%s||substr(body,13) WHERE id=%d;\n",
				quote(word), 1+random.IntN(rows)); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintln(w, "COMMIT;")
		return err
	})
}

// makePostgreSQL makes a data directory with about size bytes of rows, and stops the server. PostgreSQL refuses to run
// as root; then it runs as the user postgres or nobody, who owns the directory.
func makePostgreSQL(ctx context.Context, dir string, size int64, random *rand.Rand) error {
	t, err := readText(ctx)
	if err != nil {
		return err
	}
	socket, err := os.MkdirTemp("", "pg") // a socket's path must be short
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(socket) }()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	s, err := newServer(dir, socket)
	if err != nil {
		return err
	}
	if err := s.run(ctx, "initdb", "-D", dir, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"); err != nil {
		return err
	}
	config := "listen_addresses=''\nwal_level=minimal\nmax_wal_senders=0\nfsync=off\nmax_wal_size=64MB\nmin_wal_size=32MB\n" +
		"autovacuum=off\nunix_socket_directories='" + socket + "'\n"
	if err := appendTo(filepath.Join(dir, "postgresql.conf"), config); err != nil {
		return err
	}
	if err := s.run(ctx, "pg_ctl", "-D", dir, "-w", "-t", "120", "-l", filepath.Join(socket, "log"), "start"); err != nil {
		return err
	}
	err = s.load(ctx, t, size, random)
	return errors.Join(err, s.run(context.WithoutCancel(ctx), "pg_ctl", "-D", dir, "-w", "-t", "120", "-m", "fast", "stop"))
}

// server is how PostgreSQL's programs are started.
type server struct {
	bin, socket string
	credential  *syscall.Credential
}

func newServer(dir, socket string) (*server, error) {
	bins, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return nil, err
	}
	if len(bins) == 0 {
		return nil, errors.New("find PostgreSQL below /usr/lib/postgresql: not there; install Debian's postgresql-15 or a newer one")
	}
	s := &server{bin: bins[len(bins)-1], socket: socket}
	if os.Geteuid() != 0 {
		return s, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return nil, err
		}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	s.credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return s, errors.Join(os.Chown(dir, int(uid), int(gid)), os.Chown(socket, int(uid), int(gid)))
}

func (s *server) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, program), args...)
	cmd.Dir, cmd.Env = s.socket, environment([]string{"HOME=" + s.socket})
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.credential}
	return cmd
}

func (s *server) run(ctx context.Context, program string, args ...string) error {
	// To a file: the server that pg_ctl starts would keep a pipe open.
	log, err := os.OpenFile(filepath.Join(s.socket, program+".log"), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := s.command(ctx, program, args...)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = log, log, time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s: %w\n%s", program, err, tail(log.Name()))
	}
	return nil
}

func (s *server) load(ctx context.Context, t *text, size int64, random *rand.Rand) error {
	sql := func(statement string) *exec.Cmd {
		return s.command(ctx, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", s.socket, "-U", "postgres", "-d", "postgres", "-c", statement)
	}
	none := func(io.Writer) error { return nil }
	if err := feed(sql("CREATE TABLE document (id bigint PRIMARY KEY, author int, changed bigint, body text)"), none); err != nil {
		return err
	}
	err := feed(sql("COPY document FROM STDIN"), func(w io.Writer) error {
		for id, n := 1, int64(0); n < size*88/100; id++ {
			body := t.row(random)
			n += int64(len(body)) + 48
			if _, err := fmt.Fprintf(w, "%d\t%d\t%d\t%s\n", id, random.IntN(5000), epoch().Unix()+int64(id), body); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return errors.Join(feed(sql("VACUUM (FREEZE, ANALYZE) document"), none), feed(sql("CHECKPOINT"), none))
}

func appendTo(path, s string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(s)
	return errors.Join(err, f.Close())
}
