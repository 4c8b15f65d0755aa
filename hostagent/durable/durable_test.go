package durable_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/btcdecoded/holdfast/hostagent/durable"
)

func TestReplace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	for range 2 {
		if err := durable.Directories(dir); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "file")
	for _, text := range []string{"one", "another"} {
		if err := durable.Replace(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != text {
			t.Errorf("%q, %v", b, err)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	// What can't be put in its place leaves nothing beside it.
	if err := durable.Replace(dir, []byte("text")); err == nil {
		t.Error("it has replaced a directory")
	}
	if err := durable.Directories(path); err == nil {
		t.Error("it has made a directory over a file")
	}
	for _, at := range []string{dir, filepath.Dir(dir)} {
		if list, err := os.ReadDir(at); err != nil || len(list) != 1 {
			t.Errorf("%s: %v, %v", at, list, err)
		}
	}
}
