package compat_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"filippo.io/age"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/test/cluster"
	"github.com/btcdecoded/holdfast/test/trees"
)

var (
	updateGolden = flag.Bool("update-golden", false, "write the golden repository; needs root, and a directory golden that is not there")
	forceGolden  = flag.String("force-golden", "", "with -update-golden, write it again although it is there: the `REASON`, which its README repeats")
)

// workshop is where the golden repository is made. Its path is in the trees of snapshots.
const workshop = "/tmp/golden"

// maker makes the golden repository.
type maker struct {
	bench
	repo     *repository.Repository
	identity *keyring.Identity
	expected expected
	db, pg   snapshot.Source // with logs
}

// TestUpdateGolden writes the golden repository, if it is asked to. What is there was written by the program that froze the
// format, and proves that later ones read it: writing it again takes that proof away. So it is refused, unless a reason is
// given; the only good one is that the repository has a fault of its own, and nobody relies on version 1 yet.
func TestUpdateGolden(t *testing.T) {
	if !*updateGolden {
		return
	}
	if _, err := os.Stat(golden); err == nil && *forceGolden == "" {
		t.Fatalf("%s is there. It was written once, for good: see its README, and -force-golden", golden)
	}
	if os.Geteuid() != 0 {
		t.Fatal("devices and owners need root")
	}
	if err := os.Mkdir(workshop, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = trees.Remove(workshop) })
	m := &maker{bench: newBench(t, setUp(t), workshop), expected: expected{Snapshots: map[string][]node{}}}
	m.files(t)
	m.unfinished(t)
	m.dumps(t)
	m.documents(t)
	m.logs(t)
	m.removals(t)
	m.recipients(t)
	m.write(t)
}

// back backs the tree up as a source and notes what is in it.
func (m *maker) back(t *testing.T, name string, args ...string) {
	t.Helper()
	m.mustRun(t, append([]string{"backup", "--quiet", "--files", m.tree(), "--name", name}, args...)...)
	m.note(t, name)
}

// note notes the tree as the newest snapshot of a source.
func (m *maker) note(t *testing.T, name string) {
	t.Helper()
	m.open(t)
	src := snapshot.Source{Host: "one", Name: name}
	all, err := m.repo.Sequences(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := trees.Read(m.tree())
	if err != nil {
		t.Fatal(err)
	}
	id := snapshot.ID{Source: src, Sequence: all[len(all)-1].Sequence}
	m.expected.Snapshots[id.String()] = nodesOf(m.tree(), nodes)
}

// open opens the repository as it is now.
func (m *maker) open(t *testing.T) {
	t.Helper()
	l := newLogWriter(t, m.bench)
	m.repo, m.identity = l.repo, l.repo.Identity()
}

// files makes the source of files: a chain with a full, incrementals and a differential.
func (m *maker) files(t *testing.T) {
	m.fill(t)
	m.back(t, "files", "--tag", "first", "--tag", "übung 🛟")
	m.change(t, "2")
	m.back(t, "files")
	m.change(t, "3")
	m.back(t, "files", "--type", "differential")
	m.change(t, "4")
	m.back(t, "files", "--type", "incremental")
}

// fill makes the tree: one of each thing that a tree can have.
func (m *maker) fill(t *testing.T) {
	t.Helper()
	dir := m.tree()
	for _, name := range []string{"deep/er/still", "empty", "odd"} {
		must(t, os.MkdirAll(filepath.Join(dir, name), 0o750))
	}
	for name, content := range map[string]string{
		"text": strings.Repeat("the quick brown fox\n", 50), "empty-file": "", "-rf": "a name like an option", " leading": "space",
		"odd/new\nline": "newline", "odd/not\xff\xfeutf-8": "bytes", "odd/ünïcøde": "composed", "odd/u\u0308": "decomposed",
		"odd/" + strings.Repeat("n", 250): "long", "odd-": "sorts after what is in odd", "deep/er/still/file": "deep", "setuid": "#!/bin/sh\n",
		"old": "from before 1970", "future": "from after 2262",
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o640))
	}
	write(t, filepath.Join(dir, "noise"), 0, random(1, 3000))
	sparse := filepath.Join(dir, "sparse") // of three maps
	write(t, sparse, 1<<20, []byte("in the first"))
	write(t, sparse, 16<<20-3, []byte("over the end of the second"))
	must(t, os.Truncate(sparse, 20<<20))
	must(t, os.Truncate(filepath.Join(dir, "setuid"), 10))
	must(t, os.Chmod(filepath.Join(dir, "setuid"), 0o755|os.ModeSetuid))
	must(t, os.Chown(filepath.Join(dir, "text"), 1234, 4321))
	must(t, os.Link(filepath.Join(dir, "text"), filepath.Join(dir, "deep/linked")))
	must(t, os.Symlink("../nowhere\xff", filepath.Join(dir, "link")))
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	must(t, unix.Mknod(filepath.Join(dir, "socket"), unix.S_IFSOCK|0o600, 0))
	must(t, unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))         //nolint:gosec // small
	must(t, unix.Mknod(filepath.Join(dir, "block"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 70_000)))) //nolint:gosec // small
	must(t, unix.Setxattr(filepath.Join(dir, "text"), "user.note", []byte("value\x00\xff"), 0))
	must(t, unix.Setxattr(filepath.Join(dir, "deep"), "user.empty", nil, 0))
	times := func(name string, sec, nsec int64) {
		at := unix.Timespec{Sec: sec, Nsec: nsec}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, name), []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW))
	}
	times("old", -86_400, 1)
	times("future", 10_000_000_000, 999_999_999)
	m.script(t, "golden.py", filepath.Join(dir, "database"), "1")
}

