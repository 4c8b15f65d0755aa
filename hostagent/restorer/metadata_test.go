package restorer

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/test/trees"
)

// TestAttributesThatDoNotFit restores attributes that no file system takes, or only some: the files are restored.
func TestAttributesThatDoNotFit(t *testing.T) {
	f := newFake("/r")
	f.add(f.dir("/r"))
	for path, size := range map[string]int{"/r/some": 60_000, "/r/none": 65_537} {
		e := f.file(path, "content")
		e.Xattrs = []snapshot.Xattr{{Name: "user.large", Value: make([]byte, size)}}
		f.add(e)
	}
	target := trees.TempDir(t)
	result := restore(t, f, Options{Target: target})
	perfect(t, result)
	if len(result.Warnings) != 1 || result.Warnings[0].Kind != WarnAttribute {
		t.Errorf("got %+v, want one warning", result.Warnings)
	}
	wantContent(t, filepath.Join(target, "some"), "content")
	wantContent(t, filepath.Join(target, "none"), "content")
}

// TestRefusesXattr tells what a file system has against one attribute from what is wrong with the disk.
func TestRefusesXattr(t *testing.T) {
	for err, want := range map[error]bool{unix.ENOSPC: true, unix.EDQUOT: true, unix.E2BIG: true, unix.ERANGE: true, unix.EIO: false, unix.EROFS: false} {
		if refusesXattr(err) != want {
			t.Errorf("%v: got %v", err, !want)
		}
	}
}
