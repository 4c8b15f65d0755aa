package cli_test

import (
	"bytes"
	"context"
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

// TestUnlistedDirectoryIsIncomplete restores a snapshot of which one directory could not be listed: it is named, and the
// exit code says that the restore is not complete. The snapshot is made by hand, for root can list everything.
func TestUnlistedDirectoryIsIncomplete(t *testing.T) {
	dir := t.TempDir()
	makeUnlisted(t, dir)
	restore := func(paths ...string) (int, string) {
		var out, errs bytes.Buffer
		args := append([]string{
			"restore", "--repository", dir + "/repo", "--identity", dir + "/identity", "--state", dir + "/state", "--policy", "",
			"--host", "h", "s", "--to", filepath.Join(dir, "out"),
		}, paths...)
		code := cli.Main(t.Context(), args, cli.Stdio{In: strings.NewReader(""), Out: &out, Err: &errs}, "test")
		return code, out.String() + errs.String()
	}
	code, text := restore()
	if code != 3 || !strings.Contains(text, "warning: the backup could not list /root/closed") || !strings.Contains(text, "INCOMPLETE") {
		t.Errorf("exit code %d\n%s", code, text)
	}
	if code, text := restore("--json"); code != 3 || !strings.Contains(text, `"unlisted":["/root/closed"]`) {
		t.Errorf("exit code %d\n%s", code, text)
	}
	if code, text := restore("/root/open"); code != 0 || strings.Contains(text, "closed") {
		t.Errorf("of another directory: exit code %d\n%s", code, text)
	}
}

// makeUnlisted makes an identity and a repository with such a snapshot below dir.
func makeUnlisted(t *testing.T, dir string) {
	t.Helper()
	id, err := keyring.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	if err := id.WriteFile(dir + "/identity"); err != nil {
		t.Fatal(err)
	}
	store, err := file.Open(dir + "/repo")
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	repo, err := repository.Init(ctx, store, id, id.Recipients(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	session, err := repo.Begin(ctx, repository.BeginOptions{
		Source: snapshot.Source{Host: "h", Name: "s"}, Kind: "files", State: dir + "/state", Tool: "test", Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = session.Close() }()
	for _, e := range []snapshot.Entry{
		{Path: "/root", Type: snapshot.Directory, Mode: 0o755},
		{Path: "/root/closed", Type: snapshot.Directory, Mode: 0o755, Unreadable: true},
		{Path: "/root/open", Type: snapshot.Directory, Mode: 0o755},
	} {
		if err := session.Emit(ctx, &e); err != nil {
			t.Fatal(err)
		}
	}
	_, err = session.Commit(ctx, repository.Result{
		Roots: []string{"/root"}, Counts: snapshot.Counts{Directories: 3, Errors: 1}, Partial: true, Started: time.Now(),
		Problems: []snapshot.Problem{{Path: []byte("/root/closed"), Operation: "list", Error: "permission denied"}},
	})
	if err != nil {
		t.Fatal(err)
	}
}