// change makes the next state of the tree.
func (m *maker) change(t *testing.T, n string) {
	t.Helper()
	m.script(t, "golden.py", filepath.Join(m.tree(), "database"), n)
	must(t, os.WriteFile(filepath.Join(m.tree(), "added-"+n), []byte("added "+n), 0o600))
	write(t, filepath.Join(m.tree(), "sparse"), 9<<20, []byte("changed at "+n))
	must(t, os.Rename(filepath.Join(m.tree(), "noise"), filepath.Join(m.tree(), "renamed")))
	must(t, os.Rename(filepath.Join(m.tree(), "renamed"), filepath.Join(m.tree(), "noise")))
}

// unfinished makes a full that commits what it has on the way.
func (m *maker) unfinished(t *testing.T) {
	small := filepath.Join(m.dir, "small")
	for i := range 3 {
		must(t, os.MkdirAll(small, 0o755))
		write(t, filepath.Join(small, fmt.Sprint(i)), 0, random(uint64(10+i), 1000)) //nolint:gosec // small
	}
	m.mustRun(t, "backup", "--quiet", "--files", small, "--name", "long", "--type", "full", "--checkpoint", "1ns")
}

// dumps makes a dump of a real server.
func (m *maker) dumps(t *testing.T) {
	s := cluster.Start(t, cluster.Options{})
	for _, sql := range []string{
		"CREATE DATABASE ledger", "COMMENT ON DATABASE ledger IS 'of the golden repository'", "ALTER DATABASE ledger SET work_mem = '5MB'",
	} {
		s.Psql(sql)
	}
	s.PsqlIn("ledger", "CREATE TABLE entry (id int PRIMARY KEY, body text); INSERT INTO entry SELECT i, 'entry ' || i FROM generate_series(1, 100) i")
	connection := fmt.Sprintf("host=127.0.0.1 port=%d user=%s", s.Port, s.Superuser)
	m.mustRun(t, "backup", "--quiet", "--postgres", connection, "--logical", "--database", "ledger", "--name", "dumps")
}

// documents makes marks, receipts, and what else stands beside snapshots.
func (m *maker) documents(t *testing.T) {
	m.mustRun(t, "pin", "files@1", "--why", "the first")
	m.mustRun(t, "pin", "files@3", "--hold", "--why", "case 7", "--until", "2099-01-01T00:00:00Z")
	m.mustRun(t, "pin", "files@4", "--why", "by mistake")
	m.mustRun(t, "unpin", "files@4")
	m.mustRun(t, "tag", "files@3", "--add", "release=1.4")
	m.mustRun(t, "verify", "--quiet", "one/files@4", "--level", "content")
}

