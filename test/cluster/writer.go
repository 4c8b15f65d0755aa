package cluster

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// ledger is the table into which writers write.
const ledger = "ledger"

// Row is a transaction that was acknowledged.
type Row struct {
	ID    int64
	Sent  time.Time // when the client began it
	Acked time.Time // when the client heard that it was committed
	// Upto is a place in the WAL behind its commit record: it was read after the commit, as PostgreSQL prints it.
	Upto string
}

// WriterOptions says how a writer writes.
type WriterOptions struct {
	Connections int           // 0: 1; each has one transaction under way
	Pause       time.Duration // between two transactions of a connection; 0: none
	Payload     int           // bytes of text in each row; 0: 20
	Database    string        // "": postgres
}

// Writer is an application that inserts rows, one in each transaction, and knows which were acknowledged. When the server
// goes away it tries again until it is back.
type Writer struct {
	t      testing.TB
	cancel context.CancelFunc
	ended  sync.WaitGroup

	mu   sync.Mutex
	dsn  func() string // guarded by mu, as all below
	rows []Row
	last error
}

// StartWriter makes the table ledger, if it is not there, and starts to write. The writer ends with the test at the latest.
func StartWriter(t testing.TB, s *Server, o WriterOptions) *Writer {
	t.Helper()
	if o.Database == "" {
		o.Database = "postgres"
	}
	if o.Payload == 0 {
		o.Payload = 20
	}
	s.PsqlIn(o.Database, "CREATE TABLE IF NOT EXISTS "+ledger+" (id bigint PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), text text)")
	first, err := strconv.ParseInt(s.PsqlIn(o.Database, "SELECT coalesce(max(id), 0) / 1000000000 + 1 FROM "+ledger), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &Writer{t: t, cancel: cancel, dsn: func() string { return s.DSN(o.Database) }}
	for n := range int64(max(o.Connections, 1)) {
		w.ended.Go(func() { w.write(ctx, o, (first+n)*1_000_000_000) })
	}
	t.Cleanup(func() { w.Stop() })
	return w
}

// Follow lets the writer go over to another server: one that was promoted.
func (w *Writer) Follow(s *Server, database string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dsn = func() string { return s.DSN(database) }
}

// write inserts rows until ctx ends.
func (w *Writer) write(ctx context.Context, o WriterOptions, id int64) {
	var conn *pgconn.PgConn
	defer func() {
		if conn != nil {
			_ = conn.Close(context.Background())
		}
	}()
	for ctx.Err() == nil {
		pause := o.Pause
		id++ // one that was not acknowledged may be there: its number is not used again
		var err error
		if conn == nil || conn.IsClosed() {
			if conn, err = w.connect(ctx); err != nil {
				conn = nil
			}
		}
		if conn != nil {
			err = w.insert(ctx, conn, id, o.Payload)
		}
		if err != nil {
			w.mu.Lock()
			w.last = err
			w.mu.Unlock()
			pause = max(pause, 10*time.Millisecond)
		}
		if pause > 0 {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		}
	}
}

func (w *Writer) connect(ctx context.Context) (*pgconn.PgConn, error) {
	w.mu.Lock()
	dsn := w.dsn()
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return pgconn.Connect(ctx, dsn)
}

// insert makes one transaction. It was acknowledged when all answers are here; a writer that is stopped waits for them.
func (w *Writer) insert(ctx context.Context, conn *pgconn.PgConn, id int64, payload int) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	row := Row{ID: id, Sent: time.Now()}
	results, err := conn.Exec(ctx, fmt.Sprintf("BEGIN; INSERT INTO %s (id, text) VALUES (%d, repeat('x', %d)); COMMIT; SELECT pg_current_wal_insert_lsn()", ledger, id, payload)).ReadAll()
	if err != nil {
		return err
	}
	row.Acked = time.Now()
	for _, r := range results {
		if r.Err != nil {
			return r.Err
		}
		for _, columns := range r.Rows {
			row.Upto = string(columns[0])
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rows = append(w.rows, row)
	return nil
}

// Acknowledged returns the transactions that were acknowledged so far, in the order in which that was heard.
func (w *Writer) Acknowledged() []Row {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.rows)
}

// Await waits until n more transactions are acknowledged.
func (w *Writer) Await(n int) {
	w.t.Helper()
	w.mu.Lock()
	want := len(w.rows) + n
	w.mu.Unlock()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		w.mu.Lock()
		have := len(w.rows)
		w.mu.Unlock()
		if have >= want {
			return
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t.Fatalf("the writer has %d of %d transactions; its last error: %v", len(w.rows), want, w.last)
}

// Stop ends the writer, with the transactions that are under way, and returns what was acknowledged.
func (w *Writer) Stop() []Row {
	w.cancel()
	w.ended.Wait()
	return w.Acknowledged()
}

// Missing returns which of the rows are not in the ledger of a server.
func Missing(t testing.TB, s *Server, database string, rows []Row) []Row {
	t.Helper()
	have := map[string]bool{}
	for _, id := range strings.Fields(s.PsqlIn(database, "SELECT id FROM "+ledger)) {
		have[id] = true
	}
	var out []Row
	for _, r := range rows {
		if !have[strconv.FormatInt(r.ID, 10)] {
			out = append(out, r)
		}
	}
	return out
}
