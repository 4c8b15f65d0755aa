package storetest

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// VersionedStore is a store that keeps versions.
type VersionedStore interface {
	objstore.Store
	objstore.Versioned
}

// RunVersions checks that a store keeps versions as [objstore.Versioned] says. Overwrite puts a version over what is
// under a key by other means, which the store itself refuses.
func RunVersions(t *testing.T, s VersionedStore, overwrite func(key, data string)) {
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	put := func(key, data string) {
		t.Helper()
		must(s.Put(ctx, key, objstore.Bytes([]byte(data))))
	}
	put("d/a", "first")
	put("d/a-", "longer name")
	put("d/b", "b")
	put("e", "e")
	overwrite("d/a", "garbage")
	must(s.Hide(ctx, "d/b"))
	must(s.Hide(ctx, "d/a"))
	must(s.PutVersion(ctx, "d/a", objstore.Bytes([]byte("first"))))
	wrong := objstore.Bytes([]byte("first"))
	wrong.SHA256[0] ^= 1
	if err := s.PutVersion(ctx, "d/a", wrong); !errors.Is(err, objstore.ErrChecksum) {
		t.Errorf("wrong checksum: %v", err)
	}

	all := versionsOf(t, s, "d/")
	want := map[string][]string{"d/a": {"first", "-", "garbage", "first"}, "d/a-": {"longer name"}, "d/b": {"-", "b"}}
	if diff := cmp.Diff(want, contents(t, s, all)); diff != "" {
		t.Fatal(diff)
	}
	for key, versions := range all {
		for i, v := range versions {
			if v.Key != key || v.Current != (i == 0) || time.Since(v.Modified).Abs() > time.Hour {
				t.Errorf("%+v", v)
			}
		}
	}
	part, err := s.GetVersion(ctx, "d/a", all["d/a"][2].ID, 3, 2)
	must(err)
	if got, err := io.ReadAll(part); string(got) != "ba" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	must(part.Close())
	if _, err := s.GetVersion(ctx, "d/a", all["d/b"][1].ID, 0, -1); !errors.Is(err, objstore.ErrNotExist) {
		t.Errorf("a version of another key: %v", err)
	}
	stop := errors.New("stop")
	if err := s.ListVersions(ctx, "", func(objstore.Version) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("fn's error: %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.ListVersions(ended, "", func(objstore.Version) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("ended: %v", err)
	}

	// Without its marker the object is there again.
	must(s.DeleteVersion(ctx, "d/b", all["d/b"][0].ID))
	must(s.DeleteVersion(ctx, "d/b", all["d/b"][0].ID))
	if b, err := objstore.ReadAll(ctx, s, "d/b", 100); string(b) != "b" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	// Delete removes all of it.
	must(s.Delete(ctx, "d/a"))
	if left := versionsOf(t, s, "d/a"); len(left) != 1 || len(left["d/a-"]) != 1 {
		t.Errorf("left: %v", left)
	}
}

func versionsOf(t *testing.T, s objstore.Versioned, prefix string) map[string][]objstore.Version {
	t.Helper()
	out, last := map[string][]objstore.Version{}, ""
	err := s.ListVersions(t.Context(), prefix, func(v objstore.Version) error {
		if v.Key < last {
			t.Errorf("%s comes after %s", v.Key, last)
		}
		last = v.Key
		out[v.Key] = append(out[v.Key], v)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// contents reads all versions; a marker is "-".
func contents(t *testing.T, s objstore.Versioned, all map[string][]objstore.Version) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for key, versions := range all {
		for _, v := range versions {
			if v.DeleteMarker {
				out[key] = append(out[key], "-")
				continue
			}
			r, err := s.GetVersion(t.Context(), key, v.ID, 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r)
			if err != nil || int64(len(b)) != v.Size {
				t.Errorf("%+v: %d bytes, %v", v, len(b), err)
			}
			_ = r.Close()
			out[key] = append(out[key], string(b))
		}
	}
	return out
}
