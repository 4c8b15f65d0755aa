package events_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/btcdecoded/holdfast/events"
)

var update = flag.Bool("update", false, "rewrite golden files")

// kinds says how each example is read and which schema describes it.
func kinds() map[string]struct {
	schema string
	decode func([]byte) (any, error)
} {
	type kind = struct {
		schema string
		decode func([]byte) (any, error)
	}
	return map[string]kind{
		"job-backup":   {"job", lift(events.DecodeJob)},
		"job-verify":   {"job", lift(events.DecodeJob)},
		"job-restore":  {"job", lift(events.DecodeJob)},
		"job-accepted": {"job-accepted", lift(events.DecodeJobAccepted)},
		"job-refused":  {"job-refused", lift(events.DecodeJobRefused)},
		"job-finished": {"job-finished", lift(events.DecodeJobFinished)},
		"heartbeat":    {"heartbeat", lift(events.DecodeHeartbeat)},
		"alert-opened": {"alert-opened", lift(events.DecodeAlertOpened)},
		"alert-closed": {"alert-closed", lift(events.DecodeAlertClosed)},
		"tick":         {"tick", lift(events.DecodeTick)},
		"reread":       {"reread", lift(events.DecodeReread)},
		"envelope":     {"", lift(events.DecodeEnvelope)},
	}
}

func lift[T any](decode func([]byte) (*T, error)) func([]byte) (any, error) {
	return func(data []byte) (any, error) { return decode(data) }
}

