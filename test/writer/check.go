package writer

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// Check opens a copy of a database of this application and returns the number of its last transaction. The error says
// that it is damaged (by PRAGMA integrity_check), or that it is anything but the result of exactly the transactions 1 to
// that number. The copy may have a log beside it, which is then taken in.
func Check(ctx context.Context, path string) (last int64, err error) {
	db, conn, err := open(ctx, path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close(), db.Close()) }()
	var said string
	if err := conn.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&said); err != nil {
		return 0, fmt.Errorf("check %s: %w", path, err)
	}
	if said != "ok" {
		return 0, fmt.Errorf("check %s: %s", path, said)
	}
	shape, last, err := state(ctx, conn)
	if err != nil {
		return 0, fmt.Errorf("check %s: %w", path, err)
	}
	cells := make([]int64, shape.Cells)
	for n := int64(1); n <= last; n++ {
		shape.touched(n, func(cell int64) { cells[cell] = n })
	}
	err = rows(ctx, conn, "SELECT n, data FROM commits ORDER BY n", last, func(i int64, r row) error {
		if r.a != i+1 || !bytes.Equal(r.data, shape.content(i+1, rowSalt)) {
			return fmt.Errorf("row %d is that of transaction %d, or its content is another", i+1, r.a)
		}
		return nil
	})
	if err != nil {
		return last, fmt.Errorf("check %s, %d transactions: commits: %w", path, last, err)
	}
	err = rows(ctx, conn, "SELECT n, data FROM cells ORDER BY id", int64(shape.Cells), func(i int64, r row) error {
		if r.a != cells[i] || !bytes.Equal(r.data, shape.content(r.a, cellSalt)) {
			return fmt.Errorf("cell %d is of transaction %d, want %d", i, r.a, cells[i])
		}
		return nil
	})
	if err != nil {
		return last, fmt.Errorf("check %s, %d transactions: cells: %w", path, last, err)
	}
	return last, nil
}

type row struct {
	a    int64
	data []byte
}

// rows calls f for each row, of which there must be so many.
func rows(ctx context.Context, conn *sql.Conn, query string, want int64, f func(i int64, r row) error) (err error) {
	all, err := conn.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, all.Close()) }()
	n := int64(0)
	for ; all.Next(); n++ {
		var r row
		if err := all.Scan(&r.a, &r.data); err != nil {
			return err
		}
		if n >= want {
			return fmt.Errorf("more than %d rows", want)
		}
		if err := f(n, r); err != nil {
			return err
		}
	}
	if err := all.Err(); err != nil {
		return err
	}
	if n != want {
		return fmt.Errorf("%d rows, want %d", n, want)
	}
	return nil
}
