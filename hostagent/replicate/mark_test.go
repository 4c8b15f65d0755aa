package replicate

import (
	"testing"
)

type position struct {
	Path  string
	Epoch uint64
}

func TestMarks(t *testing.T) {
	dir := t.TempDir()
	if found, err := ReadMark(dir, "k", new(position)); found || err != nil {
		t.Fatal(found, err)
	}
	open := func(want uint64) *Marks {
		t.Helper()
		var p, again position
		m, found, err := OpenMarks(dir, "k", &p)
		if err != nil || found != (want > 0) || found && (p.Epoch != want || p.Path != "/x") {
			t.Fatal(p, found, err)
		}
		if found, err := ReadMark(dir, "k", &again); found != (want > 0) || err != nil || again != p {
			t.Fatal(again, found, err)
		}
		return m
	}
	m := open(0)
	for i := range 5 {
		if err := m.Set(position{"/x", uint64(i)}, i%2 == 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = open(4)
	// A torn one leaves the one before.
	if _, err := m.f.WriteAt([]byte("torn"), int64(m.last%2)*slotSize+20); err != nil {
		t.Fatal(err)
	}
	_ = m.Close()
	m = open(3)
	if err := m.Set(position{"/x", 9}, false); err != nil {
		t.Fatal(err)
	}
	if err := m.Set(make([]byte, slotSize), false); err == nil {
		t.Error("a mark that is too long was written")
	}
	_ = m.Close()
	_ = open(9).Close()
	// What was noted of a source of another kind means nothing.
	other, found, err := OpenMarks(dir, "other", new(position))
	if err != nil || found {
		t.Fatal(found, err)
	}
	if err := other.Set(position{"/y", 1}, true); err != nil {
		t.Fatal(err)
	}
	_ = other.Close()
	if found, err := ReadMark(dir, "k", new(position)); found || err != nil {
		t.Fatal(found, err)
	}
}

func FuzzMark(f *testing.F) {
	f.Add([]byte(`{"number":1,"kind":"k","mark":{}} ` + sumOf([]byte(`{"number":1,"kind":"k","mark":{}}`)) + "\n"))
	f.Add([]byte("x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m := decodeMark(b); m != nil && m.Number == 0 && len(b) < sumSize {
			t.Error("a mark out of nothing")
		}
	})
}
