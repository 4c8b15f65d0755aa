package policy_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/policy"
)

var update = flag.Bool("update", false, "rewrite golden files")

const examples = "../../docs/examples"

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(read(t, path)), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func TestExamples(t *testing.T) {
	paths, err := filepath.Glob(examples + "/*.yaml")
	if err != nil || len(paths) < 2 {
		t.Fatalf("examples: %v %v", paths, err)
	}
	for _, path := range paths {
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			p, err := policy.Parse(read(t, path))
			if err != nil {
				t.Fatal(err)
			}
			out, err := p.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			again, err := policy.Parse(out)
			if err != nil {
				t.Fatalf("what Marshal wrote does not parse: %v\n%s", err, out)
			}
			if diff := cmp.Diff(p, again); diff != "" {
				t.Errorf("round trip (-want +got):\n%s", diff)
			}
			golden(t, "testdata/show-"+name, string(out))
		})
	}
}

func TestGovernance(t *testing.T) {
	p, err := policy.Parse(read(t, examples+"/governance.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	const h = time.Hour
	want := map[string]struct {
		kind string
		rpo  time.Duration
		rto  time.Duration
		kept time.Duration
	}{
		"governance-db":     {policy.KindPostgres, h / 4, 2 * h, 720 * h},
		"governance-sqlite": {policy.KindSQLite, h / 4, 2 * h, 720 * h},
		"governance-config": {policy.KindFiles, 4 * h, 1 * h, 720 * h},
		"governance-app":    {policy.KindFiles, 1 * h, 4 * h, 720 * h},
		"governance-logs":   {policy.KindFiles, 24 * h, 8 * h, 2160 * h},
		"system":            {policy.KindFiles, 48 * h, 8 * h, 720 * h},
		"governance-dump":   {policy.KindPostgres, 48 * h, 0, 720 * h},
		"docker":            {policy.KindFiles, 8 * h, 4 * h, 720 * h},
	}
	if got := len(p.Hosts["governance-1"].Sources); got != len(want) {
		t.Errorf("%d sources, want %d", got, len(want))
	}
	for name, w := range want {
		s, err := p.Lookup("governance-1", name)
		if err != nil {
			t.Error(err)
			continue
		}
		o := s.Objectives
		if s.Kind() != w.kind || o.RPO.Std() != w.rpo || o.RTO.Std() != w.rto || s.Retention.KeepWithin.Std() != w.kept {
			t.Errorf("%s: kind %s, rpo %s, rto %s, kept %s", name, s.Kind(), o.RPO, o.RTO, s.Retention.KeepWithin)
		}
	}
	if got := p.Hosts["governance-1"].MaxSize; got != 10<<30 {
		t.Errorf("max_size %s", got)
	}
	if diff := cmp.Diff([]string{
		"/opt/governance-app/data/governance.db",
		"/opt/governance-app/data/governance.db-wal",
		"/opt/governance-app/data/governance.db-shm",
		"/opt/governance-app/data/governance.db-journal",
	}, p.Hosts["governance-1"].Owned()); diff != "" {
		t.Error(diff)
	}
}

// TestErrors parses testdata/bad/*.yaml and compares all errors with the .txt beside each.
func TestErrors(t *testing.T) {
	paths, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("bad files: %v %v", paths, err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			p, err := policy.Parse(read(t, path))
			var errs policy.Errors
			if !errors.As(err, &errs) || p != nil {
				t.Fatalf("policy %v, error %v: want Errors", p, err)
			}
			last := 0
			for _, e := range errs {
				if e.Line < last {
					t.Errorf("not sorted by line: %v", e)
				}
				last = e.Line
			}
			golden(t, strings.TrimSuffix(path, ".yaml")+".txt", err.Error()+"\n")
		})
	}
}

