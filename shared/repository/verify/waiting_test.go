package verify

import (
	"bytes"
	"fmt"
	"testing"
)

// TestWaitingRoom puts more than stays in memory and takes it in another order, several times.
func TestWaitingRoom(t *testing.T) {
	var r waitingRoom
	defer r.close()
	const n, size = 1000, 4096
	slice := func(round, i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "%7d.", round*n+i), size/8) }
	for round := range 3 {
		var waiters []waiter
		for i := range n {
			waiters = append(waiters, r.put(slice(round, i)))
		}
		if r.held > waitingHeld || r.f == nil || r.end != n*size-int64(r.held) {
			t.Fatalf("%d bytes are held, %d are in the file", r.held, r.end)
		}
		for k := range n {
			i := k * 7 % n
			b, err := r.take(waiters[i])
			if err != nil || !bytes.Equal(b, slice(round, i)) {
				t.Fatalf("slice %d: %v", i, err)
			}
		}
		if r.held != 0 || r.end != 0 {
			t.Fatalf("%d bytes are held, %d are in the file, and none wait", r.held, r.end)
		}
	}
}

// TestWaitingRoomDamage damages the file: what was in it does not come back.
func TestWaitingRoomDamage(t *testing.T) {
	var r waitingRoom
	defer r.close()
	b := bytes.Repeat([]byte("map "), waitingHeld/8)
	held := []waiter{r.put(b), r.put(b)}
	damaged, cut := r.put(b), r.put(b)
	if _, err := r.f.WriteAt([]byte("x"), 100); err != nil {
		t.Fatal(err)
	}
	if err := r.f.Truncate(r.end - 1); err != nil {
		t.Fatal(err)
	}
	for _, w := range held {
		if got, err := r.take(w); err != nil || !bytes.Equal(got, b) {
			t.Errorf("what is in memory: %v", err)
		}
	}
	for _, w := range []waiter{damaged, cut} {
		if _, err := r.take(w); err == nil {
			t.Error("damage was not noticed")
		}
	}
}

// TestWaitingRoomWithoutFile has no place for the file.
func TestWaitingRoomWithoutFile(t *testing.T) {
	t.Setenv("TMPDIR", "/nowhere")
	var r waitingRoom
	defer r.close()
	b := bytes.Repeat([]byte("map "), waitingHeld/8)
	for _, w := range []waiter{r.put(b), r.put(b), r.put(b), r.put(b)} {
		if got, err := r.take(w); err != nil || !bytes.Equal(got, b) {
			t.Error(err)
		}
	}
}
