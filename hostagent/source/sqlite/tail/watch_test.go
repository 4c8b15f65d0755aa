package tail

import (
	"testing"
	"time"
)

// TestWithoutInotify follows resets by the times of the index alone.
func TestWithoutInotify(t *testing.T) {
	t.Parallel()
	a := database(t, python)
	a.add(3)
	r := follow(t, a.path)
	r.tail.watch.close()
	r.tail.watch = nil
	r.rebase()
	a.add(1)
	r.want(1)
	a.run("PRAGMA wal_checkpoint(TRUNCATE)")
	a.add(2)
	if _, err := r.poll(); err != nil { // somebody has the index written to the disk just now
		t.Log(err)
		r.rebase()
	}
	r.same(a)
	a.kill()
	r.want(0)
	a = startApp(t, python, a.path)
	a.run("PRAGMA wal_checkpoint(TRUNCATE)")
	a.add(1)
	r.gap(Unproven, 0)
	if err := r.tail.Wait(t.Context(), time.Millisecond); err != nil {
		t.Error(err)
	}
}

// TestWaitEndsWithACheckpoint measures nothing: it expects that a Wait of an hour ends.
func TestWaitEndsWithACheckpoint(t *testing.T) {
	t.Parallel()
	a := database(t, own)
	a.add(1)
	r := follow(t, a.path)
	ended := make(chan error, 1)
	go func() { ended <- r.tail.Wait(t.Context(), time.Hour) }()
	a.add(1)
	select {
	case err := <-ended:
		t.Fatalf("it ended with a commit: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	a.run("PRAGMA wal_checkpoint(PASSIVE)")
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	r.want(1)
	a.close(0)
	r.want(0)
	r.want(0)
	go func() { ended <- r.tail.Wait(t.Context(), time.Hour) }()
	a.run("SELECT count(*) FROM t") // somebody opens it
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// TestRestEndsWithAWrite wants that a commit, and who opens a database, end a long rest, and that a reader does not.
func TestRestEndsWithAWrite(t *testing.T) {
	t.Parallel()
	a := database(t, own)
	a.add(1)
	r := follow(t, a.path)
	type end struct {
		heard bool
		err   error
	}
	ended := make(chan end, 1)
	rest := func() {
		if !r.tail.Listen(true) {
			t.Fatal("nothing is heard")
		}
		r.want(0)
		go func() {
			heard, err := r.tail.Rest(t.Context(), time.Hour)
			ended <- end{heard, err}
		}()
	}
	rest()
	a.run("SELECT count(*) FROM t")
	select {
	case e := <-ended:
		t.Fatalf("it ended with a reader: %+v", e)
	case <-time.After(50 * time.Millisecond):
	}
	a.add(1)
	if e := <-ended; !e.heard || e.err != nil {
		t.Fatalf("%+v", e)
	}
	r.want(1)
	a.close(0)
	r.want(0)
	r.want(0)
	rest()
	a.run("SELECT count(*) FROM t") // somebody opens it
	if e := <-ended; !e.heard || e.err != nil {
		t.Fatalf("%+v", e)
	}
	// Once it is not listened to any more, a commit ends nothing.
	r.want(0)
	rest()
	a.add(1)
	if e := <-ended; !e.heard || e.err != nil {
		t.Fatalf("%+v", e)
	}
	r.want(1)
	if r.tail.Listen(false) {
		t.Error("it listens")
	}
	for r.tail.Heard() {
		_, _ = r.tail.Rest(t.Context(), 2*spacing) // of the commit before
	}
	a.add(1)
	if heard, err := r.tail.Rest(t.Context(), time.Millisecond); heard || err != nil {
		t.Errorf("%v, %v", heard, err)
	}
	r.want(1)
}

// TestRestEndsWithTheLog wants that the end of a log ends a long rest also where nothing is left to be written to the file:
// the next one who comes makes another log.
func TestRestEndsWithTheLog(t *testing.T) {
	t.Parallel()
	a := database(t, own)
	a.add(1)
	r := follow(t, a.path)
	a.run("PRAGMA wal_checkpoint(TRUNCATE)")
	r.want(0)
	if !r.tail.Listen(true) {
		t.Fatal("nothing is heard")
	}
	for r.tail.Heard() {
		_, _ = r.tail.Rest(t.Context(), 2*spacing)
	}
	r.want(0)
	a.close(0)
	if heard, err := r.tail.Rest(t.Context(), time.Hour); !heard || err != nil {
		t.Errorf("%v, %v", heard, err)
	}
	r.want(0)
}
