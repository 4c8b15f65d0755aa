package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/hostagent/source/files"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func TestParseMounts(t *testing.T) {
	const info = `22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
30 22 0:5 / /srv/app/my\040disk rw - tmpfs tmpfs rw
31 30 0:6 / /srv/app/my\040disk/deep rw - tmpfs tmpfs rw
32 22 0:7 / /srv/application rw - tmpfs tmpfs rw
33 22 0:8 / /srv/app rw - tmpfs tmpfs rw
short line
`
	got := parseMounts(strings.NewReader(info), []string{"/srv/app/", "/srv"})
	want := []string{"/srv/app/my disk", "/srv/app/my disk/deep", "/srv/application", "/srv/app"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := parseMounts(strings.NewReader(info), []string{"/opt"}); got != nil {
		t.Errorf("of another root: %q", got)
	}
}

// TestLeftOutSurvivesTheReport checks that patterns come back from a report byte for byte, and that no line is one of a
// path in a snapshot.
func TestLeftOutSurvivesTheReport(t *testing.T) {
	patterns := []string{"*.log", "", "# comment", "/var/\xff\\ ", "!keep.log"}
	o := files.Options{Roots: []string{"/nowhere"}, Owned: []string{"/srv/app.db"}, CacheDirTag: true, MaxFileSize: 5, OneFileSystem: true}
	problems, err := snapshot.ParseReport(snapshot.MarshalReport(leftOut(&o, patterns)))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range problems {
		got = append(got, p.Operation+" "+string(p.Path))
		if p.Path[0] == '/' {
			t.Errorf("%q is the path of a file", p.Path)
		}
	}
	want := []string{
		"exclude pattern:*.log", "exclude pattern:/var/\xff\\ ", "exclude pattern:!keep.log", "exclude pattern:/srv/app.db",
		"exclude caches selection:", "max file size selection:",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
