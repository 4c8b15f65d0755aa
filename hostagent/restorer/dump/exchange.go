package dump

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/btcdecoded/holdfast/hostagent/restorer/steps"
	"github.com/btcdecoded/holdfast/shared/postgres/logical"
)

// exchangeTime is how long the exchange of names may wait for sessions to end.
const exchangeTime = time.Minute

// exchangeTries is how often it is tried where somebody is still there.
const exchangeTries = 3

// place is a database whose place is taken.
type place struct {
	name    string // of the database
	fresh   string // the new one, until it is there
	safety  string // what the old one is called afterwards; empty: there is no old one
	comment string // of the old one
	ours    string // comment of the new one, as it was dumped
}

// beside restores into a new database.
func (r *run) beside(ctx context.Context, d Dump, name string) error {
	if err := r.free(ctx, name); err != nil {
		return err
	}
	r.apart = true
	p := place{name: name, fresh: newName(), ours: fmt.Sprintf("%s %s of %s, dumped %s", logical.Marker, d.Name, r.Source, d.Started.UTC().Format(time.RFC3339))}
	if err := r.build(ctx, d, p.fresh, name); err != nil {
		return err
	}
	if r.Select == nil {
		if err := r.prove(ctx, d.Name, p.fresh); err != nil {
			return err
		}
	}
	if err := r.course.Do(StepExchange, func() error { return r.rename(ctx, []place{p}) }); err != nil {
		return failed(StepExchange, name, err)
	}
	r.inPlaces([]place{p})
	r.result.Databases = []Restored{{Database: d.Name, Name: name}}
	return nil
}

// free refuses a name that a database has.
func (r *run) free(ctx context.Context, name string) error {
	found, err := r.exists(ctx, name)
	if err == nil && found {
		err = ErrExists
	}
	if err != nil {
		return failed(StepPrepare, name, err)
	}
	return nil
}

// inPlace restores over the databases.
func (r *run) inPlace(ctx context.Context, dumps []Dump) error {
	places := make([]place, len(dumps))
	at := r.Now().UTC()
	for i, d := range dumps {
		if err := r.look(ctx, &places[i], d, at); err != nil {
			return failed(StepPrepare, d.Name, err)
		}
	}
	for i, d := range dumps {
		if err := r.build(ctx, d, places[i].fresh, d.Name); err != nil {
			return err
		}
		if err := r.prove(ctx, d.Name, places[i].fresh); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return failed(StepProve, "", err)
	}
	return r.swap(ctx, places)
}

// look finds out what is in a place, and whether this role may take it.
func (r *run) look(ctx context.Context, p *place, d Dump, at time.Time) error {
	*p = place{name: d.Name, fresh: newName(), ours: d.Comment}
	if slices.Contains(maintenance, d.Name) {
		return &hintError{fmt.Errorf("database %s can not be restored in place: the restore works from it", d.Name), "restore it beside with --to-database NAME"}
	}
	got, err := rows(ctx, r.conn, `SELECT COALESCE(shobj_description(oid, 'pg_database'), ''), pg_has_role(datdba, 'USAGE'), pg_get_userbyid(datdba) FROM pg_database WHERE datname = $1`, d.Name)
	if err != nil || len(got) == 0 {
		return err
	}
	if !r.super && got[0][1] != "t" {
		return &hintError{fmt.Errorf("%w rename the database: %s is not its owner", ErrRights, r.self), "restore with --service NAME as its owner " + got[0][2] + " or as a superuser"}
	}
	p.comment = got[0][0]
	suffix := "_before_" + strings.ToLower(at.Format("20060102T150405Z"))
	for n := 0; ; n++ {
		p.safety = logical.Derived(d.Name, suffix)
		if found, err := r.exists(ctx, p.safety); err != nil || !found {
			return err
		}
		suffix = fmt.Sprintf("_before_%s_%d", strings.ToLower(at.Format("20060102T150405Z")), n+1)
	}
}

func (r *run) exists(ctx context.Context, name string) (bool, error) {
	got, err := rows(ctx, r.conn, "SELECT 1 FROM pg_database WHERE datname = $1", name)
	return len(got) > 0, err
}

// swap is steps 4 to 6.
func (r *run) swap(ctx context.Context, places []place) error {
	x := &exchange{run: r, places: places}
	if f := r.course.InPlace(ctx, "", r.Application, nil, x); f != nil {
		if f.Back == nil && f.Step == StepStart {
			f.Start = nil // it failed before as well, and that is told
		}
		return &StepError{Failure: *f, hint: x.hint}
	}
	for _, p := range places {
		r.result.Databases = append(r.result.Databases, Restored{Database: p.name, Name: p.name, Safety: p.safety})
	}
	return nil
}

// exchange lets the old databases and the new ones change names. It is a [steps.Exchange].
type exchange struct {
	*run
	places []place
	hint   string
}

// Swap gives the new databases their names.
func (x *exchange) Swap(ctx context.Context) error {
	if err := x.course.Do(StepExchange, func() error { return x.rename(ctx, x.places) }); err != nil {
		x.hint = x.whoIsThere(context.WithoutCancel(ctx), x.places)
		return err
	}
	x.inPlaces(x.places)
	return nil
}

// TakeBack has nothing to undo: the transaction has not happened.
func (x *exchange) TakeBack(*steps.Failure) {}

