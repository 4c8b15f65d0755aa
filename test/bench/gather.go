package main

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// gather copies parts of the tree at src to dst: whole directories, in a random order, until they have quota bytes. What
// can't be read, and single files of more than a quarter of the quota, stay behind. It returns what of the quota is left.
func gather(dst, src string, quota int64, random *rand.Rand) (left int64, err error) {
	dirs, err := directories(src)
	if err != nil {
		return 0, err
	}
	random.Shuffle(len(dirs), func(i, j int) { dirs[i], dirs[j] = dirs[j], dirs[i] })
	left = quota
	for _, dir := range dirs {
		if left <= 0 {
			return 0, nil
		}
		n, err := gatherDir(filepath.Join(dst, dir), filepath.Join(src, dir), left, quota/4)
		if err != nil {
			return 0, err
		}
		left -= n
	}
	return max(0, left), nil
}

// directories lists those below src, sorted, relative to it. The download cache of Go modules holds what is unpacked
// beside it, so it is left out.
func directories(src string) ([]string, error) {
	var dirs []string
	err := filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrPermission) {
			return nil
		}
		if err != nil || !d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		if rel == "cache" && strings.HasSuffix(src, "mod") {
			return fs.SkipDir
		}
		dirs = append(dirs, rel)
		return nil
	})
	return dirs, err
}

// gatherDir copies the files and links of one directory, without what is below it, up to a limit.
func gatherDir(dst, src string, limit, largest int64) (copied int64, err error) {
	entries, err := os.ReadDir(src)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if err := os.MkdirAll(dst, 0o755); err != nil { //nolint:gosec // a copy of what everybody may read
		return 0, err
	}
	for _, e := range entries {
		if copied >= limit {
			break
		}
		from, to := filepath.Join(src, e.Name()), filepath.Join(dst, e.Name())
		switch {
		case e.Type() == fs.ModeSymlink:
			target, err := os.Readlink(from)
			if err != nil {
				return copied, err
			}
			if err := os.Symlink(target, to); err != nil && !errors.Is(err, fs.ErrExist) {
				return copied, err
			}
		case e.Type().IsRegular() && e.Name() != "CACHEDIR.TAG": // some tools leave out what such a file marks
			n, err := copyFile(to, from, largest)
			if err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) {
				return copied, err
			}
			copied += n
		}
	}
	return copied, nil
}

// copyFile copies content, permissions and mtime of a regular file that has at most limit bytes.
func copyFile(dst, src string, limit int64) (n int64, err error) {
	in, err := os.Open(src)
	if err != nil {
		return 0, err
	}
	defer func() { _ = in.Close() }()
	info, err := in.Stat()
	if err != nil || info.Size() > limit {
		return 0, err
	}
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	n, err = io.Copy(out, in)
	err = errors.Join(err, out.Chmod(info.Mode().Perm()), out.Close())
	if err == nil {
		err = os.Chtimes(dst, info.ModTime(), info.ModTime())
	}
	return n, err
}

// topOf is the first name of path below tree.
func topOf(tree, path string) string {
	rel, err := filepath.Rel(tree, path)
	if err != nil {
		return ""
	}
	top, _, _ := strings.Cut(rel, string(filepath.Separator))
	return top
}
