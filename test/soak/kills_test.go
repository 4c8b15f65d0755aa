package soak

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/test/trees"
)

const (
	day = 24 * time.Hour
	// keep is the retention of the test.
	keep = 3
)

// killer kills processes and checks what they leave.
type killer struct {
	*host
	random *rand.Rand
	tree   *workload
	copy   string // address of the copy
	// remembered is each snapshot's tree. A backup that was killed may have come to its commit: the tree stands still
	// while it runs, so that is known too.
	remembered map[string][]trees.Node
	condemned  map[string]bool // seen in a listing
	typical    map[string]time.Duration
	first      int // a short run does not do everything: where it begins
	kills      int
	killed     map[string]int // by command
	removed    int            // snapshots removed by retention
}

func TestKills(t *testing.T) {
	random := dice(t)
	k := &killer{
		host: newHost(t, ""), random: random, tree: newWorkload(t, random), remembered: map[string][]trees.Node{},
		condemned: map[string]bool{}, typical: map[string]time.Duration{}, killed: map[string]int{},
	}
	k.copy, k.first = k.path("copy"), random.IntN(1000)
	k.run("init")
	k.backup()
	rounds := 0
	for ; k.kills < test.kills && !t.Failed(); rounds++ {
		if rounds > 20+4*test.kills {
			t.Fatalf("%d kills in %d rounds", k.kills, rounds)
		}
		k.round(rounds)
	}
	k.end()
	t.Logf("%d kills in %d rounds: %v; %d snapshots restored at the end, %d removed by retention", k.kills, rounds, k.killed, len(k.remembered), k.removed)
}

// operation is a command that is killed.
type operation struct {
	name string
	args []string
}

func (k *killer) operations() map[string]operation {
	level := []string{"structure", "bytes", "content"}[k.random.IntN(3)]
	repository := [][]string{nil, {"-r", k.copy}}[k.random.IntN(2)]
	if len(k.copied()) == 0 {
		repository = nil
	}
	all := map[string]operation{}
	for _, o := range []operation{
		{"backup", []string{"backup", "--files", k.tree.top, "--name", "tree", "--json"}},
		{"full", []string{"backup", "--files", k.tree.top, "--name", "tree", "--type", "full", "--json"}},
		{"differential", []string{"backup", "--files", k.tree.top, "--name", "tree", "--type", "differential", "--json"}},
		{"copy", []string{"copy", "--to", k.copy}},
		{"prune", []string{"prune", "--keep-last", fmt.Sprint(keep), "--force", "--json"}},
		{"prune copy", []string{"prune", "-r", k.copy, "--keep-last", fmt.Sprint(keep), "--force"}},
		{"restore in place", []string{"restore", "tree", "--in-place", "--delete"}},
		{"verify", append([]string{"verify", "--level", level}, repository...)},
		{"restore", []string{"restore", "tree", "--to", k.path("interrupted"), "--delete"}},
	} {
		all[o.name] = o
	}
	return all
}

// round kills one command, or one or both of two that run at the same time, and checks everything.
func (k *killer) round(n int) {
	o := k.operations()
	together := [][]string{
		{"backup"},
		{"full"},
		{"copy"},
		{"prune"},
		{"verify"},
		{"restore"},
		{"backup", "prune"},
		{"full", "prune"},
		{"backup", "copy"},
		{"copy", "prune"},
		{"verify", "prune"},
		{"restore", "prune"},
		{"backup", "verify"},
		{"differential"},
		{"restore in place"},
		{"differential", "prune"},
		{"copy", "prune copy"},
	}
	names := together[(n+k.first)%len(together)]
	if names[len(names)-1] == "prune copy" && k.copied() == nil {
		return
	}
	if k.random.IntN(12) == 0 { // the host has lost its memory
		must(k.t, os.RemoveAll(k.path("state")))
	}
	k.tree.edit()
	both := k.random.IntN(2) == 0
	victim := k.random.IntN(len(names))
	again := 1
	if len(names) == 1 && !strings.Contains(names[0], "prune") {
		again += k.random.IntN(2) // what was interrupted is interrupted once more
	}
	for range again {
		var waits []func() answer
		for i, name := range names {
			killAfter := time.Duration(0)
			if both || i == victim {
				killAfter = k.moment(name)
			}
			waits = append(waits, k.start(killAfter, nil, o[name].args...))
		}
		for i, wait := range waits {
			k.ended(names[i], wait())
		}
		if names[0] == "restore in place" {
			k.restoredInPlace()
		}
		k.check(n)
	}
	if n%3 == 2 {
		k.age()
	}
}

