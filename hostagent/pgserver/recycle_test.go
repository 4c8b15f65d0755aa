package pgserver_test

import (
	"context"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/btcdecoded/holdfast/hostagent/pgserver"
	"github.com/btcdecoded/holdfast/test/cluster"
)

// TestNothingRecycled has a server write some segments of WAL: what it needs no more is not kept for WAL to come, which
// would have to be synced, and would lie in every restored cluster.
func TestNothingRecycled(t *testing.T) {
	owner := cluster.Account(t)
	account := pgserver.Account{UID: owner.UID, GID: owner.GID}
	e, err := pgserver.StartEmpty(t.Context(), []string{owner.Dir(t)}, filepath.Dir(cluster.Bin(t, 0, "postgres")), cluster.System(t), account)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	conn, err := e.Connect(t.Context(), "postgres", "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	ask := func(sql string) string {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatal(err)
		}
		row, err := pgserver.Row(t.Context(), conn, "SELECT count(*) FROM pg_ls_waldir() WHERE length(name) = 24")
		if err != nil {
			t.Fatal(err)
		}
		return row[0]
	}
	for range 6 {
		ask("SELECT pg_logical_emit_message(true, 'test', 'something'); SELECT pg_switch_wal()")
	}
	if n, err := strconv.Atoi(ask("CHECKPOINT")); err != nil || n > 2 {
		t.Errorf("%d segments are there, %v", n, err)
	}
}
