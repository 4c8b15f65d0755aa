package postgres

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository/log"
)

// TestIntake sends random WAL in random pieces, some of them twice, and wants to get it back as records: whole, in order,
// none over the end of a segment, each with a proof of what is before its end.
func TestIntake(t *testing.T) {
	const segment = postgres.MinSegmentSize
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range 4 {
		start := postgres.LSN(segment * (5 + r.IntN(3)))
		wal := make([]byte, segment/2+r.IntN(3*segment))
		_, _ = rand.NewChaCha8([32]byte{byte(r.Uint32()), byte(r.Uint32())}).Read(wal)
		if zeros := r.IntN(segment); zeros > pageSize { // a segment was left early
			end := segment * (1 + len(wal)/segment/2)
			clear(wal[min(len(wal), end-zeros):min(len(wal), end)])
		}
		q := newIntake(point{LSN: start}, segment, 64<<10)
		var adding sync.WaitGroup
		adding.Go(func() {
			defer q.finish(errEnded)
			at := 0
			for at < len(wal) {
				back := min(at, r.IntN(3)*r.IntN(20000))
				n := 1 + r.IntN(128<<10)
				piece := wal[at-back : min(len(wal), at+n)]
				if err := q.add(context.Background(), start+postgres.LSN(at-back), piece, arrival{sent: time.Now(), came: time.Now(), caught: r.IntN(2) == 0}); err != nil {
					t.Error(err)
					return
				}
				at += len(piece) - back
			}
		})
		next := start
		var got []byte
		for q.ended() == nil {
			b, _ := q.take(time.Now(), true, func(oldest time.Time) time.Time { return oldest.Add(-time.Hour) })
			if b == nil {
				<-q.news
				continue
			}
			switch {
			case b.start != next || len(b.data) == 0 || len(b.data) > log.MaxWAL:
				t.Fatalf("a batch of %d bytes at %s: want %s", len(b.data), b.start, next)
			case (b.end() - 1).SegmentStart(segment) != b.start.SegmentStart(segment):
				t.Fatalf("a batch from %s to %s goes over the end of a segment", b.start, b.end())
			case b.check == nil:
				t.Fatalf("no proof at %s", b.end())
			}
			got = append(got, b.data...)
			next = b.end()
			// None goes back over the beginning of a segment, and behind it are zeros only.
			c := b.check
			before, most := c.To-c.From, c.To-(c.To-1).SegmentStart(segment)
			if before > pageSize+leastProof || before < min(leastProof, most) || before > most || c.To > next ||
				*checkOf(c.From, got[c.From-start:c.To-start]) != *c || len(bytes.TrimRight(got[c.To-start:], "\x00")) > 0 {
				t.Fatalf("the proof %+v of what is before %s is wrong", c, next)
			}
			q.done()
		}
		adding.Wait()
		if !bytes.Equal(got, wal) {
			t.Fatalf("%d bytes became others, or %d", len(wal), len(got))
		}
		if _, held, _ := q.waits(); held != 0 {
			t.Fatalf("%d bytes are still held", held)
		}
	}
}

func TestIntakeBounds(t *testing.T) {
	const segment = postgres.MinSegmentSize
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	q := newIntake(point{LSN: segment, Time: at}, segment, 10)
	ctx, cancel := context.WithCancel(t.Context())
	// The clock of the server was put back: times of records never go back.
	if err := q.add(ctx, segment, make([]byte, 100), arrival{sent: at.Add(-time.Hour), came: at, caught: true}); err != nil {
		t.Fatal(err)
	}
	blocked := make(chan error, 1)
	go func() {
		blocked <- q.add(ctx, segment+100, make([]byte, 100), arrival{sent: at, came: at, caught: true})
	}()
	for !q.full() {
		time.Sleep(time.Millisecond)
	}
	later := func(time.Time) time.Time { return at.Add(time.Minute) }
	if b, until := q.take(at, true, later); b != nil || !until.Equal(at.Add(time.Minute)) {
		t.Errorf("a batch that is not due: %v, %s", b, until)
	}
	b, _ := q.take(at.Add(time.Minute), true, later)
	if b == nil || !b.newest.Equal(at) || len(b.data) != 100 {
		t.Fatalf("%+v", b)
	}
	cancel()
	if err := <-blocked; !errors.Is(err, context.Canceled) {
		t.Errorf("who waits for room: %v", err)
	}
	q.done()
	if err := q.add(t.Context(), segment+101, []byte{1}, arrival{sent: at, came: at, caught: true}); !errors.Is(err, errHoleInStream) {
		t.Errorf("after a hole: %v", err)
	}
}

