package repository_test

import (
	"bytes"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestReadBack reads what a session has stored before it is committed: new chunks, those of the parent, and of what a
// differential builds on.
func TestReadBack(t *testing.T) {
	r, _ := initialise(t, mem.New())
	state := t.TempDir()
	one := randomFiles(1, 30, 100<<10)
	mustBackup(t, r, state, "", one)
	two := maps.Clone(one)
	for i, content := range [][]byte{[]byte("second"), bytes.Repeat([]byte("long "), 100_000)} {
		two["/etc/new"] = content
		kind := []snapshot.SnapshotType{snapshot.Incremental, snapshot.Differential}[i]
		s, err := begin(t.Context(), r, state, kind)
		if err != nil {
			t.Fatal(err)
		}
		if err := store(t.Context(), s, two); err != nil {
			t.Fatal(err)
		}
		back, err := s.ReadBack(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, old := range []string{"/etc/new", "/etc/d01/f0001"} {
			part := two[old][:min(len(two[old]), 300<<10)]
			ref, err := s.Chunk(t.Context(), snapshot.Content, part)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := back.Chunk(t.Context(), snapshot.Content, ref); err != nil || !bytes.Equal(got, part) {
				t.Errorf("%s: %d bytes instead of %d, %v", old, len(got), len(part), err)
			}
		}
		// What comes after it goes on as ever.
		ref, err := s.Chunk(t.Context(), snapshot.Content, []byte(strings.Repeat("later", i+1)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := back.Chunk(t.Context(), snapshot.Content, ref); err == nil {
			t.Error("what was stored later is in it")
		}
		m, err := s.Commit(t.Context(), repository.Result{Roots: []string{"/etc"}, Started: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		wantRestored(t, r, m, two)
		if _, err := s.ReadBack(t.Context()); err == nil {
			t.Error("a session that is over is read")
		}
	}
}

// TestReadBackIsRefused: a host that may only write is told so, and its backup goes on.
func TestReadBackIsRefused(t *testing.T) {
	m := mem.New()
	r, _ := initialise(t, m)
	s, err := begin(t.Context(), r, t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := store(t.Context(), s, files{"/etc/a": []byte("a")}); err != nil {
		t.Fatal(err)
	}
	ref, err := s.Chunk(t.Context(), snapshot.Content, []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	m.SetHook(func(c mem.Call) mem.Fault {
		if strings.Contains(c.Key, "/packs/") && c.Op == mem.Get {
			return mem.Fault{Err: objstore.ErrDenied}
		}
		return mem.Fault{}
	})
	back, err := s.ReadBack(t.Context())
	if err == nil {
		_, err = back.Chunk(t.Context(), snapshot.Content, ref)
	}
	if !errors.Is(err, objstore.ErrDenied) {
		t.Error(err)
	}
	stored, err := s.Commit(t.Context(), repository.Result{Roots: []string{"/etc"}, Started: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	m.SetHook(nil)
	wantRestored(t, r, stored, files{"/etc/a": []byte("a")})
}
