package soak

import (
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore/file"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/test/trees"
)

// power is a host whose power fails: commands run under strace, and for moments in between the repository is put
// together as a disk may hold it that has lost what was not synced.
type power struct {
	*host
	random  *rand.Rand
	tree    *workload
	archive string // every object there ever was, below the name of its repository
	outages int
	lost    int // objects that had come or gone and were not yet sure to
	removed int // by prune
}

func TestPowerLoss(t *testing.T) {
	random := dice(t)
	p := &power{host: newHost(t, ""), random: random, tree: newWorkload(t, random), archive: t.TempDir()}
	program := strace(t)
	p.run("init")
	backup := []string{"backup", "--files", p.tree.top, "--name", "tree"}
	p.run(backup...)
	p.run("copy", "--to", p.path("copy"))
	commands := [][]string{
		append(backup, "--type", "full"), backup,
		{"copy", "--to", p.path("copy")},
		backup,
		{"prune", "--keep-last", "1", "--force"},
		{"verify"},
		backup,
	}
	each := max(1, test.outages/len(commands))
	for n := 0; p.outages < test.outages && !t.Failed(); n++ {
		args := commands[n%len(commands)]
		p.tree.edit()
		target := p.path("repository")
		switch args[0] {
		case "copy":
			target = p.path("copy")
		case "prune":
			p.run("prune", "--keep-last", "1", "--force")
			for range 4 {
				p.run("verify") // receipts, which witness the time that passes
			}
			age(t, target)
		}
		p.command(program, target, args, each)
	}
	if p.removed == 0 && test.outages >= len(commands) {
		t.Error("prune has removed nothing")
	}
	t.Logf("the power failed %d times; %d objects had come or gone and were not yet sure to; prune removed %d", p.outages, p.lost, p.removed)
}

// command runs one command under strace, checks the order of what it did, and lets the power fail in it.
func (p *power) command(program, target string, args []string, outages int) {
	p.t.Helper()
	before := p.keep(target)
	state := p.path("state before")
	must(p.t, os.RemoveAll(state))
	must(p.t, os.CopyFS(state, os.DirFS(p.path("state"))))
	trace := p.path("trace")
	traced := &host{t: p.t, dir: p.dir, program: program, env: p.env}
	a := traced.start(0, nil, append([]string{"-f", "-y", "-qq", "-s", "0", "-o", trace, "-e", "trace=" + tracedCalls, test.holdfast}, args...)...)()
	if a.code != 0 {
		p.t.Fatal(a)
	}
	after := p.keep(target)
	h := newHistory(p.t, target, parseTrace(p.t, trace))
	p.complete(h, before, after)
	p.ordered(h)
	for range outages {
		if p.t.Failed() {
			return
		}
		p.outages++
		p.fail(h, target, args[0], before, state)
	}
}

// keep puts the objects of a repository into the archive and returns their keys.
func (p *power) keep(target string) map[string]bool {
	p.t.Helper()
	keys := map[string]bool{}
	err := filepath.WalkDir(filepath.Join(target, "v1"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		key, _ := strings.CutPrefix(path, target+"/")
		keys[key] = true
		kept := filepath.Join(p.archive, filepath.Base(target), key)
		if _, err := os.Lstat(kept); err == nil {
			return nil
		}
		if err := os.MkdirAll(filepath.Dir(kept), 0o700); err != nil {
			return err
		}
		return os.Link(path, kept)
	})
	must(p.t, err)
	return keys
}

// complete checks that the trace tells everything that happened, and that all of it was sure when the command ended.
func (p *power) complete(h *history, before, after map[string]bool) {
	p.t.Helper()
	told := maps.Clone(before)
	for _, c := range h.made {
		told[c.key] = true
		if c.lasts == math.MaxInt {
			p.t.Errorf("%s was acknowledged and is not synced", c.key)
		}
	}
	for _, c := range h.removed {
		p.removed++
		delete(told, c.key)
		if c.lasts == math.MaxInt {
			p.t.Errorf("the removal of %s was acknowledged and is not synced", c.key)
		}
	}
	if !maps.Equal(told, after) {
		p.t.Errorf("the trace tells of %d objects, %d are there", len(told), len(after))
	}
}

// ordered checks the order of writing and deleting that docs/format.md demands.
func (p *power) ordered(h *history) {
	p.t.Helper()
	is := func(c change, kinds ...string) bool {
		return slices.ContainsFunc(kinds, func(k string) bool { return strings.Contains(c.key, "/"+k+"/") })
	}
	for _, m := range h.made {
		if !is(m, "snapshots") {
			continue
		}
		for _, c := range h.made {
			if is(c, "packs", "lists", "keys") && c.start < m.start && c.lasts > m.start {
				p.t.Errorf("%s is stored before %s is sure", m.key, c.key)
			}
		}
	}
	for _, m := range h.removed {
		if !is(m, "snapshots") {
			continue
		}
		record := strings.Replace(m.key, "/snapshots/", "/expired/", 1)
		for _, c := range h.made {
			if c.key == record && c.lasts > m.start {
				p.t.Errorf("%s is removed before the record of it is sure", m.key)
			}
		}
		for _, c := range h.removed {
			if is(c, "packs", "lists", "keys") && m.lasts > c.start {
				p.t.Errorf("%s is removed before the removal of %s is sure", c.key, m.key)
			}
		}
	}
}

