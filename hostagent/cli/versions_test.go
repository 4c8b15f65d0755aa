package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/btcdecoded/holdfast/hostagent/cli"
	"github.com/btcdecoded/holdfast/test/bucket"
)

// TestVersionedBucket puts delete markers and garbage over every object of a repository in a bucket. Before it is
// undeleted, the past can be listed, verified and restored.
func TestVersionedBucket(t *testing.T) {
	server := bucket.StartS3(t)
	server.Make(t, "backups", bucket.Options{Versioned: true})
	home := t.TempDir()
	for name, value := range map[string]string{
		"HOME": home, "XDG_CONFIG_HOME": "", "HOLDFAST_IDENTITY": "", "HOLDFAST_POLICY": "", "HOLDFAST_HOST": "web",
		"HOLDFAST_STATE": filepath.Join(home, "state"), "HOLDFAST_REPOSITORY": server.URL("backups", "p"),
	} {
		t.Setenv(name, value)
	}
	tree := filepath.Join(home, "tree")
	if err := os.MkdirAll(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	content := bytes.Repeat([]byte("what was there\n"), 5000)
	if err := os.WriteFile(filepath.Join(tree, "file"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	holdfast := func(want int, args ...string) string {
		t.Helper()
		var out bytes.Buffer
		if got := cli.Main(t.Context(), args, cli.Stdio{In: strings.NewReader(""), Out: &out, Err: &out}, "test"); got != want {
			t.Fatalf("holdfast %s: exit code %d\n%s", strings.Join(args, " "), got, out.String())
		}
		return out.String()
	}
	holdfast(0, "init", "-q")
	holdfast(0, "backup", "--files", tree, "--name", "etc", "-q")
	before := time.Now().UTC().Format(time.RFC3339Nano)
	time.Sleep(50 * time.Millisecond) // a file's time may be a tick of the kernel's clock old: the next ones must be later
	overwriteAll(t, server, "backups")
	holdfast(10, "snapshots")

	if out := holdfast(0, "snapshots", "--as-of", before); !strings.Contains(out, "etc@1") {
		t.Error(out)
	}
	if out := holdfast(0, "verify", "--as-of", before, "--level", "content"); !strings.Contains(out, "1 of 1 snapshot good") {
		t.Error(out)
	}
	wantRestored := func(name string, args ...string) {
		t.Helper()
		to := filepath.Join(home, name)
		holdfast(0, append([]string{"restore", "etc", "--to", to}, args...)...)
		if got, err := os.ReadFile(filepath.Join(to, "file")); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%v, %d bytes", err, len(got))
		}
	}
	wantRestored("past", "--as-of", before)
	holdfast(1, "backup", "--files", tree, "--name", "etc", "--as-of", before)

	dry := holdfast(0, "repair", "--undelete", "--dry-run")
	if !strings.Contains(dry, "undeleted: v1/repository.json: from under") || !strings.Contains(dry, ", 0 damaged ones left") {
		t.Error(dry)
	}
	holdfast(10, "snapshots")
	holdfast(0, "repair", "--undelete")
	holdfast(0, "verify", "--level", "content")
	wantRestored("now")
	if out := holdfast(0, "repair", "--undelete"); !strings.HasPrefix(out, "undeleted 0 objects") {
		t.Error(out)
	}
}

// overwriteAll puts a marker, or garbage, or both over every object, the repository's own document under a marker.
func overwriteAll(t *testing.T, server *bucket.S3, name string) {
	t.Helper()
	page, err := server.Client.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &name})
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range page.Contents {
		last := strings.HasSuffix(*o.Key, "repository.json")
		if i%3 != 0 || last {
			_, err := server.Client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &name, Key: o.Key, Body: strings.NewReader("garbage")})
			if err != nil {
				t.Fatal(err)
			}
		}
		if i%3 != 1 || last {
			if _, err := server.Client.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &name, Key: o.Key}); err != nil {
				t.Fatal(err)
			}
		}
	}
}