func TestSecretsAreNotRepeated(t *testing.T) {
	for _, address := range []string{
		"s3://key:hunter2@bucket", "https://u:hunter2@host/x", "s3://bucket?secret_access_key=hunter2",
		"s3://bucket?X-Amz-Signature=hunter2", "AGE-SECRET-KEY-1HUNTER2", "s3://bucket/%zz?password=hunter2",
	} {
		for _, key := range []string{"primary: '" + address + "'", "copies: ['" + address + "']", "recipients: ['" + address + "']"} {
			_, err := policy.Parse([]byte("version: 1\nrepository:\n  " + key + "\nhosts: {a: {sources: {b: {files: {roots: [/]}}}}}\n"))
			if err == nil {
				t.Errorf("%s: accepted", key)
			} else if strings.HasPrefix(key, "recipients") && !strings.Contains(address, "SECRET-KEY") {
				continue
			} else if strings.Contains(strings.ToLower(err.Error()), "hunter2") {
				t.Errorf("%s: the error repeats the secret: %v", key, err)
			}
		}
	}
}

func TestForms(t *testing.T) {
	const tail = "\nhosts: {a: {sources: {b: {files: {roots: [/]}, retention: {daily: 10}}}}}\n"
	for text, ok := range map[string]bool{
		"version: 1" + tail:                                       true,
		"\ufeffversion: 1" + tail:                                 true,
		"%YAML 1.2\n---\nversion: 1" + tail + "...\n":             true,
		"# comment\n\nversion: 1 # comment" + tail:                true,
		strings.ReplaceAll("version: 1"+tail, "\n", "\r\n"):       true,
		strings.ReplaceAll("version: 1"+tail, "10", "010"):        false,
		strings.ReplaceAll("version: 1"+tail, "10", "0x10"):       false,
		strings.ReplaceAll("version: 1"+tail, "10", "1_0"):        false,
		strings.ReplaceAll("version: 1"+tail, "10", "1e1"):        false,
		"version: !!int 1" + tail:                                 false,
		"version: 1" + tail + "---\n# nothing\n":                  true,
		"version: 1" + tail + "---\nversion: 1\n":                 false,
		"version: 1" + tail + "\x00":                              false,
		"version: 1" + tail + "# \xff\n":                          false,
		"version: 1" + tail + strings.Repeat("#", policy.MaxFile): false,
	} {
		if _, err := policy.Parse([]byte(text)); (err == nil) != ok {
			t.Errorf("%.100q: %v", text, err)
		}
	}
}

func TestLookup(t *testing.T) {
	p, err := policy.Parse(read(t, examples+"/governance.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ host, source, nearest string }{
		{"governance1", "x", "governance-1"},
		{"governance-1", "governance-bd", "governance-db"},
		{"governance-1", "entirely-different", ""},
	} {
		_, err := p.Lookup(tt.host, tt.source)
		var lookup *policy.LookupError
		if !errors.As(err, &lookup) || lookup.Nearest != tt.nearest {
			t.Errorf("Lookup(%q, %q) = %v, want nearest %q", tt.host, tt.source, err, tt.nearest)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{examples + "/*.yaml", "testdata/bad/*.yaml"} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Add([]byte("version: 1\nhosts: {a: {sources: {b: {files: {roots: [/]}, hooks: {before: [{command: \"a\\tb: '#\"}]}}}}}\n"))
	f.Add([]byte("[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("version: 1\nhosts: {a: {sources: {b: {files: {roots: [/]}, hooks: {before: [{command: [\"\\x7f\\u2028\\b\\u0085\", \"\", \" \", \"1e3\"]}]}}}}}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := policy.Parse(data)
		if err != nil {
			var errs policy.Errors
			if !errors.As(err, &errs) || len(errs) == 0 {
				t.Fatalf("error of type %T: %v", err, err)
			}
			return
		}
		out, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := policy.Parse(out)
		if err != nil {
			t.Fatalf("what Marshal wrote does not parse: %v\n%s", err, out)
		}
		if diff := cmp.Diff(p, again); diff != "" {
			t.Fatalf("round trip (-want +got):\n%s", diff)
		}
	})
}