// fail lets the power fail at a moment of a command.
func (p *power) fail(h *history, target, command string, before map[string]bool, state string) {
	p.t.Helper()
	moment := p.random.IntN(h.lines + 2)
	if all := append(slices.Clone(h.made), h.removed...); len(all) > 0 && p.random.IntN(2) == 0 {
		c := all[p.random.IntN(len(all))]
		moment = c.start + p.random.IntN(c.end-c.start+2)
	}
	keys := maps.Clone(before)
	for _, c := range h.made {
		keys[c.key] = p.survives(c, moment)
	}
	maybeGone := map[string]bool{}
	for _, c := range h.removed {
		if p.survives(c, moment) {
			delete(keys, c.key)
		}
		maybeGone[c.key] = true
	}
	crashed := &host{t: p.t, dir: p.path("crashed"), program: test.holdfast}
	defer func() { must(p.t, trees.Remove(crashed.dir)) }()
	p.build(crashed, target, keys, state)
	p.t.Logf("power fails in %s at %d of %d", command, moment, h.lines)
	if keys["v1/repository.json"] && keys["v1/access/0000000001.json"] {
		p.intact(crashed, before, maybeGone)
	}
	p.goesOn(crashed, command)
}

// survives decides whether a change is there after the power failed at a moment.
func (p *power) survives(c change, moment int) bool {
	switch {
	case c.lasts <= moment:
		return true
	case c.start > moment:
		return false
	}
	p.lost++
	return p.random.IntN(2) == 0
}

// build puts a host together as it is after the power failed: with a repository of the objects that are left, unfinished
// files, and a state directory of before whose files may be torn.
func (p *power) build(crashed *host, target string, keys map[string]bool, state string) {
	p.t.Helper()
	for key, there := range keys {
		if !there {
			continue
		}
		to := crashed.path("repository/" + key)
		must(p.t, os.MkdirAll(filepath.Dir(to), 0o700))
		must(p.t, os.Link(filepath.Join(p.archive, filepath.Base(target), key), to))
	}
	must(p.t, os.MkdirAll(crashed.path("repository/tmp"), 0o700))
	must(p.t, os.WriteFile(crashed.path("repository/tmp/unfinished"), make([]byte, p.random.IntN(5000)), 0o600))
	if p.random.IntN(4) > 0 {
		must(p.t, os.CopyFS(crashed.path("state"), os.DirFS(state)))
		p.tear(crashed.path("state"))
	}
	crashed.env = append(slices.Clone(p.env), "HOLDFAST_REPOSITORY="+crashed.path("repository"), "HOLDFAST_STATE="+crashed.path("state"))
}

// tear damages some files of a state directory as a power failure does: the end is missing, or zero.
func (p *power) tear(dir string) {
	p.t.Helper()
	must(p.t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || p.random.IntN(3) > 0 {
			return err
		}
		b, err := os.ReadFile(path) //nolint:gosec // the test's own file
		if err != nil || len(b) == 0 {
			return err
		}
		at := p.random.IntN(len(b))
		if p.random.IntN(2) == 0 {
			return os.Truncate(path, int64(at))
		}
		clear(b[at:])
		return os.WriteFile(path, b, 0o600)
	}))
}

// intact verifies all content, and that no snapshot of before is missing unless the command was removing it.
func (p *power) intact(crashed *host, before, maybeGone map[string]bool) {
	p.t.Helper()
	id, err := keyring.LoadIdentity(p.path("identity"))
	must(p.t, err)
	store, err := file.Open(crashed.path("repository"))
	must(p.t, err)
	repo, err := repository.Open(p.t.Context(), store, id)
	must(p.t, err)
	res, err := verify.Run(p.t.Context(), repo, verify.Options{Level: verify.Content, Workers: 1})
	must(p.t, err)
	if !res.OK() {
		p.t.Errorf("after the power failed: %+v", res.Findings)
	}
	for key := range before {
		if !strings.Contains(key, "/snapshots/") || maybeGone[key] {
			continue
		}
		if _, err := store.Stat(p.t.Context(), key); err != nil {
			p.t.Errorf("acknowledged and lost: %s: %v", key, err)
		}
	}
}

// goesOn runs what comes next: the copy is finished, or the next backup made and restored.
func (p *power) goesOn(crashed *host, command string) {
	p.t.Helper()
	if command == "copy" {
		p.run("copy", "--to", crashed.path("repository"))
		p.run("verify", "-r", crashed.path("repository"), "--no-receipts", "--level", "content")
		return
	}
	if p.random.IntN(2) == 0 {
		return
	}
	a := crashed.try("backup", "--files", p.tree.top, "--name", "tree")
	if a.code != 0 {
		p.t.Fatalf("the next backup: %v", a)
	}
	crashed.run("verify", "--level", "content")
	crashed.run("restore", "tree", "--to", crashed.path("restored"))
	compare(p.t, "after the power failed", p.tree.remember(), crashed.path("restored"))
	must(p.t, trees.Remove(crashed.path("restored")))
}
