package file

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// window is the number of names of one directory that are kept at a time. A larger directory is read several times.
const window = 1 << 16

// List implements [objstore.Store].
func (s *Store) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	if err := objstore.CheckPrefix(prefix); err != nil {
		return err
	}
	w := walker{ctx: ctx, fn: fn, window: s.window}
	return s.walk(w, prefix)
}

// Prefixes implements [objstore.Lister].
func (s *Store) Prefixes(ctx context.Context, prefix string, fn func(name string) error) error {
	if err := objstore.CheckLevel(prefix); err != nil {
		return err
	}
	var names []string
	if err := s.walk(walker{ctx: ctx, level: &names, window: s.window}, prefix); err != nil {
		return err
	}
	return objstore.EachName(names, fn)
}

// walk opens the directory that prefix names and hands it to w.
func (s *Store) walk(w walker, prefix string) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	root, err := s.open(false)
	if err != nil {
		return s.listed(prefix, err)
	}
	dir, base := "", prefix
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		dir, base = prefix[:i+1], prefix[i+1:]
	}
	top, err := root.OpenRoot(filepath.FromSlash("./" + dir))
	if err != nil {
		return s.listed(prefix, err)
	}
	defer func() { _ = top.Close() }()
	return s.listed(prefix, w.dir(top, dir, base))
}

// listed makes what is not there an empty list, leaves errors of fn as they are and explains all others.
func (s *Store) listed(prefix string, err error) error {
	var call callError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &call):
		return call.error
	case vanished(err):
		return nil
	}
	return s.wrap("list", prefix, err)
}

// callError is an error of the caller's function.
type callError struct{ error }

func (e callError) Unwrap() error { return e.error }

// walker visits objects in the order of their keys.
type walker struct {
	ctx    context.Context
	fn     func(objstore.Info) error // nil for Prefixes
	level  *[]string                 // for Prefixes: names of directories that hold objects
	window int
}

var errFound = errors.New("an object was found")

// dir visits what is below one directory. at is its key with a slash at the end, or empty; only names that begin with
// base count.
func (w walker) dir(root *os.Root, at, base string) error {
	for after := ""; ; {
		names, more, err := w.names(root, at, base, after)
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := w.ctx.Err(); err != nil {
				return err
			}
			if err := w.visit(root, at, name); err != nil && !vanished(err) {
				return err
			}
		}
		if !more {
			return nil
		}
		after = names[len(names)-1]
	}
}

// vanished says that what was named is there no more: another process deletes.
func vanished(err error) bool {
	var call callError
	if errors.As(err, &call) {
		return false
	}
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}

func (w walker) visit(root *os.Root, at, name string) error {
	dir, isDir := strings.CutSuffix(name, "/")
	if !isDir {
		if w.fn == nil {
			return nil
		}
		i, err := root.Lstat(name)
		if err != nil || !i.Mode().IsRegular() {
			return err
		}
		if err := w.fn(objstore.Info{Key: at + name, Size: i.Size(), Modified: i.ModTime()}); err != nil {
			return callError{err}
		}
		return nil
	}
	sub, err := root.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Close() }()
	if w.level == nil {
		return w.dir(sub, at+name, "")
	}
	// Does anything live below? The first object answers.
	probe := walker{ctx: w.ctx, window: w.window, fn: func(objstore.Info) error { return errFound }}
	err = probe.dir(sub, at+name, "")
	if errors.Is(err, errFound) {
		*w.level = append(*w.level, dir)
		return nil
	}
	return err
}

// names returns the next names of the directory in order, those of directories with a slash, because the keys below
// them have it ("a-b/x" before "a/x"), and whether there are more. What can be no key of ours is passed over: lost+found,
// files of a network file system, our own unfinished ones.
func (w walker) names(root *os.Root, at, base, after string) ([]string, bool, error) {
	d, err := root.Open(".")
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = d.Close() }()
	var names []string
	more := false
	for {
		entries, err := d.ReadDir(1024)
		for _, e := range entries {
			name := e.Name()
			if !strings.HasPrefix(name, base) || !objstore.ValidComponent(name) || at == "" && name == unfinished {
				continue
			}
			switch {
			case e.IsDir():
				name += "/"
			case !e.Type().IsRegular():
				continue
			}
			if name > after {
				names = append(names, name)
			}
		}
		if len(names) >= 2*w.window {
			slices.Sort(names)
			names, more = slices.Clip(names[:w.window]), true
		}
		if err == io.EOF { //nolint:errorlint // ReadDir promises EOF itself
			break
		}
		if err != nil {
			return nil, false, err
		}
	}
	slices.Sort(names)
	if len(names) > w.window {
		names, more = names[:w.window], true
	}
	return names, more, nil
}
