package dump

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/pgbin"
	"github.com/btcdecoded/holdfast/hostagent/scratch"
)

// Selection says of which tables the rows are wanted. All definitions are restored, so that what a table needs of types and
// functions is there; tables that are not wanted are empty.
type Selection struct {
	Tables  []string // "table" in any schema, or "schema.table"; * and ? stand for parts of names
	Schemas []string // all tables of these
}

// ErrNoTable says that nothing in the dump fits a selection.
var ErrNoTable = errors.New("the dump has no such table")

// Check refuses what is no pattern.
func (s *Selection) Check() error {
	for _, p := range slices.Concat(s.Tables, s.Schemas) {
		if _, err := path.Match(p, ""); err != nil || p == "" {
			return fmt.Errorf("table or schema %q: not a name, and no pattern", p)
		}
	}
	return nil
}

// skipped are the kinds of entries that need rows of tables that may not be wanted, or act on the world outside.
var skipped = []string{"FK CONSTRAINT", "MATERIALIZED VIEW DATA", "SUBSCRIPTION", "PUBLICATION", "PUBLICATION TABLE", "EVENT TRIGGER", "BLOB", "BLOBS", "LARGE OBJECT"}

// choose makes the list of what of the dump is wanted.
func (w *work) choose(ctx context.Context, s *Selection) error {
	var toc bytes.Buffer
	cmd, messages := pgbin.Command(ctx, w.program, "--list")
	cmd.Stdout = &toc
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	werr := w.dump.Write(ctx, in)
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		return cause(ctx, pgbin.Failed(cmd, messages, err))
	}
	if werr != nil && !errors.Is(werr, unix.EPIPE) {
		return cause(ctx, werr)
	}
	list, missing := s.filter(toc.String())
	if len(missing) > 0 {
		return fmt.Errorf("%w as %s", ErrNoTable, strings.Join(missing, ", "))
	}
	if w.list, err = scratch.File(w.Temp, dumpPattern); err != nil {
		return fmt.Errorf("keep the list: %w", err)
	}
	if _, err := w.list.WriteString(list); err != nil {
		return err
	}
	_, err = w.list.Seek(0, 0)
	return err
}

// filter keeps of a table of contents, as pg_restore --list prints it, what is wanted. missing are the patterns that nothing
// fits.
func (s *Selection) filter(toc string) (list string, missing []string) {
	var b strings.Builder
	met := map[string]bool{}
	for line := range strings.Lines(toc) {
		kind, schema, table, ok := entryOf(strings.TrimRight(line, "\n"))
		switch {
		case !ok:
			continue
		case slices.Contains(skipped, kind):
			continue
		case kind == "TABLE DATA" && !s.wants(schema, table, met):
			continue
		}
		b.WriteString(line)
	}
	for _, p := range slices.Concat(s.Tables, s.Schemas) {
		if !met[p] {
			missing = append(missing, p)
		}
	}
	return b.String(), missing
}

// wants reports whether the rows of a table are wanted, and notes which patterns fit.
func (s *Selection) wants(schema, table string, met map[string]bool) bool {
	wanted := false
	fits := func(pattern, name string) {
		if ok, err := path.Match(pattern, name); err == nil && ok {
			wanted, met[pattern] = true, true
		}
	}
	for _, p := range s.Tables {
		fits(p, table)
		if whole := schema + "." + table; strings.Contains(p, ".") && wholePattern(p, schema, table) {
			fits(p, whole)
		}
	}
	for _, p := range s.Schemas {
		if ok, err := path.Match(p, schema); err == nil && ok {
			wanted, met[p] = true, true
		}
	}
	return wanted
}

// wholePattern reports whether a pattern with a dot fits both parts of a name, each by its own.
func wholePattern(pattern, schema, table string) bool {
	for i := range len(pattern) {
		if pattern[i] != '.' {
			continue
		}
		one, err1 := path.Match(pattern[:i], schema)
		two, err2 := path.Match(pattern[i+1:], table)
		if err1 == nil && err2 == nil && one && two {
			return true
		}
	}
	return false
}

// kinds are those of which the words matter here; all others need only be told from them.
var kinds = []string{
	"TABLE DATA", "FK CONSTRAINT", "MATERIALIZED VIEW DATA", "SUBSCRIPTION TABLE", "SUBSCRIPTION", "PUBLICATION TABLE", "PUBLICATION",
	"EVENT TRIGGER", "BLOBS", "BLOB", "LARGE OBJECT",
}

// entryOf reads a line such as "3214; 0 16402 TABLE DATA public maintainers postgres". Names that have spaces can't be told
// apart: the schema ends at the first, the owner begins after the last.
func entryOf(line string) (kind, schema, table string, ok bool) {
	id, rest, found := strings.Cut(line, "; ")
	if !found || id == "" || strings.Trim(id, "0123456789") != "" {
		return "", "", "", false
	}
	fields := strings.SplitN(rest, " ", 3)
	if len(fields) < 3 {
		return "", "", "", false
	}
	for _, k := range kinds {
		names, is := strings.CutPrefix(fields[2], k+" ")
		if !is {
			continue
		}
		schema, names, _ = strings.Cut(names, " ")
		if i := strings.LastIndexByte(names, ' '); i >= 0 {
			names = names[:i]
		}
		return k, schema, names, true
	}
	return "", "", "", true
}
