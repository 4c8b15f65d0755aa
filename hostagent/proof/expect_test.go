package proof_test

import (
	"math"
	"testing"

	"github.com/btcdecoded/holdfast/hostagent/proof"
)

func TestExpect(t *testing.T) {
	for _, tt := range []struct {
		expect string
		answer any
		met    bool
	}{
		{"> 0", int64(1), true},
		{"> 0", int64(0), false},
		{">0", int64(1), true},
		{">= 3", int64(3), true},
		{"< 3", int64(3), false},
		{"<= 3", 3.0, true},
		{"3", int64(3), true},
		{"= 3", "3", true},
		{"== 3", int64(3), true},
		{"!= 3", int64(3), false},
		{"!= 3", int64(4), true},
		{"0.1", 0.1, true},
		{"> 0.1", int64(1), true},
		{"9223372036854775807", int64(math.MaxInt64), true},
		{"9223372036854775806", int64(math.MaxInt64), false},
		{"> 9", "10", true}, // a number kept as text
		{"> 9", []byte("10"), true},
		{"ok", "ok", true},
		{"'ok'", "ok", true},
		{`= "a b"`, "a b", true},
		{"''", "", true},
		{"ok", "not ok", false},
		{"!= ok", "not ok", true},
		{"> b", "c", true},
		{"ok", int64(1), false},
		{"!= ok", int64(1), true},
		{"> ok", int64(1), false},
		{"3", "three", false},
		{"< 3", "three", false},
		{"> 3", "three", false},
		{"!= 3", "three", true},
		{"> 3a", "4", true},
		{"1", true, true},
		{"null", nil, true},
		{"= NULL", nil, true},
		{"!= null", nil, false},
		{"!= null", int64(0), true},
		{"= null", int64(0), false},
		{"> 0", nil, false},
		{"!= 0", nil, false}, // as in SQL
		{"null", "null", true},
		{"> 1", math.NaN(), false},
		{"Inf", "Inf", true},
	} {
		e, err := proof.Expect(tt.expect)
		if err != nil {
			t.Fatal(err)
		}
		if met := e.Met(tt.answer); met != tt.met {
			t.Errorf("%q, answer %v: met %v, want %v", tt.expect, tt.answer, met, tt.met)
		}
	}
	for _, bad := range []string{"", " ", ">", "!= "} {
		if _, err := proof.Expect(bad); err == nil {
			t.Errorf("%q is an expectation", bad)
		}
	}
}

func FuzzExpect(f *testing.F) {
	f.Add("> 0", "1")
	f.Add("'", "'")
	f.Add("=='x'", "x")
	f.Fuzz(func(t *testing.T, text, answer string) {
		e, err := proof.Expect(text)
		if err != nil {
			return
		}
		_ = e.Met(answer)
		_ = e.Met(nil)
		_ = e.Met(int64(len(answer)))
	})
}
