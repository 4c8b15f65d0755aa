package snapshot

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestReportRoundTrip(t *testing.T) {
	want := []Problem{
		{Path: []byte("/a\xff\n"), Operation: "open", Error: "permission denied"},
		{Path: []byte("/b"), Operation: "read", Error: "input/output error"},
	}
	b := MarshalReport(want)
	got, err := ParseReport(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	const golden = `{"problems":[{"path":"L2H/Cg==","operation":"open","error":"permission denied"},{"path":"L2I=","operation":"read","error":"input/output error"}]}`
	if string(b) != golden {
		t.Fatalf("%s", b)
	}
	if b := MarshalReport(nil); string(b) != `{"problems":[]}` {
		t.Fatalf("%s", b)
	}
}

// TestReportLimit checks that a report always fits in a chunk, and says what it leaves out.
func TestReportLimit(t *testing.T) {
	problems := make([]Problem, 10_000)
	for i := range problems {
		problems[i] = Problem{Path: []byte("/x"), Operation: "read", Error: strings.Repeat("e", 1000)}
	}
	b := MarshalReport(problems)
	got, err := ParseReport(b)
	if err != nil || len(b) > MaxChunk {
		t.Fatal(len(b), err)
	}
	last := got[len(got)-1]
	if len(got) > len(problems) || last.Path != nil || bytes.Contains(b, []byte("null")) || !strings.Contains(last.Error, "more problems") {
		t.Fatalf("%d problems, the last: %+v", len(got), last)
	}
}

func FuzzReport(f *testing.F) {
	f.Add(MarshalReport([]Problem{{Path: []byte("/a"), Operation: "open", Error: "denied"}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		problems, err := ParseReport(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("%v is no ErrFormat", err)
			}
			return
		}
		again, err := ParseReport(MarshalReport(problems))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(problems, again, cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
	})
}
