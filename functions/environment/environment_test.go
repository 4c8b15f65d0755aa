package environment_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/functions/environment"
)

type shared struct {
	Bucket string `env:"T_BUCKET"`
}

type sample struct {
	shared
	Shared shared2
	Wait   time.Duration `env:"T_WAIT,optional"`
	Count  int           `env:"T_COUNT"`
	On     bool          `env:"T_ON,optional"`
	Note   string
}

type shared2 struct {
	Topic string `env:"T_TOPIC,optional"`
}

func from(m map[string]string) func(string) string {
	return func(name string) string { return m[name] }
}

func TestLoad(t *testing.T) {
	type Shared struct {
		Bucket string `env:"T_BUCKET"`
	}
	type all struct {
		Shared
		Sub  shared2
		Wait time.Duration `env:"T_WAIT,optional"`
		N    int           `env:"T_COUNT"`
		On   bool          `env:"T_ON,optional"`
		Note string
	}
	want := all{Shared: Shared{"b"}, Sub: shared2{"t"}, Wait: 90 * time.Second, N: 3, On: true}
	var got all
	m := map[string]string{"T_BUCKET": "b", "T_TOPIC": "t", "T_WAIT": "1m30s", "T_COUNT": "3", "T_ON": "true"}
	if err := environment.Load(from(m), &got); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, v := range []any{want, &want} {
		back, err := environment.Map(v)
		if diff := cmp.Diff(m, back); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	}
	short, err := environment.Map(all{Shared: Shared{"b"}})
	if diff := cmp.Diff(map[string]string{"T_BUCKET": "b", "T_COUNT": "0"}, short); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if names, err := environment.Names(all{}); err != nil || strings.Join(names, " ") != "T_BUCKET T_TOPIC T_WAIT T_COUNT T_ON" {
		t.Errorf("%v, %v", names, err)
	}
}

func TestLoadErrors(t *testing.T) {
	var v struct {
		A string        `env:"T_A"`
		B int           `env:"T_B"`
		C time.Duration `env:"T_C,optional"`
		D bool          `env:"T_D,optional"`
		E int           `env:"T_E,optional"`
	}
	err := environment.Load(from(map[string]string{"T_C": "hunter2", "T_D": "hunter2", "T_E": "hunter2"}), &v)
	if err == nil {
		t.Fatal("accepted")
	}
	for _, part := range []string{"missing: T_A, T_B", "T_C", "T_D", "T_E"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not say %q", err, part)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error repeats a value: %v", err)
	}
	for _, v := range []any{nil, 1, sample{}, (*sample)(nil), &struct {
		X string `env:",optional"`
	}{}, &struct {
		X string `env:"T_X,sometimes"`
	}{}} {
		if err := environment.Load(from(nil), v); err == nil {
			t.Errorf("%T accepted", v)
		}
	}
	var odd struct {
		X float64 `env:"T_X"`
	}
	if err := environment.Load(from(map[string]string{"T_X": "1"}), &odd); err == nil {
		t.Error("a type that is not known passes")
	}
}

// TestFunctions looks that the names of all functions are unique and of one form.
func TestFunctions(t *testing.T) {
	for _, v := range []any{
		environment.Coordinate{}, environment.Verify{}, environment.Lifecycle{}, environment.Monitor{}, environment.Restore{},
	} {
		names, err := environment.Names(v)
		if err != nil {
			t.Errorf("%T: %v", v, err)
		}
		seen := map[string]bool{}
		for _, name := range names {
			if seen[name] || !strings.HasPrefix(name, "HOLDFAST_") || strings.ToUpper(name) != name {
				t.Errorf("%T: name %s", v, name)
			}
			seen[name] = true
		}
		if len(names) < reflect.TypeFor[environment.Cloud]().NumField() {
			t.Errorf("%T: %v", v, names)
		}
	}
}
