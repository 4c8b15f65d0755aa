package policy_test

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/btcdecoded/holdfast/shared/policy"
)

func compile(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(policy.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// schemaSays reports whether the schema accepts the YAML document.
func schemaSays(t *testing.T, s *jsonschema.Schema, data []byte) error {
	t.Helper()
	var v any
	if err := yaml.Unmarshal(data, &v); err != nil {
		return err
	}
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	return s.Validate(doc)
}

func TestSchemaExamples(t *testing.T) {
	s := compile(t)
	paths, _ := filepath.Glob(examples + "/*.yaml")
	shown, _ := filepath.Glob("testdata/show-*.yaml")
	for _, path := range append(paths, shown...) {
		if err := schemaSays(t, s, read(t, path)); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestSchemaAgrees runs the parser and the schema over the same policies. A schema can't know dates, time zones, clean
// paths and duplicate names; those cases are marked.
func TestSchemaAgrees(t *testing.T) {
	const (
		good = iota
		bad
		onlyParser // the parser refuses, the schema can't know
	)
	s := compile(t)
	source := func(body string) string {
		return "version: 1\nhosts: {h: {sources: {s: {" + body + "}}}}\n"
	}
	files := func(body string) string { return source("files: {roots: [/srv]}, " + body) }
	repository := func(body string) string {
		return "version: 1\nrepository: {" + body + "}\nhosts: {h: {sources: {s: {files: {roots: [/]}}}}}\n"
	}
	const (
		key   = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
		other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICAhIiMkJSYnKCkqKywtLi8wMTIzNDU2Nzg5Ojs8PT4/"
		p256  = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBIxhODcD61Nyc7n5eEZ5wx2r8sZu6K3tZ3sUHM4Bw3v3kqrpOI9X4lOUezZMCzyp3pXqQrPKh9Zzu1LzcSKjVbg="
	)
	approvers := func(list string) string {
		return "version: 1\napprovers: [" + list + "]\nhosts: {h: {sources: {s: {files: {roots: [/]}}}}}\n"
	}
	limits := func(body string) string {
		return "version: 1\nlimits: {" + body + "}\nhosts: {h: {sources: {s: {files: {roots: [/]}}}}}\n"
	}
	restore := func(body string) string {
		return "version: 1\nhosts: {h: {restore: {" + body + "}, sources: {s: {files: {roots: [/]}}}}}\n"
	}
	for _, tt := range []struct {
		want int
		text string
	}{
		{good, approvers("{name: a, key: " + key + "}, {name: b, key: " + other + " comment at the end}")},
		{good, approvers("")},
		{good, approvers("{name: a, key: " + key + "}, {name: kms, key: " + p256 + " in the HSM}")},
		{onlyParser, approvers("{name: a, key: " + p256 + "}, {name: b, key: " + p256 + " other comment}")},
		{onlyParser, approvers("{name: a, key: " + strings.Replace(p256, "BIxh", "BIxi", 1) + "}")}, // no point of the curve
		{bad, approvers("{name: a, key: " + strings.TrimSuffix(p256, "Vbg=") + "}")},
		{bad, approvers("{name: a, key: " + strings.Replace(p256, "ecdsa-sha2-nistp256", "ssh-ed25519", 1) + "}")},
		{bad, approvers("{name: a}")},
		{bad, approvers("{key: " + key + "}")},
		{bad, approvers("{name: 'a b', key: " + key + "}")},
		{bad, approvers("{name: a, key: ssh-rsa AAAA}")},
		{bad, approvers("{name: a, key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAB}")},
		{onlyParser, approvers("{name: a, key: ssh-ed25519 " + strings.Repeat("A", 68) + "}")},
		{onlyParser, approvers("{name: a, key: " + key + "}, {name: a, key: " + other + "}")},
		{onlyParser, approvers("{name: a, key: " + key + "}, {name: b, key: " + key + " other comment}")},
		{good, restore("targets: [/srv/restore], in_place: true")},
		{good, restore("")},
		{bad, restore("targets: [/]")},
		{bad, restore("targets: [srv]")},
		{onlyParser, restore("targets: [/srv/../etc]")},
		{bad, restore("in_place: 1")},
		{good, source("files: {roots: [/]}")},
		{good, source("sqlite: {path: /a.db}")},
		{good, source("postgres: {service: db, mode: physical}, schedule: {continuous: 10s}")},
		{good, source("docker: {volumes: [data]}")},
		{bad, "version: 2\nhosts: {h: {sources: {s: {files: {roots: [/]}}}}}\n"},
		{bad, "version: '1'\nhosts: {h: {sources: {s: {files: {roots: [/]}}}}}\n"},
		{bad, "version: 1\n"},
		{bad, "version: 1\nhosts: {}\n"},
		{bad, "version: 1\nhosts: {h: {}}\n"},
		{bad, "version: 1\nhosts: {h: {sources: {}}}\n"},
		{bad, "version: 1\nhosts: {access: {sources: {s: {files: {roots: [/]}}}}}\n"},
		{bad, "version: 1\nhosts: {h: {sources: {policy: {files: {roots: [/]}}}}}\n"},
		{bad, "version: 1\nhosts: {.h: {sources: {s: {files: {roots: [/]}}}}}\n"},
		{bad, "version: 1\nextra: 1\nhosts: {h: {sources: {s: {files: {roots: [/]}}}}}\n"},
		{bad, source("")},
		{bad, source("files: {}")},
		{bad, source("files: {roots: []}")},
		{bad, source("files: {roots: /}")},
		{bad, source("files: {roots: [srv]}")},
		{bad, source("files: {roots: [1]}")},
		{bad, source("files: {roots: [/, /]}")},
		{onlyParser, source("files: {roots: [/a/../b]}")},
		{bad, source("files: {roots: [/]}, sqlite: {path: /a}")},
		{bad, source("sqlite: {path: a}")},
		{bad, source("sqlite: {}")},
		{bad, source("postgres: {service: db}")},
		{bad, source("postgres: {service: db, mode: both}")},
		{bad, source("postgres: {service: 'host=x', mode: logical}")},
		{bad, source("postgres: {service: db, mode: logical}, schedule: {continuous: 1s}")},
		{good, source("postgres: {service: db, mode: logical, databases: [app, 'Mixed Case', \"a/b\"], globals: false, bin: /opt/pg/bin, run_as: postgres}")},
		{good, source("postgres: {service: db, mode: physical, slot: holdfast_1, amcheck: false, dump_check: true, preload: [timescaledb, pg_cron], run_as: pg-user}, verification: {restore: 1d}")},
		{good, source("postgres: {service: db, mode: logical}, hooks: {stop: [{command: [a]}], start: [{command: [b]}], health: [{command: [c]}]}")},
		{good, source("postgres: {service: db, mode: logical}, checks: [{query: SELECT 1, expect: 1, database: app}]")},
		{bad, source("sqlite: {path: /a}, checks: [{query: SELECT 1, expect: 1, database: app}]")},
		{bad, source("postgres: {service: db, mode: logical, slot: a}")},
		{bad, source("postgres: {service: db, mode: logical, amcheck: true}")},
		{bad, source("postgres: {service: db, mode: physical, databases: [app]}")},
		{bad, source("postgres: {service: db, mode: physical, globals: false}")},
		{bad, source("postgres: {service: db, mode: logical, preload: [timescaledb]}")},
		{bad, source("postgres: {service: db, mode: physical, preload: ['a, b']}")},
		{bad, source("postgres: {service: db, mode: physical, preload: [/tmp/a.so]}")},
		{bad, source("postgres: {service: db, mode: physical, slot: Upper}")},
		{bad, source("postgres: {service: db, mode: physical, bin: bin}")},
		{bad, source("postgres: {service: db, mode: physical, run_as: root}")},
		{bad, source("postgres: {service: db, mode: logical, databases: ['']}")},
		{bad, source("postgres: {service: db, mode: logical, databases: [a, a]}")},
		{onlyParser, source("postgres: {service: db, mode: logical, databases: [\"a\\nb\"]}")},
		{bad, source("docker: {}")},
		{bad, source("docker: {images: []}")},
		{bad, source("docker: {images: ['-x']}")},
		{good, files("schedule: {full: '0 2 1 * *', incremental: 'CRON_TZ=Europe/Berlin */5 * * * 1-5'}")},
		{bad, files("schedule: {full: '0 2 1 *'}")},
		{bad, files("schedule: {full: '@daily'}")},
		{bad, files("schedule: {full: 'TZ=UTC'}")},
		{bad, files("schedule: {full: 5}")},
		{bad, files("schedule: {continuous: 1s}")},
		{onlyParser, files("schedule: {full: '61 2 1 * *'}")},
		{onlyParser, files("schedule: {full: '0 0 31 2 *'}")},
		{onlyParser, files("schedule: {full: 'CRON_TZ=Mars/Base 0 0 * * *'}")},
		{onlyParser, files("schedule: {full: 'CRON_TZ=Local 0 0 * * *'}")},
		{good, files("objectives: {tier: low, rpo: 1d12h, rto: 90s, max_size: 5, copies: 2, key_check: 26w, verify: 1d}")},
		{good, files("objectives: {max_size: '1.5GiB'}")},
		{bad, files("objectives: {max_size: 0}")},
		{bad, files("objectives: {max_size: -1}")},
		{bad, files("objectives: {max_size: 10Gi}")},
		{bad, files("objectives: {max_size: 10 GB}")},
		{bad, files("objectives: {rpo: 15}")},
		{bad, files("objectives: {rpo: 1.5h}")},
		{bad, files("objectives: {rpo: 5m1h}")},
		{bad, files("objectives: {rpo: ''}")},
		{onlyParser, files("objectives: {rpo: 0s}")},
		{bad, files("objectives: {tier: top}")},
		{bad, files("objectives: {copies: 0}")},
		{bad, files("objectives: []")},
		{good, files("retention: {keep_last: 0, daily: 7, keep_within: 4w, keep_tags: [a], time_zone: Asia/Tokyo}")},
		{bad, files("retention: {daily: -1}")},
		{bad, files("retention: {daily: 100001}")},
		{bad, files("retention: {daily: '7'}")},
		{bad, files("retention: {keep_tags: ['a b']}")},
		{bad, files("retention: {keep_tags: [a, a]}")},
		{bad, files("retention: {time_zone: ''}")},
		{onlyParser, files("retention: {time_zone: Atlantis}")},
		{good, files("verification: {content: 30d, restore: 90d}")},
		{good, files("verification: {}")},
		{bad, files("verification: {content: 30}")},
		{bad, files("verification: {structure: 1d}")},
		{onlyParser, files("verification: {content: 10m}")},
		{good, source("sqlite: {path: /a}, verification: {content: 1d}")},
		{good, source("sqlite: {path: /a, max_lock: 500ms}")},
		{good, source("sqlite: {glob: '/srv/*.db'}, schedule: {continuous: 1s}")},
		{bad, source("sqlite: {glob: /srv/a.db}")},
		{bad, source("sqlite: {glob: '*.db'}")},
		{onlyParser, source("sqlite: {glob: '/srv/[a.db'}")},
		{bad, source("sqlite: {path: /a, glob: '/srv/*.db'}")},
		{bad, source("sqlite: {}")},
		{bad, source("sqlite: {path: /a, max_lock: 2}")},
		{onlyParser, source("sqlite: {path: /a, max_lock: 1h}")},
		{onlyParser, source("docker: {volumes: [data]}, verification: {restore: 1d}")},
		{good, limits("concurrent: 3, reread: {period: 60d, bytes: 2TiB, replica_period: 1d, replica_bytes: 200GB}")},
		{bad, limits("reread: {bytes: 0}")},
		{bad, limits("reread: {period: 5}")},
		{bad, limits("reread: {money: 5}")},
		{onlyParser, limits("reread: {period: 1h}")},
		{good, source("sqlite: {path: /a}, checks: [{query: SELECT 1, expect: 1}, {query: SELECT 2, expect: '>= 2'}]")},
		{bad, source("sqlite: {path: /a}, checks: [{query: SELECT 1}]")},
		{bad, source("sqlite: {path: /a}, checks: [{query: SELECT 1, expect: '> '}]")},
		{bad, files("checks: [{query: SELECT 1, expect: 1}]")},
		{good, files("hooks: {before: [{command: [systemctl, stop, app], timeout: 30s}], after: [{command: systemctl start app}]}")},
		{bad, files("hooks: {before: [{timeout: 1s}]}")},
		{bad, files("hooks: {before: [{command: []}]}")},
		{bad, files("hooks: {before: [{command: ' '}]}")},
		{bad, files("hooks: {during: []}")},
		{good, files("metrics: true")},
		{bad, files("metrics: 1")},
		{good, source("files: {roots: [/], exclude: ['*.o', '!keep.o', '\\#x'], exclude_caches: true, max_file_size: 1GB}")},
		{bad, source("files: {roots: [/], exclude: ['# comment']}")},
		{bad, source("files: {roots: [/], exclude: [\"a\\nb\"]}")},
		{good, source("files: {roots: [/], exclude: ['*'], include: ['*.go']}")},
		{bad, source("files: {roots: [/], include: ['!*.go']}")},
		{bad, source("files: {roots: [/], watch: 'true'}")},
		{good, repository("primary: 's3://b?region=eu-west-1', copies: ['gs://b/prefix', 'file:///mnt', /srv]")},
		{good, repository("primary: /srv, recipients: [age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq]")},
		{bad, repository("copies: [/srv]")},
		{bad, repository("primary: 'http://b'")},
		{bad, repository("primary: 's3://u:p@b'")},
		{bad, repository("primary: 's3://b#x'")},
		{bad, repository("primary: 'file://host/x'")},
		{bad, repository("primary: srv/x")},
		{bad, repository("primary: /srv, copies: [/a, /a]")},
		{bad, repository("primary: /srv, recipients: [AGE-SECRET-KEY-1X]")},
		{onlyParser, repository("primary: /srv, copies: [/srv]")},
		{onlyParser, repository("primary: 's3://b?secret_key=x'")},
	} {
		_, err := policy.Parse([]byte(tt.text))
		bySchema := schemaSays(t, s, []byte(tt.text))
		if (err == nil) != (tt.want == good) {
			t.Errorf("parser: %v\n%s", err, tt.text)
		}
		if (bySchema == nil) != (tt.want != bad) {
			t.Errorf("schema: %v\n%s", bySchema, tt.text)
		}
	}
}
