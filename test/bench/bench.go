package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/test/trees"
)

const (
	settle = 3 * time.Second // after changes of files: times of changes that are too near to a backup cost a second look
	// For up to 6 minutes after a file was deleted, ext4 does not use its inode again (recently_deleted in
	// fs/ext4/ialloc.c), and looks at each of them whenever it needs one: a restore shortly after a large tree was removed
	// takes several times as long.
	forget     = 365 * time.Second
	shortStep  = 5.0       // seconds; steps below it have more rounds
	perProcess = time.Hour // nothing takes that long
)

// bench is one run of this program.
type bench struct {
	options
	root     string // the checkout
	launcher *launcher
	log      func(format string, args ...any)
}

// stage runs tools step by step from saved states.
type stage struct {
	*bench
	tools  []*tool
	tree   string
	report *report

	restores bool // a round of one step goes on to a restore
}

// removed is a file whose time is when a large tree was last removed.
func (b *bench) removed() string { return filepath.Join(b.dir, "removed") }

// remove removes large trees.
func (b *bench) remove(dirs ...string) error {
	var all error
	for _, d := range dirs {
		if _, err := os.Lstat(d); err != nil {
			continue
		}
		all = errors.Join(all, trees.Remove(d), os.WriteFile(b.removed(), nil, 0o600))
	}
	return all
}

// makeRoom removes what was restored in earlier rounds, if the disk would not hold another round.
func (s *stage) makeRoom() error {
	var f unix.Statfs_t
	if err := unix.Statfs(s.dir, &f); err != nil {
		return err
	}
	n, err := sumBelow(s.tree, func(i fs.FileInfo) int64 {
		if st, ok := i.Sys().(*syscall.Stat_t); ok {
			return st.Blocks * 512
		}
		return i.Size()
	})
	if err != nil {
		return err
	}
	need := n * int64(max(len(s.tools), 3)+1) * 3 / 2   // restored trees, and repositories
	if free := int64(f.Bavail) * f.Bsize; free > need { //nolint:unconvert // the types differ between architectures
		return nil
	}
	return s.remove(filepath.Join(s.dir, "out"))
}

func (b *bench) home(t *tool) string { return filepath.Join(b.dir, "work", t.name) }
func (b *bench) saved(t *tool, step string) string {
	return filepath.Join(b.dir, "saved", t.name, step)
}

// place is the same in all rounds: some tools remember paths.
func (s *stage) place(t *tool, round int) place {
	return place{home: s.home(t), tree: s.tree, out: filepath.Join(s.dir, "out", fmt.Sprintf("%s-%d", t.name, round))}
}

// base tells from which saved state a step starts; "" is an empty repository.
func base(step string) string {
	switch step {
	case stepFull:
		return ""
	case stepUnchanged, stepDay2:
		return stepFull
	default:
		return stepDay2
	}
}

// step measures one step of all tools, interleaved: each round runs every tool once, beginning with another one.
func (s *stage) step(ctx context.Context, step string, rounds, shortRounds int) error {
	for round := 0; round < rounds; round++ {
		if err := s.prepareRound(ctx, step); err != nil {
			return err
		}
		for i := range s.tools {
			t := s.tools[(i+round)%len(s.tools)]
			if err := s.once(ctx, t, step, round); err != nil {
				return err
			}
		}
		if round == rounds-1 && rounds < shortRounds && s.short(step) {
			rounds = shortRounds
		}
	}
	return nil
}

// short reports whether a tool that does the whole work takes less than shortStep.
func (s *stage) short(step string) bool {
	return slices.ContainsFunc(s.tools, func(t *tool) bool {
		v := s.report.values(step, t.name, wall())
		return t.name != toolFloor && len(v) > 0 && median(v) < shortStep
	})
}