// moment is when to kill a command: at any time until it would have ended, most likely.
func (k *killer) moment(name string) time.Duration {
	typical := k.typical[name]
	if typical == 0 {
		typical = 100 * time.Millisecond
	}
	return time.Millisecond + time.Duration(k.random.Int64N(int64(typical)))
}

func (k *killer) ended(name string, a answer) {
	k.t.Helper()
	switch a.code {
	case -1:
		k.kills++
		k.killed[name]++
		return
	case 0:
	case 3:
		k.t.Fatalf("incomplete: %v", a)
	default:
		k.t.Fatal(a)
	}
	if old := k.typical[name]; old == 0 {
		k.typical[name] = a.took
	} else {
		k.typical[name] = (3*old + a.took) / 4
	}
	if name == "backup" || name == "full" || name == "differential" {
		k.acknowledge(a)
	}
}

// restoredInPlace does a restore again that was killed, and compares the tree with the newest snapshot.
func (k *killer) restoredInPlace() {
	k.t.Helper()
	k.run("restore", "tree", "--in-place", "--delete")
	all := k.snapshots()
	newest := all[len(all)-1].Snapshot
	compare(k.t, newest+" in place", k.remembered[newest], k.tree.top)
}

func (k *killer) acknowledge(a answer) {
	k.t.Helper()
	var said struct {
		Backups []struct {
			Snapshot string `json:"snapshot"`
		} `json:"backups"`
	}
	a.json(k.t, &said)
	if len(said.Backups) != 1 {
		k.t.Fatal(a)
	}
	k.remembered[said.Backups[0].Snapshot] = k.tree.remember()
}

// backup makes a snapshot without trouble.
func (k *killer) backup() {
	k.t.Helper()
	k.acknowledge(k.run("backup", "--files", k.tree.top, "--name", "tree", "--json"))
}

// check is what must hold after each kill.
func (k *killer) check(n int) {
	k.t.Helper()
	k.account()
	k.run("verify", "--level", "structure")
	if k.random.IntN(8) == 0 {
		k.run("verify", "--level", "content")
	}
	all := k.snapshots()
	newest := all[len(all)-1].Snapshot
	k.restores(newest, "")
	if other := all[k.random.IntN(len(all))].Snapshot; other != newest {
		k.restores(other, "")
	}
	if copied := k.copied(); len(copied) > 0 && n%3 == 0 {
		k.run("verify", "-r", k.copy)
		k.restores(copied[k.random.IntN(len(copied))].Snapshot, k.copy)
	}
	if k.random.IntN(3) > 0 { // else the next kill finds what this one left
		k.tree.edit()
		k.backup()
	}
}

// account compares the listing with what is remembered. What is missing must have been announced, be beyond what
// retention keeps and have a record of its removal.
func (k *killer) account() {
	k.t.Helper()
	there := map[string]bool{}
	newest := uint64(0)
	for _, l := range k.snapshots() {
		there[l.Snapshot] = true
		newest = max(newest, number(k.t, l.Snapshot))
		for _, s := range l.States {
			switch s {
			case "condemned":
				k.condemned[l.Snapshot] = true
			default:
				k.t.Fatalf("%s is %s", l.Snapshot, s)
			}
		}
		if k.remembered[l.Snapshot] == nil {
			k.remembered[l.Snapshot] = k.tree.remember() // committed, but killed before it said so
		}
	}
	for id := range k.remembered {
		if there[id] {
			continue
		}
		seq := number(k.t, id)
		record := filepath.Join(k.path("repository"), "v1/test/tree/expired", fmt.Sprintf("%010d.json", seq))
		if _, err := os.Stat(record); err != nil || !k.condemned[id] || seq+keep > newest {
			k.t.Fatalf("%s is gone; announced: %v; newest %d; record of its removal: %v", id, k.condemned[id], newest, err)
		}
		delete(k.remembered, id)
		k.removed++
	}
}

