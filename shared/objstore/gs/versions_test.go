package gs_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/gs"
	"github.com/btcdecoded/holdfast/shared/objstore/storetest"
	"github.com/btcdecoded/holdfast/shared/objstore/versions"
	"github.com/btcdecoded/holdfast/test/bucket"
)

func TestVersions(t *testing.T) {
	server, endpoint := startVersioned(t)
	storetest.RunVersions(t, open(t, gs.Options{Bucket: "bucket", Prefix: "a prefix", Endpoint: endpoint}), func(key, data string) {
		server.mu.Lock()
		defer server.mu.Unlock()
		server.add("a prefix/"+key, []byte(data))
	})
	if t.Failed() {
		t.Log(server)
	}
}

// TestGarbageOverALiveObject takes what lies over an object away in the order in which repair does.
func TestGarbageOverALiveObject(t *testing.T) {
	server, endpoint := startVersioned(t)
	s := open(t, gs.Options{Bucket: "bucket", Endpoint: endpoint})
	if err := s.Put(t.Context(), "a", objstore.Bytes([]byte("good"))); err != nil {
		t.Fatal(err)
	}
	if err := s.Hide(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		server.mu.Lock()
		server.add("a", []byte("garbage"))
		server.mu.Unlock()
	}
	var over []objstore.Version
	err := s.ListVersions(t.Context(), "a", func(v objstore.Version) error {
		over = append([]objstore.Version{v}, over...)
		return nil
	})
	if err != nil || len(over) != 4 || !over[1].DeleteMarker {
		t.Fatalf("%+v, %v", over, err)
	}
	for _, v := range over[1:] {
		if err := s.DeleteVersion(t.Context(), "a", v.ID); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := objstore.ReadAll(t.Context(), s, "a", 100); string(b) != "good" || err != nil {
		t.Errorf("%q, %v\n%s", b, err, server)
	}
}

func TestNoVersions(t *testing.T) {
	server, endpoint := startVersioned(t)
	s := open(t, gs.Options{Bucket: "bucket", Endpoint: endpoint})
	if err := s.Put(t.Context(), "a", objstore.Bytes([]byte("a"))); err != nil {
		t.Fatal(err)
	}
	server.mu.Lock()
	server.disabled = true
	server.mu.Unlock()
	list := func() error { return s.ListVersions(t.Context(), "", func(objstore.Version) error { return nil }) }
	for _, err := range []error{list(), s.Hide(t.Context(), "a"), s.PutVersion(t.Context(), "a", objstore.Bytes(nil))} {
		if !errors.Is(err, objstore.ErrNoVersions) {
			t.Errorf("%v", err)
		}
	}
	// Whoever may not ask for the bucket's settings can list what there is, and not hide what might be lost.
	server.mu.Lock()
	server.disabled, server.denied = false, http.MethodGet+" "
	server.mu.Unlock()
	if err := list(); err != nil {
		t.Error(err)
	}
	if err := s.Hide(t.Context(), "a"); !errors.Is(err, objstore.ErrNoVersions) {
		t.Errorf("%v", err)
	}
	if _, err := s.Stat(t.Context(), "a"); err != nil {
		t.Errorf("hiding deleted it: %v", err)
	}
}

// TestVersionsOfAnotherServer reads the past of a bucket of fake-gcs-server.
func TestVersionsOfAnotherServer(t *testing.T) {
	server := bucket.StartGS(t)
	r, err := http.Post(server.Endpoint+"/storage/v1/b?project=test", "application/json",
		strings.NewReader(`{"name":"bucket","versioning":{"enabled":true}}`))
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Body.Close()
	s := open(t, gs.Options{Bucket: "bucket", Prefix: "p", Endpoint: server.Endpoint})
	if err := s.Put(t.Context(), "a", objstore.Bytes([]byte("good"))); err != nil {
		t.Fatal(err)
	}
	if err := s.PutVersion(t.Context(), "a", objstore.Bytes([]byte("garbage"))); err != nil {
		t.Fatal(err)
	}
	if err := s.Hide(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	var all []objstore.Version
	err = s.ListVersions(t.Context(), "", func(v objstore.Version) error {
		all = append(all, v)
		return nil
	})
	if err != nil || len(all) != 3 || !all[0].DeleteMarker || !all[0].Current || all[2].Size != 4 {
		t.Fatalf("%+v, %v", all, err)
	}
	for i, want := range []string{"garbage", "good"} {
		past, err := versions.AsOf(s, all[i+1].Modified)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := objstore.ReadAll(t.Context(), past, "a", 100); string(b) != want || err != nil {
			t.Errorf("as of %s: %q, %v", fmt.Sprint(all[i+1].Modified), b, err)
		}
	}
}
