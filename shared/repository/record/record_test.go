package record_test

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository/record"
)

func TestActive(t *testing.T) {
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	earlier, later := now.Add(-time.Hour), now.Add(time.Hour)
	tests := []struct {
		name  string
		marks map[string]record.Mark
		want  record.MarkKind
	}{
		{"none", nil, ""},
		{"tag keeps nothing", map[string]record.Mark{"a": {Mark: record.Tag}}, ""},
		{"pin", map[string]record.Mark{"a": {Mark: record.Pin}}, record.Pin},
		{"hold outranks pin", map[string]record.Mark{"a": {Mark: record.Pin}, "b": {Mark: record.Hold}}, record.Hold},
		{"of a newer program", map[string]record.Mark{"a": {Mark: "freeze"}}, "freeze"},
		{"of a newer program, ended", map[string]record.Mark{"a": {Mark: "freeze"}, "b": {Mark: "freeze", Ends: "a"}}, ""},
		{"hold outranks what is not known", map[string]record.Mark{"a": {Mark: "freeze"}, "b": {Mark: record.Hold}}, record.Hold},
		{"ended", map[string]record.Mark{"a": {Mark: record.Pin}, "b": {Mark: record.Pin, Ends: "a"}}, ""},
		{"another is ended", map[string]record.Mark{"a": {Mark: record.Pin}, "b": {Mark: record.Pin, Ends: "c"}}, record.Pin},
		{"run out", map[string]record.Mark{"a": {Mark: record.Hold, Until: &earlier}}, ""},
		{"runs out just now", map[string]record.Mark{"a": {Mark: record.Hold, Until: &now}}, ""},
		{"still running", map[string]record.Mark{"a": {Mark: record.Hold, Until: &later}}, record.Hold},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := record.Keeps(record.Active(tt.marks, now))
			if got != tt.want || ok != (tt.want != "") {
				t.Errorf("got %q, %v; want %q", got, ok, tt.want)
			}
		})
	}
}
