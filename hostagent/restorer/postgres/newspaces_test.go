package postgres

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/test/cluster"
)

// TestSpacesInWAL recovers over WAL that makes a tablespace, where the server that lives has it: nobody writes into that.
func TestSpacesInWAL(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{})
	w.base()
	at := w.insert(2)
	w.insert(3)
	before := w.flushed()
	place := filepath.Join(w.Owner.Dir(t), "later")
	if err := os.Mkdir(place, 0o700); err != nil {
		t.Fatal(err)
	}
	w.Owner.Give(t, place)
	w.Psql("CREATE TABLESPACE later LOCATION '" + place + "'")
	w.Psql("CREATE TABLE there TABLESPACE later AS SELECT 7 AS n")
	w.ship()
	w.Psql("UPDATE there SET n = 8; CHECKPOINT")
	_, err := w.restore(Target{Kind: Latest})
	var refused *SpacesError
	if !errors.As(err, &refused) || refused.Path != place || !strings.Contains(refused.Hint(), "--lsn") {
		t.Errorf("recovery over it: %v", err)
	}
	w.Psql("CHECKPOINT")
	w.Server.Restart() // it reads from its disk again
	if got := w.Psql("SELECT n FROM there"); got != "8" {
		t.Errorf("the server that lives has %s", got)
	}
	for _, target := range []Target{{Kind: Time, Time: at}, {Kind: LSN, LSN: before}} {
		if r, err := w.restore(target); err != nil {
			t.Errorf("to a state before it: %v", err)
		} else {
			w.done(r)
		}
	}
}