func example(t testing.TB, name string) []byte {
	t.Helper()
	data, err := fs.ReadFile(events.Examples(), name+".json")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func compile(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	data, err := fs.ReadFile(events.Schemas(), name+".json")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(name, doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func says(t *testing.T, s *jsonschema.Schema, data []byte) error {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return err
	}
	return s.Validate(doc)
}

// TestExamples reads every example, writes it again, compares, and asks the schema.
func TestExamples(t *testing.T) {
	seen := map[string]bool{}
	for name, kind := range kinds() {
		seen[name+".json"] = true
		data := example(t, name)
		v, err := kind.decode(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		out, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var want, got any
		if json.Unmarshal(data, &want) != nil || json.Unmarshal(out, &got) != nil {
			t.Fatal("not JSON")
		}
		if kind.schema == "" {
			continue // EventBridge has members that we do not read
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-example +written again):\n%s", name, diff)
		}
		if err := says(t, compile(t, kind.schema), data); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	all, err := fs.Glob(events.Examples(), "*.json")
	if err != nil || len(all) != len(seen) {
		t.Errorf("examples %v: want those of %v", all, seen)
	}
}

// TestMembersAreOnlyAdded compares the members of all schemas with those that were published: lines may be added to the
// golden file, none may go.
func TestMembersAreOnlyAdded(t *testing.T) {
	paths, err := fs.Glob(events.Schemas(), "*.json")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, path := range paths {
		data, err := fs.ReadFile(events.Schemas(), path)
		if err != nil {
			t.Fatal(err)
		}
		var doc any
		if err := json.Unmarshal(data, &doc); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, members(strings.TrimSuffix(path, ".json"), doc)...)
	}
	slices.Sort(lines)
	lines = slices.Compact(lines)
	const golden = "testdata/members.txt"
	text, err := os.ReadFile(golden)
	if err != nil && !*update {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSuffix(line, "\n"); !slices.Contains(lines, line) {
			t.Errorf("%s is gone, or of another type: what was published stays", line)
		}
	}
	if got := strings.Join(lines, "\n") + "\n"; got != string(text) {
		if !*update {
			t.Error("members were added: run go test ./events -update")
		} else if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// members lists the members of a schema with their types.
func members(at string, v any) []string {
	schema, _ := v.(map[string]any)
	var out []string
	properties, _ := schema["properties"].(map[string]any)
	for name, p := range properties {
		m, _ := p.(map[string]any)
		path := at + "." + name
		switch {
		case m["type"] != nil:
			out = append(out, fmt.Sprint(path, " ", m["type"]))
		case m["enum"] != nil:
			for _, value := range m["enum"].([]any) {
				out = append(out, fmt.Sprint(path, " = ", value))
			}
		}
		out = append(out, members(path, p)...)
	}
	for _, inner := range []string{"items", "additionalProperties"} {
		if m, ok := schema[inner].(map[string]any); ok {
			out = append(out, members(at+".*", m)...)
		}
	}
	return out
}

// TestJobsAreStrict alters the examples of jobs; each must be refused as malformed, and the schema must agree where it
// can say so.
func TestJobsAreStrict(t *testing.T) {
	backup, restore := string(example(t, "job-backup")), string(example(t, "job-restore"))
	change := func(text, old, with string) string {
		t.Helper()
		if !strings.Contains(text, old) {
			t.Fatalf("%q is not in the example", old)
		}
		return strings.Replace(text, old, with, 1)
	}
	schema := compile(t, "job")
	for name, tt := range map[string]struct {
		text  string
		valid bool // as far as the schema can tell
	}{
		"a hook":               {change(backup, `"kind"`, `"hooks": {"before": [{"command": ["sh"]}]}, "kind"`), false},
		"a command":            {change(backup, `"kind"`, `"command": "sh", "kind"`), false},
		"a path":               {change(backup, `"kind"`, `"path": "/etc", "kind"`), false},
		"another version":      {change(backup, `"version": 1`, `"version": 2`), false},
		"no version":           {change(backup, `"version": 1,`, ``), false},
		"an unknown kind":      {change(backup, `"backup"`, `"prune"`), false},
		"an unknown type":      {change(backup, `"incremental"`, `"continuous"`), false},
		"no type":              {change(backup, `"type": "incremental",`, ``), false},
		"a short id":           {change(backup, `"id": "3f`, `"id": "f`), false},
		"a host with a slash":  {change(backup, `"governance-1"`, `"../x"`), false},
		"a source with slash":  {change(backup, `"governance-db"`, `"a/b"`), false},
		"no source":            {change(backup, `"source": "governance-db",`, ``), false},
		"no due":               {change(backup, `"due": "2026-03-06T12:00:00Z",`, ``), false},
		"over before it begun": {change(backup, `"not_after": "2026`, `"not_after": "2025`), true},
		"a negative attempt":   {change(backup, `"due"`, `"attempt": -1, "due"`), false},
		"a member twice":       {change(backup, `"kind"`, `"host": "other-host", "kind"`), true},
		"a member in capitals": {change(backup, `"host"`, `"Host": "other-host", "host"`), false},
		"something behind":     {backup + "{}", true},
		"a list":               {"[" + backup + "]", false},
		"nothing":              {"", false},
		"cut off":              {backup[:len(backup)/2], false},
		"too large":            {change(backup, `"governance-db"`, `"`+strings.Repeat("x", events.MaxMessage)+`"`), false},
		"deep":                 {change(backup, `"governance-db"`, strings.Repeat("[", 2000)+strings.Repeat("]", 2000)), false},
		"a restore in backups": {change(backup, `"due"`, `"restore": {"request": "eA==", "signatures": [{"signer": "a", "signature": ""}]}, "due"`), true},
		"a restore without":    {change(restore, `"restore": {`, `"x": {`), false},
		"no signatures":        {restore[:strings.Index(restore, `"signatures"`)] + `"signatures": []}}`, false},
		"no request":           {change(restore, "eyJyZXF1ZXN0Ijoi4oCmIn0=", ""), false},
		"a hook in a restore":  {change(restore, `"request"`, `"command": "sh", "request"`), false},
	} {
		j, err := events.DecodeJob([]byte(tt.text))
		var refused *events.RefusedError
		if !errors.As(err, &refused) || refused.Code != events.Malformed || j != nil {
			t.Errorf("%s: %v, %v", name, j, err)
			continue
		}
		if len(refused.Reason) > 200 {
			t.Errorf("%s: a reason of %d bytes", name, len(refused.Reason))
		}
		if got := says(t, schema, []byte(tt.text)) == nil; got != tt.valid && name != "something behind" {
			t.Errorf("%s: the schema says %v", name, got)
		}
	}
}

func TestEventsAreLenient(t *testing.T) {
	data := bytes.Replace(example(t, "heartbeat"), []byte(`"host"`), []byte(`"since_then": {"x": [1]}, "host"`), 1)
	if _, err := events.DecodeHeartbeat(data); err != nil {
		t.Errorf("a member of a newer agent: %v", err)
	}
	for name, kind := range kinds() {
		for _, text := range []string{"", "{}", "[]", "null", `{"host": 1}`, strings.Repeat(" ", 3*events.MaxMessage) + "{}"} {
			if name == "tick" && strings.HasPrefix(text, "{") || name == "tick" && text == "null" {
				continue // a tick of now
			}
			if v, err := kind.decode([]byte(text)); err == nil {
				t.Errorf("%s from %.20q: %v", name, text, v)
			}
		}
	}
}

func TestIDs(t *testing.T) {
	due := time.Date(2026, 3, 6, 12, 0, 0, 0, time.FixedZone("", 3600))
	id := events.JobID("s3://bucket", "web-1/etc", due, "backup", "full")
	// Fixed for good: an agent and a control plane of different versions must agree.
	if id != "489bdee31bd9cb470c8e50d306acc409" {
		t.Errorf("id %s", id)
	}
	if !events.IsID(id) || events.RetryID(id, 0) != id {
		t.Errorf("%q is not the id of its first attempt", id)
	}
	all := []string{id, events.RetryID(id, 1), events.RetryID(id, 2)}
	for _, parts := range [][4]string{
		{"s3://bucket", "web-1/etc", "backup", "incremental"},
		{"s3://bucket", "web-1/et", "cbackup", "full"},
		{"s3://bucke", "tweb-1/etc", "backup", "full"},
		{"s3://bucket", "web-1/etc", "backupf", "ull"},
	} {
		all = append(all, events.JobID(parts[0], parts[1], due, parts[2], parts[3]))
	}
	all = append(all, events.JobID("s3://bucket", "web-1/etc", due.Add(time.Second), "backup", "full"))
	slices.Sort(all)
	if n := len(slices.Compact(all)); n != 8 {
		t.Errorf("%d different ids of 8", n)
	}
	if events.JobID("s3://bucket", "web-1/etc", due.UTC(), "backup", "full") != id {
		t.Error("the zone of the time changes the id")
	}
}

func TestQueueNames(t *testing.T) {
	for host, want := range map[string]string{
		"web-1": "holdfast-web-1", "a_B-9": "holdfast-a_B-9", "web.example": "", "jobs-dlq": "", "": "", "-x": "", "a/b": "",
		strings.Repeat("x", 63): "holdfast-" + strings.Repeat("x", 63), strings.Repeat("x", 64): "",
	} {
		if got, err := events.QueueName(host); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", host, got, err)
		}
	}
}

func FuzzDecodeJob(f *testing.F) {
	for _, name := range []string{"job-backup", "job-verify", "job-restore"} {
		f.Add(example(f, name))
	}
	f.Add([]byte(`{"version":1,"id":"x"} {`))
	f.Fuzz(func(t *testing.T, data []byte) {
		j, err := events.DecodeJob(data)
		if err != nil {
			var refused *events.RefusedError
			if !errors.As(err, &refused) || refused.Code != events.Malformed {
				t.Fatalf("error of type %T: %v", err, err)
			}
			return
		}
		out, err := events.EncodeJob(j)
		if errors.Is(err, events.ErrSize) {
			return // what was escaped by one byte less
		}
		again, err2 := events.DecodeJob(out)
		if err != nil || err2 != nil {
			t.Fatalf("%v, %v: %s", err, err2, out)
		}
		if diff := cmp.Diff(j, again); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzDecodeEvents(f *testing.F) {
	for name := range kinds() {
		f.Add(example(f, name))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for name, kind := range kinds() {
			v, err := kind.decode(data)
			if err != nil {
				continue
			}
			if _, err := json.Marshal(v); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	})
}