// prepareRound removes what the last round left, copies the saved state of each tool, reads the tree into the page cache and
// waits until all is on disk, so that nothing of it falls into what is measured.
func (s *stage) prepareRound(ctx context.Context, step string) error {
	if err := trees.Remove(filepath.Join(s.dir, "work")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.makeRoom(); err != nil {
		return err
	}
	for _, d := range []string{"work", "out"} {
		if err := os.MkdirAll(filepath.Join(s.dir, d), 0o700); err != nil {
			return err
		}
	}
	for _, t := range s.tools {
		if _, ok := t.step[step]; !ok {
			continue
		}
		if err := s.fresh(ctx, t, base(step)); err != nil {
			return err
		}
	}
	if err := warm(s.tree); err != nil {
		return err
	}
	unix.Sync()
	rest := settle
	if i, err := os.Stat(s.removed()); err == nil && fileSystem(s.dir) != "tmpfs" && (s.restores || step == stepRestore) && (!s.trial() || s.publish) {
		rest = max(rest, time.Until(i.ModTime().Add(forget)))
		s.log("resting for %v", rest.Round(time.Second))
	}
	return pause(ctx, rest)
}

// fresh gives a tool its home: an empty repository, or a copy of a saved state.
func (s *stage) fresh(ctx context.Context, t *tool, state string) error {
	home := s.home(t)
	from := s.saved(t, state)
	if _, err := os.Stat(from); state != "" && err == nil {
		_, err := call("cp", "-a", from, home).run(ctx)
		return err
	}
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	for _, i := range t.prepare(s.place(t, 0)) {
		if _, err := i.run(ctx); err != nil {
			return err
		}
	}
	return nil
}

// once measures one run.
func (s *stage) once(ctx context.Context, t *tool, step string, round int) error {
	p := s.place(t, round)
	i, ok := t.at(step, p)
	if !ok {
		return nil
	}
	before, err := bytesBelow(p.repository())
	if err != nil {
		return err
	}
	unix.Sync() // what the tool before it wrote is not this one's work
	ctx, cancel := context.WithTimeout(ctx, perProcess)
	defer cancel()
	u, err := s.launcher.run(ctx, i)
	if err != nil {
		return fmt.Errorf("%s of %s, round %d: %w", step, t.name, round, err)
	}
	after, err := bytesBelow(p.repository())
	if err != nil {
		return err
	}
	s.report.Runs = append(s.report.Runs, run{Step: step, Tool: t.name, Round: round, usage: u, Repository: after, Added: after - before})
	s.log("%-10s %-9s round %2d: %7.2f s, CPU %7.2f s, %5.0f MB peak, repository %7.1f MB (%+.1f)",
		step, t.name, round+1, u.Wall, u.CPU, float64(u.RSS)/mega, float64(after)/mega, float64(after-before)/mega)
	if round > 0 {
		return nil
	}
	if step == stepRestore {
		return s.check(t, p)
	}
	return s.save(ctx, t, step)
}

// save keeps a tool's state after the first round of a step, if other steps start from it.
func (s *stage) save(ctx context.Context, t *tool, step string) error {
	if step != stepFull && step != stepDay2 || t.name == toolFloor {
		return nil
	}
	to := s.saved(t, step)
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	_, err := call("cp", "-a", s.home(t), to).run(ctx)
	return err
}

// check compares a restored tree with the original: Holdfast's in everything that a file system knows; of the peers',
// content, types, permissions, and the times of files, because not all of them promise more.
func (s *stage) check(t *tool, p place) error {
	var diffs []string
	if t.name == toolHoldfast {
		diffs = trees.Compare(s.tree, p.out)
	} else {
		var err error
		if diffs, err = differences(s.tree, p.out); err != nil {
			return err
		}
	}
	if len(diffs) == 0 {
		return nil
	}
	return fmt.Errorf("restore of %s differs from the original, %d times:\n%s", t.name, len(diffs), strings.Join(diffs[:min(len(diffs), 20)], "\n"))
}

func differences(a, b string) ([]string, error) {
	left, err := trees.Read(a)
	if err != nil {
		return nil, err
	}
	right, err := trees.Read(b)
	if err != nil {
		return nil, err
	}
	return trees.CompareNodes(essential(left), essential(right)), nil
}

// essential leaves in nodes only what every backup tool promises to restore.
func essential(nodes []trees.Node) []trees.Node {
	out := make([]trees.Node, 0, len(nodes))
	for _, n := range nodes {
		e := trees.Node{Path: n.Path, Mode: n.Mode, Size: n.Size, Target: n.Target, Hash: n.Hash, Inode: uint64(len(out))}
		switch n.Type() {
		case unix.S_IFREG:
			e.MTime = n.MTime
			e.MTime.Nsec = 0
			e.Segments = []trees.Segment{{Length: n.Size}}
		case unix.S_IFLNK:
			e.Mode = unix.S_IFLNK // its permissions mean nothing
		case unix.S_IFDIR:
			if n.Path == "." {
				e.Mode = unix.S_IFDIR // the place that was restored to
			}
		}
		out = append(out, e)
	}
	return out
}

// warm reads a tree, so that all tools find it in the page cache.
func warm(tree string) error {
	return filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, f)
		return errors.Join(err, f.Close())
	})
}

// bytesBelow adds up the sizes of the files below a directory, which may not exist, or be a file.
func bytesBelow(dir string) (int64, error) { return sumBelow(dir, fs.FileInfo.Size) }

func sumBelow(dir string, of func(fs.FileInfo) int64) (int64, error) {
	var n int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		i, err := d.Info()
		if err == nil {
			n += of(i)
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	return n, err
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
