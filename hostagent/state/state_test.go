package state_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/hostagent/state"
	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/retention"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func TestRoundTrip(t *testing.T) {
	root := filepath.Join(t.TempDir(), "state")
	d := state.Open(root, snapshot.RepositoryID{1})
	src := snapshot.Source{Host: "web-1", Name: "etc"}
	at := time.Date(2026, 11, 27, 10, 0, 0, 5, time.UTC)

	if _, ok := d.LastRun(src); ok {
		t.Error("a run is known before there was one")
	}
	if _, ok := d.LastRestore(src); ok {
		t.Error("a restore is known before there was one")
	}
	if d.Place() != "" || !d.KeyProven().IsZero() || !d.Retention(src).Recorded.IsZero() {
		t.Error("a proof or a retention is known before there was one")
	}
	if _, err := os.Stat(root); err == nil {
		t.Error("reading made the directory")
	}

	run := compliance.Run{Time: at, Error: "disk full"}
	restore := compliance.Restore{Time: at, Took: time.Minute, Bytes: 7}
	rules := retention.Record{Rules: policy.Retention{Daily: 7}, Recorded: at}
	for _, err := range []error{
		d.SetLastRun(src, run), d.SetLastRestore(src, restore), d.SetRetention(src, rules), d.SetKeyProven(at),
		d.SetPlace("/mnt/backup"), d.SetPlace("/mnt/backup"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	gotRun, _ := d.LastRun(src)
	gotRestore, _ := d.LastRestore(src)
	for _, diff := range []string{
		cmp.Diff(run, gotRun), cmp.Diff(restore, gotRestore), cmp.Diff(rules, d.Retention(src)), cmp.Diff(at, d.KeyProven()),
		cmp.Diff("/mnt/backup", d.Place()),
	} {
		if diff != "" {
			t.Error(diff)
		}
	}
	other := state.Open(root, snapshot.RepositoryID{2})
	if _, ok := other.LastRun(src); ok {
		t.Error("another repository's state is mixed up with this one's")
	}
	left, err := filepath.Glob(filepath.Join(root, "*", "*", "*", ".new-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestGarbageIsNotKnown(t *testing.T) {
	root := t.TempDir()
	repo := snapshot.RepositoryID{1}
	d := state.Open(root, repo)
	src := snapshot.Source{Host: "web-1", Name: "etc"}
	dir := filepath.Join(root, repo.String(), "web-1", "etc")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, b := range []string{"", "{", `[]`, `{"time":7}`} {
		for _, name := range []string{"run.json", "restore.json", "retention.json"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(b), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, ok := d.LastRun(src); ok {
			t.Errorf("%q: read as a run", b)
		}
		if _, ok := d.LastRestore(src); ok {
			t.Errorf("%q: read as a restore", b)
		}
		if r := d.Retention(src); b != `{"time":7}` && !r.Recorded.IsZero() {
			t.Errorf("%q: read as a retention", b)
		}
	}
}

func TestNamesDoNotLeaveTheDirectory(t *testing.T) {
	d := state.Open(t.TempDir(), snapshot.RepositoryID{1})
	for _, bad := range []snapshot.Source{{Host: "..", Name: "x"}, {Host: "h", Name: "../../x"}, {Host: "h"}} {
		if err := d.SetLastRun(bad, compliance.Run{}); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// TestAccessOnlyRises checks that the number of an access document is kept for each address, and never goes down.
func TestAccessOnlyRises(t *testing.T) {
	root := t.TempDir()
	dir := state.Open(root, snapshot.RepositoryID{1})
	if got := dir.Access("/a"); got != 0 {
		t.Errorf("unknown: %d", got)
	}
	for _, set := range []struct {
		address string
		number  uint64
	}{{"/a", 2}, {"/b", 1}, {"/a", 1}, {"/a", 3}} {
		if err := dir.SetAccess(set.address, set.number); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := dir.Access("/a"), dir.Access("/b"); a != 3 || b != 1 {
		t.Errorf("%d and %d, want 3 and 1", a, b)
	}
	if got := state.Open(root, snapshot.RepositoryID{2}).Access("/a"); got != 0 {
		t.Errorf("of another repository: %d", got)
	}
}
