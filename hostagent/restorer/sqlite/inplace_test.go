package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/restorer/steps"
)

// old makes a place with a database as an application leaves it that was killed: rows 1 to 20 in the file, 21 to 30 in the
// WAL alone.
func old(t *testing.T, base string) string {
	t.Helper()
	live := filepath.Join(t.TempDir(), "live")
	app := connect(t, live, "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE old(x);"+rows(1, 20)+"PRAGMA wal_checkpoint(TRUNCATE);"+rows(21, 30))
	place := filepath.Join(t.TempDir(), base)
	for _, side := range []string{"", "-wal", "-shm"} {
		if err := os.WriteFile(place+side, read(t, live+side), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	app.kill()
	return place
}

func rows(from, to int) string {
	return fmt.Sprintf("WITH RECURSIVE c(i) AS (SELECT %d UNION ALL SELECT i+1 FROM c WHERE i<%d) INSERT INTO old SELECT i FROM c;", from, to)
}

// state says what an opener sees at a place: "old" and "new" are whole, "shut" can't be opened, anything else is wrong. It
// looks at a copy, because looking would change what is there.
func state(t *testing.T, place string) string {
	t.Helper()
	st, err := os.Lstat(place)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "absent"
	case err != nil:
		t.Fatal(err)
	case st.IsDir():
		if out, err := trySQLite(place, "CREATE TABLE x(y);"); err == nil {
			t.Fatalf("the barrier opens: %s", out)
		}
		return "shut"
	}
	to := filepath.Join(t.TempDir(), "db")
	for _, side := range append([]string{""}, sides()...) {
		b, err := os.ReadFile(place + side)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to+side, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := trySQLite(to, "PRAGMA integrity_check; SELECT group_concat(name) FROM sqlite_schema; ")
	switch {
	case err == nil && out == "ok\nold":
		if got := sqlite(t, to, "SELECT count(*), min(x), max(x) FROM old;"); got != "30|1|30" {
			return "old with rows " + got
		}
		return "old"
	case err == nil && out == "ok\nnew":
		return "new"
	}
	return fmt.Sprintf("%q, %v", out, err)
}

// app is an application as hooks see it: it notes what was done to it.
type app struct {
	done      []string
	failStart int // how often it does not start
	sick      bool
}

func (a *app) options() Options {
	return Options{Application: steps.Application{
		Stop: func(context.Context) error { a.done = append(a.done, "stop"); return nil },
		Start: func(context.Context) error {
			a.done = append(a.done, "start")
			if a.failStart > 0 {
				a.failStart--
				return errors.New("exit status 1")
			}
			return nil
		},
		Healthy: func(context.Context) error {
			a.done = append(a.done, "health")
			if a.sick {
				return errors.New("no answer")
			}
			return nil
		},
	}}
}

func (a *app) was(t *testing.T, want string) {
	t.Helper()
	if got := strings.Join(a.done, " "); got != want {
		t.Errorf("the application was told %q, want %q", got, want)
	}
}

func TestInPlace(t *testing.T) {
	for _, plain := range []bool{false, true} {
		place := old(t, "app.db")
		if err := os.Chmod(place, 0o604); err != nil {
			t.Fatal(err)
		}
		if err := unix.Setxattr(place, "user.label", []byte("x"), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			t.Fatal(err)
		}
		labelled := unix.Setxattr(place, "user.label", []byte("x"), 0) == nil
		var a app
		o := a.options()
		o.plainRename = plain
		r, err := InPlace(context.Background(), place, opener(source(restoredBytes(t, 50))), o)
		if err != nil {
			t.Fatal(err)
		}
		a.was(t, "stop start health")
		if got := state(t, place); got != "new" {
			t.Error(got)
		}
		if got := state(t, filepath.Join(r.Safety, "app.db")); got != "old" {
			t.Errorf("safety copy: %s", got)
		}
		if got := names(t, filepath.Dir(place)); got != "app.db "+filepath.Base(r.Safety) {
			t.Error(got)
		}
		st, err := os.Stat(place)
		if err != nil || st.Mode() != 0o604 {
			t.Error(st.Mode(), err)
		}
		value := make([]byte, 8)
		if n, err := unix.Getxattr(place, "user.label", value); labelled && (err != nil || string(value[:n]) != "x") {
			t.Errorf("the attribute is %q, %v", value[:max(n, 0)], err)
		}
	}
}

func TestInPlaceOfNothing(t *testing.T) {
	place := filepath.Join(t.TempDir(), "gone", "app.db")
	var a app
	r, err := InPlace(context.Background(), place, opener(source(restoredBytes(t, 50))), a.options())
	if err != nil {
		t.Fatal(err)
	}
	if got := state(t, place); got != "new" || r.Safety != "" || names(t, filepath.Dir(place)) != "app.db" {
		t.Errorf("%s, %+v, %s", got, r, names(t, filepath.Dir(place)))
	}
	// What only stood beside is kept.
	other := filepath.Join(t.TempDir(), "app.db")
	if err := os.WriteFile(other+"-wal", []byte("rest"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err = InPlace(context.Background(), other, opener(source(restoredBytes(t, 50))), a.options()); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(r.Safety, "app.db-wal")); string(got) != "rest" || state(t, other) != "new" {
		t.Errorf("%q, %s", got, state(t, other))
	}
	// And comes back where the application does not like what it got.
	a.sick = true
	third := filepath.Join(t.TempDir(), "app.db")
	if err := os.WriteFile(third+"-wal", []byte("rest"), 0o600); err != nil {
		t.Fatal(err)
	}
	var e *StepError
	if _, err = InPlace(context.Background(), third, opener(source(restoredBytes(t, 50))), a.options()); !errors.As(err, &e) || e.Back != nil {
		t.Fatal(err)
	}
	if got := names(t, filepath.Dir(third)); got != "app.db-wal "+filepath.Base(e.Failed) || state(t, third) != "absent" {
		t.Error(got)
	}
}

func TestThroughLinks(t *testing.T) {
	place := old(t, "real.db")
	link := filepath.Join(t.TempDir(), "app.db")
	if err := os.Symlink(place, link); err != nil {
		t.Fatal(err)
	}
	r, err := InPlace(context.Background(), link, opener(source(restoredBytes(t, 50))), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(link); err != nil || to != place || state(t, place) != "new" || r.Path != place {
		t.Errorf("%s, %v, %s, %+v", to, err, state(t, place), r)
	}
}

// TestNotHealthy puts back what was there when the application does not start, or is not well, with what was restored.
func TestNotHealthy(t *testing.T) {
	for _, plain := range []bool{false, true} {
		for name, a := range map[string]*app{steps.Start: {failStart: 1}, steps.Health: {sick: true}} {
			place := old(t, "app.db")
			o := a.options()
			o.plainRename = plain
			start := o.Start
			o.Start = func(ctx context.Context) error { // it writes, as applications do when they start
				if state(t, place) == "new" {
					connect(t, place, "PRAGMA journal_mode=WAL; INSERT INTO new VALUES ('by the application');").kill()
				}
				return start(ctx)
			}
			_, err := InPlace(context.Background(), place, opener(source(restoredBytes(t, 50))), o)
			var e *StepError
			if !errors.As(err, &e) || e.Step != name || e.Back != nil || e.Start != nil || e.Failed == "" {
				t.Fatalf("%s: %v", name, err)
			}
			if got := state(t, place); got != "old" {
				t.Errorf("%s: %s", name, got)
			}
			if got := sqlite(t, filepath.Join(e.Failed, "app.db"), "SELECT count(*) FROM new;"); got != "51" {
				t.Errorf("%s: what was restored, and written since, has %s rows", name, got)
			}
			if got := names(t, filepath.Dir(place)); got != "app.db "+filepath.Base(e.Failed)+" app.db-shm app.db-wal" && got != "app.db app.db-shm app.db-wal "+filepath.Base(e.Failed) {
				t.Errorf("%s: %s", name, got)
			}
			if !strings.Contains(err.Error(), "everything is as it was") {
				t.Error(err)
			}
			if name == steps.Health {
				a.was(t, "stop start health stop start")
			} else {
				a.was(t, "stop start stop start")
			}
		}
	}
}

// TestEachStepFails lets one step after the other fail: everything is as it was, and the application runs.
func TestEachStepFails(t *testing.T) {
	src := source(restoredBytes(t, 50))
	wrong := errors.New("injected")
	for _, plain := range []bool{false, true} {
		for _, at := range forwardSteps(plain) {
			place := old(t, "app.db")
			var a app
			o := a.options()
			o.plainRename = plain
			o.fault = func(step string) error {
				if step == at {
					at = "" // once: putting back goes through some of the same
					return wrong
				}
				return nil
			}
			failing := at
			_, err := InPlace(context.Background(), place, opener(src), o)
			var e *StepError
			if !errors.As(err, &e) || !errors.Is(err, wrong) || e.Back != nil {
				t.Errorf("%s: %v", failing, err)
				continue
			}
			if got := state(t, place); got != "old" {
				t.Errorf("%s: %s", failing, got)
			}
			if got := names(t, filepath.Dir(place)); e.Failed == "" && got != "app.db app.db-shm app.db-wal" {
				t.Errorf("%s: left: %s", failing, got)
			}
			if n := len(a.done); n > 0 && a.done[n-1] != "start" {
				t.Errorf("%s: %q", failing, a.done)
			}
		}
	}
}

// forwardSteps are all at which something can fail on the way to the new database.
func forwardSteps(plain bool) []string {
	points := []string{
		StepBuild, StepSync, steps.Stop, StepInUse, StepSwap, "mark", "safety", "barrier", "hide", "hidden", "aside-wal", "aside-journal", "aside-shm",
		"reveal", "settle", steps.Start, steps.Health,
	}
	if plain {
		points = append(points, "waiting", "absent")
	}
	return points
}

func TestProofStopsTheSwap(t *testing.T) {
	place := old(t, "app.db")
	wrong := errors.New("integrity_check: the database is damaged")
	var a app
	o := a.options()
	o.Prove = func(context.Context, string) error { return wrong }
	if _, err := InPlace(context.Background(), place, opener(source(restoredBytes(t, 50))), o); !errors.Is(err, wrong) {
		t.Error(err)
	}
	a.was(t, "") // a moment is built before the application is stopped
	o.StopFirst = true
	if _, err := InPlace(context.Background(), place, opener(source(restoredBytes(t, 50))), o); !errors.Is(err, wrong) {
		t.Error(err)
	}
	a.was(t, "stop start")
	if got := state(t, place); got != "old" || names(t, filepath.Dir(place)) != "app.db app.db-shm app.db-wal" {
		t.Errorf("%s, %s", got, names(t, filepath.Dir(place)))
	}
}

// TestInUse refuses while somebody has the database open, busy or idle, in every journal mode.
func TestInUse(t *testing.T) {
	for name, sql := range map[string]string{
		"wal, idle":          "PRAGMA journal_mode=WAL; INSERT INTO old VALUES (31);",
		"rollback, reading":  "PRAGMA journal_mode=DELETE; BEGIN; SELECT count(*) FROM old;",
		"rollback, writing":  "PRAGMA journal_mode=DELETE; BEGIN IMMEDIATE; INSERT INTO old VALUES (31);",
		"rollback, idle":     "PRAGMA journal_mode=DELETE; SELECT count(*) FROM old;",
		"exclusive, writing": "PRAGMA journal_mode=DELETE; PRAGMA locking_mode=EXCLUSIVE; INSERT INTO old VALUES (31);",
	} {
		place := old(t, "app.db")
		other := connect(t, place, sql)
		before := names(t, filepath.Dir(place))
		src := source(restoredBytes(t, 50))
		_, err := InPlace(context.Background(), place, opener(src), Options{})
		var e *StepError
		if !errors.Is(err, ErrInUse) || !errors.As(err, &e) || e.Step != StepInUse {
			t.Errorf("%s: %v", name, err)
		}
		if got := names(t, filepath.Dir(place)); got != before {
			t.Errorf("%s: %s", name, got)
		}
		// A stop hook that really stops it.
		r, err := InPlace(context.Background(), place, opener(src), Options{Application: steps.Application{Stop: func(context.Context) error { other.kill(); return nil }}})
		if err != nil || state(t, place) != "new" || r.Safety == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	place := old(t, "app.db")
	connect(t, place, "PRAGMA journal_mode=WAL; SELECT count(*) FROM old;")
	r, err := InPlace(context.Background(), place, opener(source(restoredBytes(t, 50))), Options{Force: true})
	if err != nil || state(t, place) != "new" || len(r.Warnings) == 0 {
		t.Errorf("forced: %v", err)
	}
}

// TestLateOpener lets somebody open the database between the look and the barrier.
func TestLateOpener(t *testing.T) {
	place := old(t, "app.db")
	var late *connection
	o := Options{fault: func(step string) error {
		if step == "hide" {
			late = connect(t, place, "PRAGMA busy_timeout=0;") // open and locked out: it has seen nothing yet
			if _, err := late.in.Write([]byte("SELECT 1 FROM old;\n")); err != nil {
				t.Error(err)
			}
		}
		return nil
	}}
	_, err := InPlace(context.Background(), place, opener(source(restoredBytes(t, 50))), o)
	late.kill()
	// sqlite3 opens a database with its first statement: it may have come too late to be seen.
	if err != nil && !errors.Is(err, ErrInUse) {
		t.Error(err)
	}
	if got, want := state(t, place), map[bool]string{true: "new", false: "old"}[err == nil]; got != want {
		t.Errorf("%s, want %s (%v)", got, want, err)
	}
}
