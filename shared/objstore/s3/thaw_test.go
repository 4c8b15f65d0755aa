package s3_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/retry"
)

// glacier answers as the documentation of S3 says that it does for archived objects; no server that tests can start has
// them. See https://docs.aws.amazon.com/AmazonS3/latest/API/API_RestoreObject.html and API_ListObjectsV2.html.
type glacier struct {
	mu     sync.Mutex
	states map[string]string // by key: "", asked or there; guarded by mu
	bodies []string          // of requests; guarded by mu
	busy   bool              // the next answer is 503; guarded by mu
}

func (g *glacier) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	g.mu.Lock()
	defer g.mu.Unlock()
	fail := func(status int, code string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `<Error><Code>%s</Code><Message>no</Message></Error>`, code)
	}
	if g.busy {
		g.busy = false
		fail(http.StatusServiceUnavailable, "SlowDown")
		return
	}
	if r.Method == http.MethodPost && r.URL.Query().Has("restore") {
		g.bodies = append(g.bodies, string(body))
		switch key := strings.TrimPrefix(r.URL.Path, "/b/"); key {
		case "none":
			fail(http.StatusNotFound, "NoSuchKey")
		case "denied":
			fail(http.StatusForbidden, "AccessDenied")
		case "warm":
			fail(http.StatusForbidden, "InvalidObjectState")
		default:
			switch g.states[key] {
			case "asked":
				fail(http.StatusConflict, "RestoreAlreadyInProgress")
			case "there":
				w.WriteHeader(http.StatusOK)
			default:
				g.states[key] = "asked"
				w.WriteHeader(http.StatusAccepted)
			}
		}
		return
	}
	status := func(key string) string {
		if r.Header.Get("x-amz-optional-object-attributes") != "RestoreStatus" {
			return ""
		}
		return map[string]string{
			"asked": "<RestoreStatus><IsRestoreInProgress>true</IsRestoreInProgress></RestoreStatus>",
			"there": "<RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress><RestoreExpiryDate>2026-12-21T00:00:00.000Z</RestoreExpiryDate></RestoreStatus>",
		}[g.states[key]]
	}
	fmt.Fprint(w, `<ListBucketResult><IsTruncated>false</IsTruncated>`)
	for _, o := range [][2]string{{"a", "DEEP_ARCHIVE"}, {"b", "GLACIER"}, {"c", "GLACIER_IR"}, {"d", "STANDARD"}} {
		fmt.Fprintf(w, `<Contents><Key>%s</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>5</Size><StorageClass>%s</StorageClass>%s</Contents>`, o[0], o[1], status(o[0]))
	}
	fmt.Fprint(w, `</ListBucketResult>`)
}

func TestThaw(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "a")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "b")
	g := &glacier{states: map[string]string{}}
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	s := retry.New(open(t, server.URL, "b", ""), retry.Options{First: time.Millisecond, Longest: 5 * time.Millisecond})
	thaws := func() map[string]objstore.Thaw {
		t.Helper()
		out := map[string]objstore.Thaw{}
		if err := s.ListThaws(t.Context(), "", func(i objstore.Info, th objstore.Thaw) error {
			out[i.Key] = th
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if len(out) != 4 {
			t.Errorf("%v", out)
		}
		return out
	}
	if got := thaws(); got["a"] != (objstore.Thaw{}) || got["d"] != (objstore.Thaw{}) {
		t.Errorf("%v", got)
	}
	g.busy = true
	for range 2 { // it is on its way: no error
		if err := s.Thaw(t.Context(), "a", 3, objstore.ThawBulk); err != nil {
			t.Fatal(err)
		}
	}
	if b := g.bodies[0]; !strings.Contains(b, "<Days>3</Days>") || !strings.Contains(b, "<Tier>Bulk</Tier>") {
		t.Error(b)
	}
	if got := thaws()["a"]; !got.Asked || !got.Until.IsZero() {
		t.Errorf("%+v", got)
	}
	g.states["a"] = "there"
	if err := s.Thaw(t.Context(), "a", 3, objstore.ThawStandard); err != nil { // prolongs
		t.Fatal(err)
	}
	if got := thaws()["a"]; got.Asked || !got.Until.Equal(time.Date(2026, 12, 21, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("%+v", got)
	}
	for key, want := range map[string]error{"none": objstore.ErrNotExist, "denied": objstore.ErrDenied, "warm": objstore.ErrNoThaw} {
		if err := s.Thaw(t.Context(), key, 3, objstore.ThawStandard); !errors.Is(err, want) {
			t.Errorf("%s: %v", key, err)
		}
	}
	for _, days := range []int{0, objstore.MaxThawDays + 1} {
		if err := s.Thaw(t.Context(), "b", days, objstore.ThawStandard); err == nil {
			t.Errorf("for %d days", days)
		}
	}
	// A plain listing asks for nothing more than before.
	if err := s.List(t.Context(), "", func(i objstore.Info) error {
		if want := map[string]objstore.Class{"a": objstore.Deep, "b": objstore.Frozen, "c": objstore.Cool, "d": objstore.Warm}; i.Class != want[i.Key] {
			t.Errorf("%s: %d", i.Key, i.Class)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
