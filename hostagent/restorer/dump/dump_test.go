package dump

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestProduction restores beside a server's databases, and over them.
func TestProduction(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		name string
		test func(*testing.T, *world)
	}{
		{"beside", testBeside},
		{"selection", testSelection},
		{"cut off", testCutOff},
		{"patient", testPatient},
		{"rights", testRights},
		{"held", testHeld},
		{"in place", testInPlace},
		{"faults", testFaults},
		{"unwell", testUnwell},
	} {
		w.reset(t)
		t.Run(tt.name, func(t *testing.T) { tt.test(t, w) })
	}
}

// testPatient connects as a role whose statements may take little time, and may not write: a restore is neither.
func testPatient(t *testing.T, w *world) {
	conn, err := patient(connector(connection(w.Server, "postgres")+" options='-c statement_timeout=30s -c default_transaction_read_only=on'"))(t.Context(), "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	got, err := rows(t.Context(), conn, "SELECT current_setting('statement_timeout'), current_setting('default_transaction_read_only')")
	if err != nil || got[0][0] != "0" || got[0][1] != "off" {
		t.Errorf("%v, %v", got, err)
	}
}

func testBeside(t *testing.T, w *world) {
	want := w.PsqlIn("governance", sum)
	w.lose()
	for _, jobs := range []int{1, 3} {
		o := w.options("postgres")
		o.Jobs, o.Temp = jobs, t.TempDir()
		name := fmt.Sprintf("recovery_%d", jobs)
		proven := ""
		o.Prove = func(ctx context.Context, database, here string) error {
			proven = database
			if !strings.HasPrefix(here, newPrefix) {
				t.Errorf("%q is proven", here)
			}
			return nil
		}
		r, err := Beside(t.Context(), w.dumps[0], name, o)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.PsqlIn(name, sum); got != want || proven != "governance" || len(r.Warnings) > 0 || r.Bytes != w.dumps[0].Bytes {
			t.Errorf("%s: %s, want %s; %+v", name, got, want, r)
		}
		got := w.Psql(`SELECT pg_get_userbyid(datdba), datacl, (SELECT setconfig FROM pg_db_role_setting WHERE setdatabase = d.oid) FROM pg_database d WHERE datname = '` + name + `'`)
		old := w.Psql(`SELECT pg_get_userbyid(datdba), datacl, (SELECT setconfig FROM pg_db_role_setting WHERE setdatabase = d.oid) FROM pg_database d WHERE datname = 'governance'`)
		if got != old {
			t.Errorf("made as %s, was %s", got, old)
		}
		if left, _ := os.ReadDir(o.Temp); len(left) > 0 {
			t.Errorf("%v is left", left)
		}
		if _, err = Beside(t.Context(), w.dumps[0], name, o); !errors.Is(err, ErrExists) {
			t.Error(err)
		}
	}
	if got := w.databases(); len(got) != 4 {
		t.Errorf("%q", got)
	}
}

func testInPlace(t *testing.T, w *world) {
	want := w.PsqlIn("governance", sum)
	w.lose()
	lost := w.PsqlIn("governance", "SELECT count(*) FROM gov.votes")
	stop := w.visitor(t)
	var called told
	o := w.options("postgres")
	o.Jobs = 2
	o.Stop, o.Start, o.Healthy = called.hook("stop", nil), called.hook("start", nil), called.hook("health", nil)
	r, err := InPlace(t.Context(), w.dumps, o)
	stop()
	if err != nil {
		t.Fatal(err)
	}
	if got := w.PsqlIn("governance", sum); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if !slices.Equal(called.all, []string{"stop", "start", "health"}) {
		t.Errorf("%q", called.all)
	}
	safety := r.Databases[0].Safety
	if got := w.PsqlIn(safety, "SELECT count(*) FROM gov.votes"); got != lost || !strings.HasPrefix(safety, "governance_before_") {
		t.Errorf("%s has %s", safety, got)
	}
	if got := w.Psql("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'governance'"); got != "ours" {
		t.Error(got)
	}
	if got := w.databases(); !slices.Equal(got, []string{"governance", safety, "postgres"}) {
		t.Errorf("%q", got)
	}
	// A dump of all does not have the safety copy.
	if all, _ := dumped(t, w.Server); len(all) != 2 {
		t.Errorf("%d databases are dumped", len(all))
	}
	// Dropped altogether, it comes back as well.
	w.Psql("DROP DATABASE governance WITH (FORCE)")
	if r, err = InPlace(t.Context(), w.dumps, w.options("postgres")); err != nil || r.Databases[0].Safety != "" {
		t.Fatal(err, r)
	}
	if got := w.PsqlIn("governance", sum); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// testFaults lets each step fail: all is as it was, or all is done.
func testFaults(t *testing.T, w *world) {
	want := w.PsqlIn("governance", sum)
	w.lose()
	lost := w.PsqlIn("governance", sum)
	broken := errors.New("broken")
	for _, step := range []string{StepPrepare, StepFetch, StepRestore, StepAnalyze, StepProve, StepStop, StepExchange, "commit", StepStart, StepHealth} {
		t.Run(step, func(t *testing.T) {
			var called told
			o := w.options("postgres")
			o.Jobs = 2
			o.Stop, o.Start, o.Healthy = called.hook("stop", nil), called.hook("start", nil), called.hook("health", nil)
			o.Prove = func(context.Context, string, string) error { return nil }
			failed := false
			o.fault = func(at string) error {
				if at == step && !failed {
					failed = true
					return broken
				}
				return nil
			}
			_, err := InPlace(t.Context(), w.dumps, o)
			var e *StepError
			if !errors.As(err, &e) || !errors.Is(err, broken) || e.Back != nil {
				t.Fatal(err)
			}
			if got := w.PsqlIn("governance", sum); got != lost {
				t.Errorf("%s, was %s", got, lost)
			}
			if got := w.databases(); !slices.Equal(got, []string{"governance", "postgres"}) {
				t.Errorf("%q", got)
			}
			if got := w.Psql("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'governance'"); got != "ours" {
				t.Error(got)
			}
			if n := len(called.all); slices.Contains(called.all, "stop") && called.all[n-1] != "start" {
				t.Errorf("stopped for ever: %q", called.all)
			}
		})
	}
	// The answer to the commit is lost: it has happened.
	o := w.options("postgres")
	o.fault = func(at string) error {
		if at == "committed" {
			return broken
		}
		return nil
	}
	r, err := InPlace(t.Context(), w.dumps, o)
	if err != nil || len(r.Warnings) != 1 {
		t.Fatal(err, r)
	}
	if got := w.PsqlIn("governance", sum); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// testUnwell: an application that is not well with the new database gets the old one back.
func testUnwell(t *testing.T, w *world) {
	w.lose()
	lost := w.PsqlIn("governance", sum)
	unwell := errors.New("not well")
	for name, set := range map[string]func(o *Options, s *told){
		"health": func(o *Options, s *told) { o.Healthy = s.hook("health", &unwell) },
		"start": func(o *Options, s *told) {
			first := true
			o.Start = func(ctx context.Context) error {
				err := s.hook("start", nil)(ctx)
				if first {
					first, err = false, unwell
				}
				return err
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var called told
			o := w.options("postgres")
			o.Stop, o.Start = called.hook("stop", nil), called.hook("start", nil)
			set(&o, &called)
			stop := w.visitor(t)
			_, err := InPlace(t.Context(), w.dumps, o)
			stop()
			var e *StepError
			if !errors.As(err, &e) || !errors.Is(err, unwell) || e.Back != nil || e.Start != nil {
				t.Fatal(err)
			}
			if got := w.PsqlIn("governance", sum); got != lost {
				t.Errorf("%s, was %s", got, lost)
			}
			if got := w.databases(); !slices.Equal(got, []string{"governance", "postgres"}) {
				t.Errorf("%q", got)
			}
			if n := len(called.all); called.all[n-1] != "start" {
				t.Errorf("%q", called.all)
			}
		})
	}
	// Where there was no database, there is none again.
	w.Psql("DROP DATABASE governance WITH (FORCE)")
	o := w.options("postgres")
	o.Healthy = func(context.Context) error { return unwell }
	if _, err := InPlace(t.Context(), w.dumps, o); !errors.Is(err, unwell) {
		t.Error(err)
	}
	if got := w.databases(); !slices.Equal(got, []string{"postgres"}) {
		t.Errorf("%q", got)
	}
}

// testCutOff: of a dump that is not whole nothing stays.
func testCutOff(t *testing.T, w *world) {
	whole := w.dumps[0].Write
	broken := errors.New("broken")
	var text bytes.Buffer
	if err := whole(t.Context(), &text); err != nil {
		t.Fatal(err)
	}
	for name, write := range map[string]func(ctx context.Context, w io.Writer) error{
		"ends early": func(_ context.Context, w io.Writer) error {
			_, err := w.Write(text.Bytes()[:text.Len()*3/4])
			return err
		},
		"fails": func(_ context.Context, w io.Writer) error {
			_, err := w.Write(text.Bytes()[:text.Len()*3/4])
			return errors.Join(err, broken)
		},
		"no dump": func(_ context.Context, w io.Writer) error {
			_, err := io.WriteString(w, "hello")
			return err
		},
	} {
		for _, jobs := range []int{1, 2} {
			d := w.dumps[0]
			d.Write = write
			o := w.options("postgres")
			o.Jobs = jobs
			if _, err := Beside(t.Context(), d, "beside", o); err == nil || name == "fails" && !errors.Is(err, broken) {
				t.Errorf("%s with %d jobs: %v", name, jobs, err)
			}
			if got := w.databases(); !slices.Equal(got, []string{"governance", "postgres"}) {
				t.Errorf("%q", got)
			}
		}
	}
}

func testSelection(t *testing.T, w *world) {
	for _, jobs := range []int{1, 2} {
		o := w.options("postgres")
		o.Jobs = jobs
		o.Select = &Selection{Tables: []string{"gov.vot*"}}
		name := fmt.Sprintf("votes%d", jobs)
		if _, err := Beside(t.Context(), w.dumps[0], name, o); err != nil {
			t.Fatal(err)
		}
		got := w.PsqlIn(name, "SELECT (SELECT count(*) FROM gov.votes), (SELECT count(*) FROM gov.maintainers), (SELECT count(*) FROM notes)")
		if got != "5000|0|0" {
			t.Error(got)
		}
	}
	// What is wanted may stand at the beginning of a dump that is much larger than what a pipe holds.
	o := w.options("postgres")
	o.Jobs, o.Select = 1, &Selection{Tables: []string{"gov.maintainers"}}
	large := w.dumps[0]
	large.Write = func(ctx context.Context, to io.Writer) error {
		if err := w.dumps[0].Write(ctx, to); err != nil {
			return err
		}
		_, err := to.Write(make([]byte, 4<<20))
		return err
	}
	if _, err := Beside(t.Context(), large, "early", o); err != nil {
		t.Fatal(err)
	}
	if got := w.PsqlIn("early", "SELECT (SELECT count(*) FROM gov.votes), (SELECT count(*) FROM gov.maintainers)"); got != "0|50" {
		t.Error(got)
	}
	// All of it is another matter: nothing may stay behind in the pipe.
	o.Select = nil
	if _, err := Beside(t.Context(), large, "all", o); !errors.Is(err, unix.EPIPE) {
		t.Error(err)
	}

	o = w.options("postgres")
	o.Select = &Selection{Schemas: []string{"public"}}
	if _, err := Beside(t.Context(), w.dumps[0], "public", o); err != nil {
		t.Fatal(err)
	}
	if got := w.PsqlIn("public", "SELECT (SELECT count(*) FROM gov.votes), (SELECT count(*) FROM notes)"); got != "0|1" {
		t.Error(got)
	}
	o.Select = &Selection{Tables: []string{"gone", "notes"}}
	if _, err := Beside(t.Context(), w.dumps[0], "none", o); !errors.Is(err, ErrNoTable) || !strings.Contains(err.Error(), "gone") || strings.Contains(err.Error(), "notes") {
		t.Error(err)
	}
	if (&Selection{Tables: []string{"["}}).Check() == nil || (&Selection{Schemas: []string{""}}).Check() == nil {
		t.Error("no patterns are taken")
	}
}

func TestFilter(t *testing.T) {
	const toc = `;
; Archive created at 2026-01-01 00:00:00 UTC
;
3214; 0 16402 TABLE DATA public two words postgres
3215; 0 16403 TABLE DATA app events_1 app
3216; 0 16404 TABLE DATA app events_2 app
217; 1259 16404 TABLE app events_2 app
3217; 2606 16405 FK CONSTRAINT app events_2 events_fk app
3218; 0 16405 SEQUENCE SET app s app
3219; 0 0 BLOBS - BLOBS 
`
	list, missing := (&Selection{Tables: []string{"app.events_[2]", "two words", "x.y"}}).filter(toc)
	want := "3214; 0 16402 TABLE DATA public two words postgres\n3216; 0 16404 TABLE DATA app events_2 app\n217; 1259 16404 TABLE app events_2 app\n3218; 0 16405 SEQUENCE SET app s app\n"
	if list != want || !slices.Equal(missing, []string{"x.y"}) {
		t.Errorf("%s%q", list, missing)
	}
}

func FuzzFilter(f *testing.F) {
	f.Add("3214; 0 16402 TABLE DATA public two words postgres\n", "two*")
	f.Fuzz(func(t *testing.T, toc, pattern string) {
		list, _ := (&Selection{Tables: []string{pattern}}).filter(toc)
		if again, _ := (&Selection{Tables: []string{pattern}}).filter(list); again != list {
			t.Errorf("%q becomes %q", list, again)
		}
	})
}

// testHeld: what keeps the names from being exchanged leaves all as it was.
func testHeld(t *testing.T, w *world) {
	w.PsqlIn("governance", "BEGIN; UPDATE gov.maintainers SET name = 'x' WHERE id = 1; PREPARE TRANSACTION 'held'")
	_, err := InPlace(t.Context(), w.dumps, w.options("postgres"))
	var e *StepError
	if !errors.As(err, &e) || e.Step != StepExchange {
		t.Fatal(err)
	}
	if got := w.databases(); !slices.Equal(got, []string{"governance", "postgres"}) {
		t.Errorf("%q", got)
	}
	w.PsqlIn("governance", "COMMIT PREPARED 'held'")
	// Two restores at once are one too many.
	o := w.options("postgres")
	o.Prove = func(ctx context.Context, _, _ string) error {
		if _, err := Beside(ctx, w.dumps[0], "second", w.options("postgres")); !errors.Is(err, ErrBusy) {
			t.Error(err)
		}
		return nil
	}
	if _, err = InPlace(t.Context(), w.dumps, o); err != nil {
		t.Fatal(err)
	}
}

func TestErrorTexts(t *testing.T) {
	e := failed(StepHealth, "a", errors.New("one"))
	e.Start, e.Back = errors.New("two"), errors.New("three")
	if got := e.Error(); got != "health database a: one; and the old databases could not be put back: three; and what was stopped could not be started: two" {
		t.Error(got)
	}
	for _, one := range []error{e.Err, e.Start, e.Back} {
		if !errors.Is(e, one) {
			t.Errorf("it is not %v", one)
		}
	}
}
