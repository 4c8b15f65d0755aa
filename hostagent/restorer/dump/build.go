package dump

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/pgbin"
	"github.com/btcdecoded/holdfast/hostagent/scratch"
	"github.com/btcdecoded/holdfast/shared/postgres/logical"
)

// build makes a database of the name out of a dump.
func (r *run) build(ctx context.Context, d Dump, name, here string) error {
	fail := func(step string, err error) error {
		e := failed(step, d.Name, err)
		e.hint = hintOf(err)
		return e
	}
	program, err := pgbin.Client(ctx, r.Bin, "pg_restore", d.Reader)
	if err != nil {
		return fail(StepPrepare, err)
	}
	w := &work{run: r, dump: d, program: program.Path, name: name}
	defer w.close()
	if r.Jobs > 1 {
		if err := r.course.Do(StepFetch, func() error { return w.fetch(ctx) }); err != nil {
			return fail(StepFetch, err)
		}
	}
	err = r.course.Do(StepRestore, func() error {
		if err := r.create(ctx, &d.Database, name); err != nil {
			return err
		}
		if r.Select != nil {
			if err := w.choose(ctx, r.Select); err != nil {
				return err
			}
		}
		if err := w.restore(ctx); err != nil {
			return err
		}
		return r.properties(ctx, &d.Database, name, here)
	})
	if err != nil {
		return fail(StepRestore, err)
	}
	if err := r.course.Do(StepAnalyze, func() error { return r.analyze(ctx, name) }); err != nil {
		return fail(StepAnalyze, err)
	}
	r.result.Bytes += d.Bytes
	return nil
}

// properties gives a new database what the dump does not have.
func (r *run) properties(ctx context.Context, d *logical.Database, name, here string) error {
	if r.NoOwner {
		return nil
	}
	statements, left := d.Alter(name, func(role string) bool { return r.roles[role] })
	for _, l := range left {
		r.warn("database %s: left out, because there is no such role: %s", here, l)
	}
	for _, s := range statements {
		if err := execute(ctx, r.conn, s); err != nil {
			if ctx.Err() != nil {
				return err
			}
			r.warn("database %s: %s: %v", here, s, err)
		}
	}
	return nil
}

// analyze collects what the planner needs: a new database has no statistics, and its first queries would be slow.
func (r *run) analyze(ctx context.Context, name string) error {
	conn, err := r.Connect(ctx, name)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return execute(ctx, conn, "ANALYZE")
}

// prove judges a new database.
func (r *run) prove(ctx context.Context, database, here string) error {
	if r.Prove == nil {
		return nil
	}
	if err := r.course.Do(StepProve, func() error { return r.Prove(ctx, database, here) }); err != nil {
		return failed(StepProve, database, err)
	}
	return nil
}

// work is one run of pg_restore.
type work struct {
	*run
	dump    Dump
	program string
	name    string   // of the database
	file    *os.File // the dump, without a name; nil: it is piped
	list    *os.File // what of it is wanted, without a name; nil: all
}

func (w *work) close() {
	for _, f := range []*os.File{w.file, w.list} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// dumpPattern is of files that dumps pass through.
const dumpPattern = ".holdfast-dump-*"

// fetch gets the dump into a file: pg_restore reads one with several processes, a pipe with one. Where there is no room for
// it, it is piped.
func (w *work) fetch(ctx context.Context) error {
	dir := w.Temp
	if dir == "" {
		dir = os.TempDir()
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err == nil {
		if free := st.Bavail * uint64(st.Bsize); free < w.dump.Bytes+w.dump.Bytes/10 { //nolint:unconvert,gosec // not an int64 everywhere; no size is negative
			w.Note(fmt.Sprintf("%s has no room for the dump: it is restored by one process instead of %d", dir, w.Jobs))
			return nil
		}
	}
	f, err := scratch.File(dir, dumpPattern)
	if err != nil {
		return fmt.Errorf("keep the dump: %w", err)
	}
	w.file = f
	if err := w.dump.Write(ctx, &counted{w: f, progress: w.Progress}); err != nil {
		return err
	}
	if end, err := f.Seek(0, io.SeekCurrent); err != nil || w.dump.Bytes > 0 && uint64(end) != w.dump.Bytes { //nolint:gosec // no offset is negative
		return fmt.Errorf("the dump has %d bytes instead of %d: %w", end, w.dump.Bytes, errors.Join(ErrSize, err))
	}
	return nil
}

// counted tells progress what passes.
type counted struct {
	w        io.Writer
	progress Progress
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	if c.progress != nil {
		c.progress.Add(0, uint64(n), uint64(n)) //nolint:gosec // never negative
	}
	return n, err
}

// restore runs pg_restore.
func (w *work) restore(ctx context.Context) error {
	args := []string{"--exit-on-error", "--no-password", "--dbname=" + pgbin.Conninfo(w.Connection, w.name)}
	if w.NoOwner {
		args = append(args, "--no-owner", "--no-acl")
	}
	if w.apart {
		args = append(args, "--no-subscriptions", "--no-publications")
	}
	cmd, messages := pgbin.Command(ctx, w.program, args...)
	pass := func(f *os.File) string {
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		return "/proc/self/fd/" + strconv.Itoa(2+len(cmd.ExtraFiles))
	}
	if w.list != nil {
		cmd.Args = append(cmd.Args, "--use-list="+pass(w.list))
	}
	if w.file == nil {
		return w.pipe(ctx, cmd, messages)
	}
	cmd.Args = append(cmd.Args, "--jobs="+strconv.Itoa(w.Jobs), pass(w.file))
	if err := cmd.Run(); err != nil {
		return cause(ctx, pgbin.Failed(cmd, messages, err))
	}
	return nil
}

// pipe lets pg_restore read the dump as it comes.
func (w *work) pipe(ctx context.Context, cmd *exec.Cmd, messages *pgbin.Messages) error {
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	sent := &counted{w: in, progress: w.Progress}
	werr := w.dump.Write(ctx, sent)
	if werr != nil && !errors.Is(werr, unix.EPIPE) {
		// What has come so far must not pass for the whole.
		_ = cmd.Cancel()
	}
	_ = in.Close()
	err = cmd.Wait()
	switch {
	case werr != nil && !errors.Is(werr, unix.EPIPE):
		return cause(ctx, werr)
	case err != nil:
		return cause(ctx, pgbin.Failed(cmd, messages, err))
	case w.list != nil:
		return nil // it had all that was asked for, and read no further: the pipe may have been closed before the dump's end
	}
	return werr
}

// cause is the end of the context, where that is why something failed.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// hintOf is what a user can do about what pg_restore or the server says.
func hintOf(err error) string {
	text := err.Error()
	switch {
	case strings.Contains(text, "role ") && strings.Contains(text, "does not exist"):
		return "--globals makes the roles that are missing; --no-owner gives everything to who restores"
	case strings.Contains(text, "must be able to SET ROLE"), strings.Contains(text, "must be member of role"):
		return "restore with --service NAME as a superuser, or with --no-owner"
	case strings.Contains(text, "permission denied to create extension"):
		return "restore with --service NAME as a superuser"
	case strings.Contains(text, "extension") && strings.Contains(text, "is not available"):
		return "install the extension's package for this server"
	case strings.Contains(text, "locale name"), strings.Contains(text, "could not open collator"):
		return "this server's host lacks the locale in which the database sorted its text: install it there (locale-gen, or the package of the language), then restart the server"
	case strings.Contains(text, "unsupported version") && strings.Contains(text, "file header"):
		return "a newer pg_restore is needed; the policy's bin says where it is"
	}
	return ""
}
