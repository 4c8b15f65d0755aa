package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	pgsource "github.com/btcdecoded/holdfast/hostagent/source/postgres"

	"github.com/btcdecoded/holdfast/hostagent/source/paged/pagedtest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/test/cluster"
)

// session is one of a snapshot in memory that knows small files too.
type session struct {
	*pagedtest.Session
	mu    *sync.Mutex
	files map[string][]snapshot.Extent // guarded by mu
}

func newSession() *session {
	return &session{Session: pagedtest.New(), mu: new(sync.Mutex), files: map[string][]snapshot.Extent{}}
}

// child is the session of a snapshot that builds on this one.
func (s *session) child() *session {
	c := *s
	c.Session = s.Child(s.Captured())
	return &c
}

func fileKey(id snapshot.FileID, size uint64) string { return fmt.Sprintf("%x %d", id, size) }

func (s *session) KnownFile(id snapshot.FileID, size uint64) ([]snapshot.Extent, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.files[fileKey(id, size)]
	return x, ok
}

func (s *session) LearnFile(id snapshot.FileID, size uint64, extents []snapshot.Extent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[fileKey(id, size)] = extents
}

// entry is the entry of a path below the data directory; nil: there is none.
func (s *session) entry(root, rel string) *snapshot.Entry {
	for _, e := range s.Entries {
		if e.Path == filepath.Join(root, rel) {
			return e
		}
	}
	return nil
}

// progress calls a function for each report.
type progress struct {
	add func(bytes uint64)
}

func (p progress) Add(_, bytes, _ uint64) {
	if p.add != nil {
		p.add(bytes)
	}
}

func (progress) Current(string) {}

// notes collects notes.
type notes struct {
	mu  sync.Mutex
	all []string
}

func (n *notes) add(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, text)
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.all, "\n")
}

// capture captures a server, which must work.
func capture(t *testing.T, s *cluster.Server, into *session) *pgsource.Result {
	t.Helper()
	r, err := pgsource.Capture(t.Context(), pgsource.Options{Connection: s.DSN("postgres"), Temp: t.TempDir()}, into, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// fails captures a server, which must not work, and returns the error with its hint.
func fails(t *testing.T, connection string) string {
	t.Helper()
	s := newSession()
	_, err := pgsource.Capture(t.Context(), pgsource.Options{Connection: connection, Temp: t.TempDir()}, s, nil)
	if err == nil {
		t.Fatal("a backup was made")
	}
	if len(s.Entries) > 0 {
		t.Errorf("%d entries were added to the tree by a backup that failed", len(s.Entries))
	}
	return told(err)
}

// told is what a user sees of an error.
func told(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) && h.Hint() != "" {
		return err.Error() + "\nhint: " + h.Hint()
	}
	return err.Error()
}

// wants checks that a text has all parts.
func wants(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("want %q in:\n%s", p, text)
		}
	}
}

// lay writes what a session has into a directory that a server can be started on.
func lay(t *testing.T, s *session, root string) string {
	t.Helper()
	dir := filepath.Join(cluster.Account(t).Dir(t), "restored")
	for _, e := range s.Entries {
		rel, err := filepath.Rel(root, e.Path)
		if err != nil || strings.HasPrefix(rel, "..") {
			t.Fatalf("%s is not below %s", e.Path, root)
		}
		path := filepath.Join(dir, rel)
		switch e.Type {
		case snapshot.Directory:
			err = os.Mkdir(path, 0o700)
		case snapshot.File:
			var content []byte
			if content, err = s.Content(e.Extents, e.Maps); err == nil && uint64(len(content)) != e.Size {
				err = fmt.Errorf("%d bytes, want %d", len(content), e.Size)
			}
			if err == nil {
				err = os.WriteFile(path, content, 0o600)
			}
		default:
			err = fmt.Errorf("a thing of type %c", e.Type)
		}
		if err != nil {
			t.Fatalf("lay out %s: %v", e.Path, err)
		}
	}
	return dir
}

// start starts a server on what a session has.
func start(t *testing.T, s *session, root string) *cluster.Server {
	t.Helper()
	return cluster.Open(t, lay(t, s, root), cluster.Options{})
}

// versions runs a test on each version of PostgreSQL that is there.
func versions(t *testing.T, test func(t *testing.T, version int)) {
	t.Helper()
	for _, v := range cluster.Versions(t) {
		t.Run(fmt.Sprint(v), func(t *testing.T) { test(t, v) })
	}
}

// aside does something all the time, until the function that it returns is called.
func aside(t *testing.T, do func(ctx context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			if err := do(ctx); err != nil && ctx.Err() == nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
