package writer

import (
	"context"
	"errors"
	"fmt"
)

// Reshape gives a database that nobody uses another page size, as its administrator would.
func Reshape(ctx context.Context, path string, pageSize int) (err error) {
	db, conn, err := open(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(), db.Close()) }()
	for _, text := range []string{
		"PRAGMA journal_mode = delete", fmt.Sprintf("PRAGMA page_size = %d", pageSize), "VACUUM", "PRAGMA journal_mode = wal",
	} {
		if _, err := conn.ExecContext(ctx, text); err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
	}
	return nil
}
