package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/btcdecoded/holdfast/hostagent/pgserver"
)

// inspect looks at the promoted cluster for what people should know before they use it. It refuses nothing.
func (b *build) inspect(ctx context.Context, w *watch) error {
	ask := func(sql string) (string, error) {
		got, err := pgserver.Row(ctx, w.conn, sql)
		var answer *pgconn.PgError
		if errors.As(err, &answer) && !w.conn.IsClosed() {
			return "", nil // it can't be told
		}
		if err != nil {
			return "", err
		}
		return got[0], nil
	}
	if b.src.Major >= 15 {
		// Before that the server does not know with which version a database's texts were sorted.
		others, err := ask(`SELECT coalesce(string_agg(format('%s (%s, here %s)', datname, datcollversion, pg_database_collation_actual_version(oid)), ', ' ORDER BY datname), '')
			FROM pg_database WHERE datallowconn AND datcollversion <> pg_database_collation_actual_version(oid)`)
		if err != nil {
			return err
		}
		if others != "" {
			b.warn("this host sorts text by another version of its library than the backup's: %s; indexes over text may answer wrongly there: REINDEX DATABASE, then ALTER DATABASE … REFRESH COLLATION VERSION", others)
		}
	}
	prepared, err := ask("SELECT coalesce(string_agg(format('%L in %s', gid, database), ', '), '') FROM pg_prepared_xacts")
	if err != nil {
		return err
	}
	if prepared != "" {
		b.warn("transactions are prepared and open, and keep what they have locked: %s; COMMIT PREPARED or ROLLBACK PREPARED ends each", prepared)
	}
	subscriptions, err := ask("SELECT coalesce(string_agg(subname, ', ' ORDER BY subname), '') FROM pg_subscription WHERE subenabled")
	if err != nil {
		return err
	}
	if b.subscribes = subscriptions != ""; b.subscribes && b.options.inPlace {
		b.warn("it subscribes to publications (%s): what was received after this point is not sent again", subscriptions)
	}
	return nil
}
