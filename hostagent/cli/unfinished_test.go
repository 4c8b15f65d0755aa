package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/cli"
	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore/file"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestUnfinishedSnapshots has a long full that was killed after it had committed what it had.
func TestUnfinishedSnapshots(t *testing.T) {
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	for _, name := range []string{"a", "b", "c"} {
		if err := os.MkdirAll(tree, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tree, name), bytes.Repeat([]byte(name), 70<<10), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	holdfast := func(want int, args ...string) string {
		t.Helper()
		var out bytes.Buffer
		args = append(args, "--repository", dir+"/repo", "--identity", dir+"/identity", "--state", dir+"/state", "--policy", "", "--host", "h")
		if got := cli.Main(t.Context(), args, cli.Stdio{In: strings.NewReader(""), Out: &out, Err: &out}, "test"); got != want {
			t.Fatalf("holdfast %s: exit code %d\n%s", strings.Join(args, " "), got, out.String())
		}
		return out.String()
	}
	holdfast(0, "init", "-q")
	if out := holdfast(0, "backup", "--files", tree, "--name", "s", "--checkpoint", "1ns"); !strings.Contains(out, "s@1 is saved, unfinished: ") {
		t.Error(out)
	}
	done := holdfast(0, "snapshots", "s", "--last", "1")
	if !strings.Contains(done, "ok") || !strings.Contains(done, "full") || strings.Contains(done, "unfinished") {
		t.Error(done)
	}
	holdfast(0, "verify", "--level", "content", "--all")
	interruptFull(t, dir, tree)
	if out := holdfast(0, "snapshots", "s", "--last", "1"); !strings.Contains(out, "unfinished, partial") {
		t.Error(out)
	}
	number := strings.TrimPrefix(strings.Fields(holdfast(0, "snapshots", "s", "--last", "1"))[10], "s@")
	if out := holdfast(0, "ls", "s", tree); !strings.Contains(out, "a") || !strings.Contains(out, "c") {
		t.Errorf("the newest is not the newest finished one:\n%s", out)
	}
	if out := holdfast(0, "restore", "s@"+number, "--to", dir+"/out"); !strings.Contains(out, "@"+number+" is unfinished") {
		t.Error(out)
	}
	if out := holdfast(2, "restore", "s@"+number, "--to", dir+"/out", "--delete"); !strings.Contains(out, "--delete: the snapshot is unfinished") {
		t.Error(out)
	}
	if out := holdfast(0, "backup", "--files", tree, "--name", "s"); !strings.Contains(out, "full (it goes on where the unfinished snapshot "+number+" ended)") {
		t.Error(out)
	}
	holdfast(0, "verify", "--level", "content", "--all")
	holdfast(2, "backup", "--files", tree, "--name", "s", "--checkpoint", "-1s")
}

// interruptFull begins a full, commits its first file on the way and gives up.
func interruptFull(t *testing.T, dir, tree string) {
	t.Helper()
	id, err := keyring.LoadIdentity(dir + "/identity")
	if err != nil {
		t.Fatal(err)
	}
	store, err := file.Open(dir + "/repo")
	if err != nil {
		t.Fatal(err)
	}
	repo, err := repository.Open(t.Context(), store, id)
	if err != nil {
		t.Fatal(err)
	}
	s, err := repo.Begin(t.Context(), repository.BeginOptions{
		Source: snapshot.Source{Host: "h", Name: "s"}, Kind: "files", Type: snapshot.Full, State: dir + "/state", Tool: "test", Now: time.Now,
		Checkpoint: repository.Checkpoint{Every: 1, Roots: []string{tree}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := s.Chunk(t.Context(), snapshot.Content, []byte("new"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []*snapshot.Entry{
		{Path: tree, Type: snapshot.Directory, Mode: 0o755},
		{Path: tree + "/a", Type: snapshot.File, Mode: 0o600, Size: 3, Extents: []snapshot.Extent{{Ref: ref, Length: 3}}},
	} {
		if err := s.Emit(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
