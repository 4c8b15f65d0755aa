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
	for range 6 {
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
				if err := q.add(context.Background(), start+postgres.LSN(at-back), piece, arrival{time.Now(), time.Now(), r.IntN(2) == 0, false}); err != nil {
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
	if err := q.add(ctx, segment, make([]byte, 100), arrival{at.Add(-time.Hour), at, true, false}); err != nil {
		t.Fatal(err)
	}
	blocked := make(chan error, 1)
	go func() { blocked <- q.add(ctx, segment+100, make([]byte, 100), arrival{at, at, true, false}) }()
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
	if err := q.add(t.Context(), segment+101, []byte{1}, arrival{at, at, true, false}); !errors.Is(err, errHoleInStream) {
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
	if err := q.add(t.Context(), segment, make([]byte, 5000), arrival{now, now, true, false}); err != nil {
		t.Fatal(err)
	}
	if err := q.turn(&turn{timeline: 2, at: segment + 5000}); err != nil {
		t.Fatal(err)
	}
	if err := q.add(t.Context(), segment, []byte("new"), arrival{now, now, true, false}); err != nil {
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
