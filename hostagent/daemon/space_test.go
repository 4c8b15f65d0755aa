package daemon

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/btcdecoded/holdfast/shared/policy"
)

// TestFreeBytes looks at places that are there, that are not yet, and where an earlier look hangs.
func TestFreeBytes(t *testing.T) { synctest.Test(t, freeBytes) }

// freeBytes runs in a bubble: there the patience ends only if the look does hang, however slow the machine is.
func freeBytes(t *testing.T) {
	dir := t.TempDir()
	later := filepath.Join(dir, "not", "yet")
	a := New(Config{})
	free := a.freeBytes([]string{dir, later})
	if free[dir] == 0 || free[later] == 0 {
		t.Errorf("%v", free)
	}
	for a.looking.Load() { // the goroutine has answered and is about to end
		time.Sleep(time.Millisecond)
	}
	a.looking.Store(true)
	if free := a.freeBytes([]string{dir}); free != nil {
		t.Errorf("two looks at a time: %v", free)
	}
	if _, err := os.Stat(later); err == nil {
		t.Error("a look makes directories")
	}
}

func TestPlaces(t *testing.T) {
	p, err := policy.Parse([]byte(`
version: 1
approvers: []
hosts:
  a:
    restore: {targets: [/srv/restore, /mnt/big], in_place: true}
    sources:
      etc: {files: {roots: [/etc]}}
      two: {files: {roots: [/home, /etc]}}
  b:
    restore: {targets: [/srv/b]}
    sources: {etc: {files: {roots: [/etc]}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string][]string{
		"a": {"/etc", "/home", "/mnt/big", "/srv/restore"}, "b": {"/srv/b"}, "none": nil,
	} {
		if got := places(p, host); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", host, got, want)
		}
	}
}