// TestIntakeTurn wants that a turn comes after all WAL before it, when that is durable, and that the next timeline begins with
// the segment.
func TestIntakeTurn(t *testing.T) {
	const segment = postgres.MinSegmentSize
	q := newIntake(point{LSN: segment}, segment, 0)
	now := time.Now()
	never := func(time.Time) time.Time { return now.Add(time.Hour) }
	if err := q.add(t.Context(), segment, make([]byte, 5000), arrival{sent: now, came: now, caught: true}); err != nil {
		t.Fatal(err)
	}
	if err := q.turn(&turn{timeline: 2, at: segment + 5000}); err != nil {
		t.Fatal(err)
	}
	if err := q.add(t.Context(), segment, []byte("new"), arrival{sent: now, came: now, caught: true}); err != nil {
		t.Fatal(err)
	}
	b, _ := q.take(now, false, never)
	if b == nil || b.turn != nil || len(b.data) != 5000 {
		t.Fatalf("%+v", b)
	}
	if b, _ := q.take(now, false, never); b != nil {
		t.Fatalf("while a record is on its way: %+v", b)
	}
	q.done()
	b, _ = q.take(now, true, never)
	if b == nil || b.turn == nil || b.turn.time.Before(now) {
		t.Fatalf("%+v", b)
	}
	q.done()
	q.finish(errEnded)
	b, _ = q.take(now, true, never)
	if b == nil || b.start != segment || string(b.data) != "new" {
		t.Fatalf("%+v", b)
	}
	q.done()
	if err := q.ended(); !errors.Is(err, errEnded) {
		t.Error(err)
	}
}

// TestIntakeWaits wants that what waits is said to be no younger than it is: that it was not committed before what was known to
// be here when it came. What is given up at the end waits still.
func TestIntakeWaits(t *testing.T) {
	const segment = postgres.MinSegmentSize
	at := func(seconds int) time.Time { return time.Date(2026, 3, 1, 12, 0, seconds, 0, time.UTC) }
	q := newIntake(point{LSN: segment, Time: at(0)}, segment, 0)
	next := postgres.LSN(segment)
	add := func(a arrival) {
		t.Helper()
		if err := q.add(t.Context(), next, make([]byte, 100), a); err != nil {
			t.Fatal(err)
		}
		next += 100
	}
	want := func(what string, none time.Time) {
		t.Helper()
		if got, _, _ := q.waits(); !got.Equal(none) {
			t.Errorf("%s: nothing that waits was committed by %s, want %s", what, got, none)
		}
	}
	now := func(time.Time) time.Time { return at(0) }
	want("nothing waits", time.Time{})
	add(arrival{sent: at(19), came: at(20), known: at(10), caught: true})
	want("what comes first after a pause", at(10))
	if b, _ := q.take(at(20), true, now); b == nil || !b.oldest().Equal(at(20)) {
		t.Fatalf("%+v", b)
	}
	add(arrival{sent: at(21), came: at(22), known: at(18), caught: true})
	want("it is on its way", at(10))
	q.done()
	want("it is durable, and not what came behind it", at(18))
	add(arrival{sent: at(23), came: at(24), known: at(20), caught: true})
	want("the oldest counts", at(18))
	q.finish(errEnded)
	q.drop()
	want("it is given up", at(18))
}

func TestNoneBefore(t *testing.T) {
	at := func(seconds int) time.Time {
		if seconds == 0 {
			return time.Time{}
		}
		return time.Date(2026, 3, 1, 12, 0, seconds, 0, time.UTC)
	}
	for what, c := range map[string]struct {
		prompt                           bool
		before, first, known, came, want int
	}{
		"it comes at once":                   {true, 18, 0, 17, 20, 17},
		"of a late standby":                  {true, 5, 6, 17, 20, 6},
		"a backlog":                          {false, 5, 6, 1, 20, 6},
		"a backlog without a commit":         {false, 5, 0, 1, 20, 5},
		"a pause before it":                  {false, 5, 0, 17, 20, 17},
		"a branch that began before":         {false, 5, 6, 17, 20, 6},
		"the server's clock is ahead":        {false, 29, 30, 17, 20, 17},
		"the server's clock is the only one": {false, 0, 30, 0, 20, 20},
		"nothing is known":                   {true, 0, 0, 0, 20, 20},
	} {
		got := noneBefore(c.prompt, at(c.before), at(c.first), arrival{came: at(c.came), known: at(c.known)})
		if !got.Equal(at(c.want)) {
			t.Errorf("%s: %s, want %s", what, got, at(c.want))
		}
	}
}