var sequence = regexp.MustCompile(`@(\d+)$`)

func number(t *testing.T, id string) (n uint64) {
	t.Helper()
	m := sequence.FindStringSubmatch(id)
	if m == nil {
		t.Fatalf("snapshot %q", id)
	}
	_, err := fmt.Sscan(m[1], &n)
	must(t, err)
	return n
}

// restores restores a snapshot and compares it.
func (k *killer) restores(id, from string) {
	k.t.Helper()
	want := k.remembered[id]
	if want == nil {
		if from == "" {
			k.t.Fatalf("%s is not known", id)
		}
		return // the copy keeps longer
	}
	to := k.path("restored")
	if k.random.IntN(2) == 0 {
		to = k.path("interrupted") // over whatever a killed restore left there
	}
	args := []string{"restore", id, "--to", to, "--delete"}
	if from != "" {
		args = append(args, "-r", from)
	}
	k.run(args...)
	compare(k.t, id, want, to)
}

func compare(t *testing.T, id string, want []trees.Node, dir string) {
	t.Helper()
	got, err := trees.Read(dir)
	must(t, err)
	for i, diff := range trees.CompareNodes(want, got) {
		if i == 10 {
			t.Fatal("… and more")
		}
		t.Errorf("%s restored: %s", id, diff)
	}
	if t.Failed() {
		t.FailNow()
	}
}

// copied lists the snapshots of the copy.
func (k *killer) copied() []listed {
	k.t.Helper()
	if manifests, _ := filepath.Glob(filepath.Join(k.copy, "v1/test/tree/snapshots/*.json")); len(manifests) == 0 {
		return nil
	}
	return k.snapshots("-r", k.copy)
}

// age lets time pass, and prunes. Nothing runs meanwhile, and what an interrupted backup may still take up was used or
// given up by the backup before.
func (k *killer) age() {
	k.t.Helper()
	k.tree.edit()
	k.backup()
	if k.copied() != nil {
		k.run("copy", "--to", k.copy)
	}
	for _, repository := range []string{k.path("repository"), k.copy} {
		age(k.t, repository)
	}
	k.ended("prune", k.try(k.operations()["prune"].args...))
	if k.copied() != nil && k.random.IntN(2) == 0 {
		k.ended("prune", k.try("prune", "-r", k.copy, "--keep-last", fmt.Sprint(keep), "--force"))
	}
	k.account()
}

// age makes announcements 8 days older, and packs, lists and keys 15. Receipts arrive in between: a directory's clock
// counts only as far as arrivals witness it.
func age(t *testing.T, repository string) {
	t.Helper()
	i := 0
	err := filepath.WalkDir(filepath.Join(repository, "v1"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		old := time.Duration(0)
		switch kind := strings.Split(strings.TrimPrefix(path, repository+"/v1/test/tree/"), "/")[0]; kind {
		case "condemned":
			old = 8 * day
		case "packs", "lists", "keys":
			old = 15 * day
		case "receipts":
			i++
			old = time.Duration(i%16) * day
		default:
			return nil
		}
		at := time.Now().Add(-old)
		return os.Chtimes(path, at, at)
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
}

// end restores all snapshots, of the repository and of its copy.
func (k *killer) end() {
	k.t.Helper()
	if k.t.Failed() {
		return
	}
	k.backup()
	k.account()
	k.run("copy", "--to", k.copy)
	for _, from := range []string{"", k.copy} {
		more := []string{}
		if from != "" {
			more = []string{"-r", from}
		}
		k.run(append([]string{"verify", "--level", "content"}, more...)...)
		for _, l := range k.snapshots(more...) {
			k.restores(l.Snapshot, from)
		}
	}
}
