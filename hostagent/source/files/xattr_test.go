package files

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/source/inode"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestInvalidEntryIsLeftOut makes what no tree may hold.
func TestInvalidEntryIsLeftOut(t *testing.T) {
	dir := tree(t, "/a", "/b")
	s := newSession()
	s.known[s.FileID([]byte("/a"))] = nil // a session that claims to know the content, and has nothing
	r := captured(t, s, Options{Roots: []string{dir}})
	if len(r.Problems) != 1 || r.Problems[0].Operation != "check" || len(s.entries) != 2 {
		t.Errorf("%+v", r)
	}
}

// TestUnreadableAttributesAreToldEachTime has attributes that can not be read, of everything that has some, in three
// captures, and can in the last. Only in the first anything is opened for its content.
func TestUnreadableAttributesAreToldEachTime(t *testing.T) {
	dir := tree(t, "/a", "/d/")
	if err := os.Symlink("a", dir+"/l"); err != nil {
		t.Fatal(err)
	}
	sys := realSystem()
	sys.attributes = func(inode.Attributes) ([]snapshot.Xattr, error) { return nil, unix.EACCES }
	s := newSession()
	for run := range 3 {
		if run > 0 {
			s = s.child(time.Now().Add(time.Hour)) // everything is as it was
		}
		r := captureSystem(t, s, Options{Roots: []string{dir}}, sys)
		if r.Counts.Errors != 4 || len(r.Problems) != 4 || r.Problems[3].Operation != "getxattr" || (r.Counts.ReadBytes > 0) != (run == 0) {
			t.Errorf("run %d: %+v", run, r)
		}
		for _, path := range []string{"", "/a", "/d", "/l"} {
			if !s.entry(t, dir+path).LacksXattrs {
				t.Errorf("run %d: %q lacks nothing", run, path)
			}
		}
	}
	s = s.child(time.Now().Add(time.Hour))
	sys.attributes = func(inode.Attributes) ([]snapshot.Xattr, error) {
		return []snapshot.Xattr{{Name: "user.x", Value: []byte("y")}}, nil
	}
	r := captureSystem(t, s, Options{Roots: []string{dir}}, sys)
	if e := s.entry(t, dir+"/a"); r.Counts.Errors != 0 || r.Counts.ReadBytes != 0 || e.LacksXattrs || len(e.Xattrs) != 1 || len(e.Extents) != 1 {
		t.Errorf("%+v, %+v", r, e)
	}
}