// PutBack gives the old databases their names again.
func (x *exchange) PutBack(ctx context.Context, f *steps.Failure, stop func() error) {
	stopped := stop()
	var back []place
	var safeties []string
	for _, p := range x.places {
		// The new one goes where it came from, with a comment that lets it be dropped; where there was none before, nothing
		// comes instead.
		back = append(back, place{name: p.name, fresh: p.safety, safety: p.fresh, ours: p.comment})
		safeties = append(safeties, p.safety)
	}
	if err := x.course.Do(StepExchange, func() error { return x.rename(ctx, back) }); err != nil {
		f.Back, f.Safety = errors.Join(err, stopped), strings.Join(safeties, ", ")
		return
	}
	for _, p := range x.places {
		x.made = append(x.made, p.fresh)
	}
}

// inPlaces notes that new databases are where they belong.
func (r *run) inPlaces(places []place) {
	r.made = slices.DeleteFunc(r.made, func(name string) bool {
		return slices.ContainsFunc(places, func(p place) bool { return p.fresh == name })
	})
}

// rename gives all new databases their names, and the old ones others, in one transaction. The server locks out new
// sessions of a database that is being renamed, and waits some seconds for those that there are; meanwhile they are ended.
func (r *run) rename(ctx context.Context, places []place) error {
	ctx, cancel := context.WithTimeout(ctx, exchangeTime)
	defer cancel()
	var names []string
	statements := []string{"SET LOCAL lock_timeout = '30s'"}
	for _, p := range places {
		names = append(names, p.name, p.fresh)
		if p.safety != "" {
			comment := fmt.Sprintf("%s what %s was until %s; drop it when it is not needed any more", logical.Marker, p.name, r.Now().UTC().Format(time.RFC3339))
			statements = append(statements, logical.Rename(p.name, p.safety), logical.Comment(p.safety, comment))
		}
		if p.fresh != "" {
			statements = append(statements, logical.Rename(p.fresh, p.name), logical.Comment(p.name, p.ours))
		}
	}
	stop := r.ending(ctx, names)
	err := r.transaction(ctx, statements, stop)
	// On a host that is very busy those some seconds may not suffice. What is prepared, on the other hand, stays.
	for try := 1; inUse(err) && try < exchangeTries && !r.prepared(ctx, names); try++ {
		err = r.transaction(ctx, statements, stop)
	}
	stop()
	if err != nil && r.happened(ctx, places) {
		r.warn("the names were exchanged, although the server did not say so: %v", err)
		err = nil
	}
	return err
}

// inUse reports that the server refused because somebody is in a database.
func inUse(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && refused.Code == "55006"
}

// prepared reports whether databases have prepared transactions, or that can't be told.
func (r *run) prepared(ctx context.Context, names []string) bool {
	got, err := rows(ctx, r.conn, "SELECT count(*) FROM pg_prepared_xacts WHERE database = ANY(string_to_array($1, E'\\x01'))", strings.Join(names, "\x01"))
	return err != nil || got[0][0] != "0"
}

// happened reports whether an exchange that seems to have failed has been committed: its answer may have been lost.
func (r *run) happened(ctx context.Context, places []place) bool {
	p := places[0]
	gone, there := p.fresh, p.name
	if p.fresh == "" {
		gone, there = p.name, p.safety
	}
	conn, err := r.Connect(ctx, r.home)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	got, err := rows(ctx, conn, "SELECT datname FROM pg_database WHERE datname IN ($1, $2)", gone, there)
	return err == nil && len(got) == 1 && got[0][0] == there
}

// transaction runs the statements in a connection of its own: whatever goes wrong, its end takes everything back. ready is
// called before it is committed: by then it has the locks, and nobody else can be in the databases.
func (r *run) transaction(ctx context.Context, statements []string, ready func()) (err error) {
	conn, err := r.Connect(ctx, r.home)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := execute(ctx, conn, "BEGIN"); err != nil {
		return err
	}
	for _, s := range statements {
		if err := execute(ctx, conn, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	ready()
	if err := r.course.Faulty("commit"); err != nil {
		return err
	}
	if err := execute(ctx, conn, "COMMIT"); err != nil {
		return err
	}
	return r.course.Faulty("committed")
}

// ending ends the sessions of databases again and again, until it is stopped. A question that is under way is waited for:
// the server would go on with one that is dropped, and end who comes after the exchange.
func (r *run) ending(ctx context.Context, names []string) (stop func()) {
	stopped, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		var conn *pgconn.PgConn
		defer func() {
			if conn != nil {
				_ = conn.Close(context.WithoutCancel(ctx))
			}
		}()
		for ctx.Err() == nil {
			if conn == nil || conn.IsClosed() {
				conn, _ = r.Connect(ctx, r.home) // the next turn tries again
			}
			if conn != nil {
				_ = terminate(ctx, conn, names) // whom it may not end keeps the exchange from happening, which is told
			}
			select {
			case <-ctx.Done():
			case <-stopped:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return sync.OnceFunc(func() {
		close(stopped)
		<-done
	})
}

// whoIsThere tells who has the old databases open.
func (r *run) whoIsThere(ctx context.Context, places []place) string {
	var names []string
	for _, p := range places {
		names = append(names, p.name)
	}
	got, err := rows(ctx, r.conn, `SELECT DISTINCT usename, application_name FROM pg_stat_activity
		WHERE datname = ANY(string_to_array($1, E'\x01')) AND pid <> pg_backend_pid() ORDER BY 1, 2 LIMIT 5`, strings.Join(names, "\x01"))
	if err != nil || len(got) == 0 {
		return ""
	}
	var who []string
	for _, row := range got {
		who = append(who, strings.TrimSpace(row[0]+" "+row[1]))
	}
	return "still there: " + strings.Join(who, ", ") + "; let the policy's stop hook end them, or restore with --service NAME as a role that may (pg_signal_backend, superuser)"
}
