package wire_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/btcdecoded/holdfast/hostagent/source/postgres/wire"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/test/cluster"
)

func connect(t *testing.T, s *cluster.Server) *wire.Conn {
	t.Helper()
	config, err := pgconn.ParseConfig(s.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := wire.Connect(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func versions(t *testing.T, test func(t *testing.T, version int)) {
	t.Helper()
	for _, v := range cluster.Versions(t) {
		t.Run(fmt.Sprint(v), func(t *testing.T) { test(t, v) })
	}
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func lsn(t *testing.T, s *cluster.Server, query string) postgres.LSN {
	t.Helper()
	return must[postgres.LSN](t)(postgres.ParseLSN(s.Psql(query)))
}

func TestServer(t *testing.T) {
	versions(t, func(t *testing.T, version int) {
		s := cluster.Start(t, cluster.Options{Version: version, SegmentSize: 1, Config: map[string]string{"max_replication_slots": "2"}})
		c := connect(t, s)
		if c.Version().Major != version || !c.Local() || c.PID() == 0 {
			t.Errorf("version %+v, local %t", c.Version(), c.Local())
		}
		system := must[wire.System](t)(c.Identify(t.Context()))
		if want := s.Psql("SELECT system_identifier FROM pg_control_system()"); fmt.Sprint(system.ID) != want || system.Timeline != 1 || system.Position == 0 {
			t.Errorf("got %+v, want %s", system, want)
		}
		if got := must[string](t)(c.Show(t.Context(), "data_directory")); got != s.Dir {
			t.Errorf("data directory %s, want %s", got, s.Dir)
		}
		if got := must[uint64](t)(c.Setting(t.Context(), "wal_segment_size")); got != 1<<20 {
			t.Errorf("segments of %d bytes", got)
		}
		if _, err := c.Show(t.Context(), "no_such_setting"); !wire.IsUnknownSetting(err) {
			t.Error(err)
		}
		if _, _, err := c.History(t.Context(), 1); !wire.IsMissing(err) {
			t.Error(err)
		}
		slots(t, s, c)
		contextEnds(t, s)
	})
}

func slots(t *testing.T, s *cluster.Server, c *wire.Conn) {
	t.Helper()
	if err := c.CreateSlot(t.Context(), "kept", wire.SlotOptions{Reserve: true}); err != nil {
		t.Fatal(err)
	}
	if err := c.CreateSlot(t.Context(), "kept", wire.SlotOptions{}); !wire.IsExists(err) {
		t.Errorf("a slot that is there: %v", err)
	}
	slot, ok, err := c.Slot(t.Context(), "kept")
	if err != nil || !ok || slot.Type != "physical" || slot.Restart == 0 || slot.Timeline != 1 {
		t.Errorf("got %+v, %t, %v", slot, ok, err)
	}
	if _, ok, err := c.Slot(t.Context(), "missing"); ok || err != nil {
		t.Errorf("a slot that is not there: %t, %v", ok, err)
	}
	other := connect(t, s)
	if err := other.CreateSlot(t.Context(), "mine", wire.SlotOptions{Temporary: true}); err != nil {
		t.Fatal(err)
	}
	err = c.CreateSlot(t.Context(), "third", wire.SlotOptions{})
	var own *wire.Error
	if !wire.IsLimit(err) || !errors.As(err, &own) || !strings.Contains(own.Hint(), "max_replication_slots") {
		t.Errorf("more slots than there may be: %v", err)
	}
	if err := c.DropSlot(t.Context(), "missing", false); !wire.IsMissing(err) {
		t.Error(err)
	}
	if err := c.DropSlot(t.Context(), "kept", true); err != nil {
		t.Error(err)
	}
}

func TestStream(t *testing.T) {
	versions(t, func(t *testing.T, version int) {
		primary := cluster.Start(t, cluster.Options{Version: version})
		standby := primary.Standby(t)
		control := connect(t, standby)
		if err := control.CreateSlot(t.Context(), "agent", wire.SlotOptions{Reserve: true}); err != nil {
			t.Fatal(err)
		}
		slot, _, err := control.Slot(t.Context(), "agent")
		if err != nil {
			t.Fatal(err)
		}
		system := must[wire.System](t)(control.Identify(t.Context()))
		begin := slot.Restart.SegmentStart(16 << 20)
		c := connect(t, standby)
		stream := must[*wire.Stream](t)(c.Stream(t.Context(), wire.StreamOptions{Slot: "agent", Start: begin, Timeline: 1}))
		if _, err := control.Stream(t.Context(), wire.StreamOptions{Slot: "agent", Start: begin, Timeline: 1}); !wire.IsInUse(err) || !wire.IsTransient(err) {
			t.Errorf("a slot that is in use: %v", err)
		}

		walker := postgres.NewWalker(postgres.Origin{System: system.ID, Timeline: 1, SegmentSize: 16 << 20}, begin)
		receive := func(until postgres.LSN) {
			t.Helper()
			for walker.Next() < until {
				m := must[wire.Message](t)(stream.Receive(t.Context()))
				if age := time.Since(m.Time); age > time.Hour || age < -time.Hour {
					t.Fatalf("a message that was sent at %s", m.Time)
				}
				if m.WAL == nil {
					continue
				}
				if m.Start != walker.Next() {
					t.Fatalf("WAL from %s after %s", m.Start, walker.Next())
				}
				if _, err := walker.Write(m.WAL); err != nil {
					t.Fatal(err)
				}
			}
		}
		primary.Psql("CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i")
		standby.Follow(primary)
		receive(lsn(t, standby, "SELECT pg_last_wal_replay_lsn()"))

		// What is not said to be flushed stays: 0 acknowledges nothing, whatever was written.
		restart := func() postgres.LSN {
			return lsn(t, standby, "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'agent'")
		}
		before := restart()
		answered := func() {
			t.Helper()
			for {
				if m := must[wire.Message](t)(stream.Receive(t.Context())); m.WAL == nil {
					return
				}
			}
		}
		for _, f := range []wire.Feedback{{Written: walker.Next(), Reply: true}, {Written: walker.Next(), Flushed: before, Reply: true}} {
			if err := stream.Feedback(f); err != nil {
				t.Fatal(err)
			}
			answered()
			if got := restart(); got != before {
				t.Errorf("after %+v the slot keeps WAL from %s, not %s", f, got, before)
			}
		}
		if err := stream.Feedback(wire.Feedback{Written: walker.Next(), Flushed: walker.Next(), Reply: true}); err != nil {
			t.Fatal(err)
		}
		answered()
		if got := restart(); got != walker.Next() {
			t.Errorf("the slot keeps WAL from %s, what is durable ends at %s", got, walker.Next())
		}

		// The timeline ends; it goes on where the next says.
		primary.Stop("fast")
		standby.Promote()
		for {
			m, err := stream.Receive(t.Context())
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := walker.Write(m.WAL); err != nil {
				t.Fatal(err)
			}
		}
		next, at, err := stream.End(t.Context())
		if err != nil || next != 2 || at != walker.Next() {
			t.Fatalf("timeline %d from %s, %v; WAL came up to %s", next, at, err, walker.Next())
		}
		name, content, err := c.History(t.Context(), 2)
		if err != nil || name != "00000002.history" || !strings.Contains(string(content), at.String()) {
			t.Errorf("history %s: %q, %v", name, content, err)
		}
		// The connection takes commands again; a timeline that has nothing left says so at once.
		old := must[*wire.Stream](t)(c.Stream(t.Context(), wire.StreamOptions{Start: at, Timeline: 1}))
		if _, err := old.Receive(t.Context()); !errors.Is(err, io.EOF) {
			t.Errorf("the end of the old timeline: %v", err)
		}
		if next, again, err := old.End(t.Context()); err != nil || next != 2 || again != at {
			t.Errorf("timeline %d from %s, %v", next, again, err)
		}
		stream = must[*wire.Stream](t)(c.Stream(t.Context(), wire.StreamOptions{Slot: "agent", Start: at.SegmentStart(16 << 20), Timeline: 2}))
		if m := must[wire.Message](t)(stream.Receive(t.Context())); m.WAL != nil && m.Start != at.SegmentStart(16<<20) {
			t.Errorf("the new timeline begins at %s", m.Start)
		}
		// We end it; what is still on its way is passed over.
		if _, _, err := stream.End(t.Context()); err != nil {
			t.Error(err)
		}
		must[wire.System](t)(c.Identify(t.Context()))
		if _, err := c.Stream(t.Context(), wire.StreamOptions{Start: 0x1000000, Timeline: 1}); err == nil {
			// WAL that is long gone: the server may notice when it should send it.
			t.Log("the server promises WAL that it may not have")
		} else if !wire.IsRemoved(err) && !wire.IsMissing(err) {
			t.Error(err)
		}
	})
}

func TestRemovedWAL(t *testing.T) {
	s := cluster.Start(t, cluster.Options{SegmentSize: 1, Config: map[string]string{"min_wal_size": "2MB", "max_wal_size": "4MB", "wal_keep_size": "0", "max_slot_wal_keep_size": "2MB"}})
	control := connect(t, s)
	if err := control.CreateSlot(t.Context(), "lost", wire.SlotOptions{Reserve: true}); err != nil {
		t.Fatal(err)
	}
	slot, _, err := control.Slot(t.Context(), "lost")
	if err != nil {
		t.Fatal(err)
	}
	for s.Psql("SELECT wal_status FROM pg_replication_slots") != "lost" {
		s.Psql("SELECT pg_switch_wal(); CREATE TABLE t AS SELECT i FROM generate_series(1, 50000) i; DROP TABLE t; CHECKPOINT")
	}
	for _, name := range []string{"lost", ""} {
		stream, err := control.Stream(t.Context(), wire.StreamOptions{Slot: name, Start: slot.Restart, Timeline: 1})
		for err == nil {
			_, err = stream.Receive(t.Context()) // it may seem to be accepted
		}
		if !wire.IsRemoved(err) || wire.IsTransient(err) {
			t.Errorf("slot %q: %v", name, err)
		}
	}
}

// contextEnds lets the end of a context end what waits.
func contextEnds(t *testing.T, s *cluster.Server) {
	t.Helper()
	c := connect(t, s)
	system := must[wire.System](t)(c.Identify(t.Context()))
	stream := must[*wire.Stream](t)(c.Stream(t.Context(), wire.StreamOptions{Start: system.Position}))
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	for {
		if _, err := stream.Receive(ctx); err != nil {
			if !errors.Is(err, context.Canceled) || wire.IsTransient(err) {
				t.Error(err)
			}
			return
		}
	}
}