// write puts the repository into the checkout, with what must come out of it.
func (m *maker) write(t *testing.T) {
	m.fillIn(t)
	must(t, trees.Remove(golden))
	for from, to := range map[string]string{"identity": "identity", "second": "second-identity", "repository/v1": "repository/v1"} {
		to = filepath.Join(golden, to)
		must(t, os.MkdirAll(filepath.Dir(to), 0o755))
		if from == "repository/v1" {
			must(t, os.CopyFS(to, os.DirFS(filepath.Join(m.dir, from))))
			continue
		}
		b, err := os.ReadFile(filepath.Join(m.dir, from))
		must(t, err)
		must(t, os.WriteFile(to, append([]byte("# A secret for tests, known to everybody: never use it for anything else.\n"), b...), 0o644)) //nolint:gosec // see there
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	must(t, e.Encode(m.expected))
	pretty := strings.NewReplacer(`},{"`, "},\n{\"", `],"`, "],\n\"").Replace(b.String())
	must(t, os.WriteFile(filepath.Join(golden, "expected.json"), []byte(pretty), 0o644)) //nolint:gosec // no secret
	must(t, os.WriteFile(filepath.Join(golden, ".gitattributes"), []byte("* -text -diff\n"), 0o644))
	why := cmp.Or(*forceGolden, "version 1 of the format was frozen")
	must(t, os.WriteFile(filepath.Join(golden, "README.md"), fmt.Appendf(nil, readme, time.Now().UTC().Format(time.DateOnly), why), 0o644)) //nolint:gosec // no secret
}

const readme = `# The golden repository

A repository of version 1 of the format, with at least one of everything that docs/format.md specifies, as this project wrote it once.
Whatever is changed in Holdfast later, it must read this, verify it and restore each snapshot and each state in it to what
` + "`expected.json`" + ` says, which was noted when the repository was written; so must the reader in Python.

The identities are secrets for tests, known to everybody.

Written on %s by ` + "`go test ./test/compat -run TestUpdateGolden -update-golden`" + `: %s.
It is not to be written again: that would only prove that a program reads what it writes itself. The command refuses it, unless
` + "`-force-golden REASON`" + ` says why; the reason then stands here.
`

// fillIn notes the snapshots of which nothing is noted yet, as they can be read now.
func (m *maker) fillIn(t *testing.T) {
	m.open(t)
	sources, err := m.repo.Sources(t.Context())
	must(t, err)
	there := map[string]bool{}
	for _, src := range sources {
		manifests, err := m.repo.Manifests(t.Context(), src)
		must(t, err)
		for _, s := range manifests {
			there[s.ID().String()] = true
			if m.expected.Snapshots[s.ID().String()] == nil {
				m.expected.Snapshots[s.ID().String()] = entriesOf(t, m.repo, s)
			}
		}
	}
	for name := range m.expected.Snapshots {
		if !there[name] {
			delete(m.expected.Snapshots, name) // retention has removed it
		}
	}
	out, code := m.read(t, "records")
	if code != 0 {
		t.Fatalf("records: exit code %d\n%s", code, out)
	}
	m.expected.Records = strings.Split(strings.TrimSpace(out), "\n")
}

// recipients adds a second recipient to all that is there, rotates keys, and lets other signers sign.
func (m *maker) recipients(t *testing.T) {
	m.open(t)
	hybrid, err := age.GenerateHybridIdentity()
	must(t, err)
	m.mustRun(t, "key", "add", "--quiet", hybrid.Recipient().String(), "--label", "of the office")
	// The second identity opens what is sealed for that recipient, and may sign as the agent of host two.
	other := m.signer(t, "second", "two", "snapshots,keys,log,damaged,receipts/host", hybrid.String())
	m.change(t, "5")
	m.back(t, "files", "--type", "full") // sealed for both
	m.change(t, "6")
	m.back(t, "files")
	m.mustRun(t, "key", "check", "--quiet", "--identity", filepath.Join(m.dir, "second"))
	m.otherHost(t, other)
	m.cloud(t)
	m.kms(t)
}

// signer makes an identity whose signer is trusted for a host within limits, and returns the repository opened with it.
func (m *maker) signer(t *testing.T, name, host, only string, lines ...string) *repository.Repository {
	t.Helper()
	id, err := keyring.NewIdentity()
	must(t, err)
	path := filepath.Join(m.dir, name)
	must(t, id.WriteFile(path))
	written, err := os.ReadFile(path)
	must(t, err)
	for line := range strings.Lines(string(written)) {
		if strings.HasPrefix(line, "HOLDFAST-SIGNER-") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	own, _ := m.identity.Signer()
	lines = append(lines, fmt.Sprintf("trust %s *\n", own.Public()))
	must(t, os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600))
	public, _ := id.Signer()
	m.mustRun(t, "key", "add", "--quiet", "--signer", public.Public().String(), "--for-host", host, "--only", only)
	limited, err := keyring.LoadIdentity(path)
	must(t, err)
	repo, err := repository.Open(t.Context(), m.repo.Store(), limited)
	must(t, err)
	return repo
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
