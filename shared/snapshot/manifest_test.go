package snapshot

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// samplePostgres is a manifest of a base backup, beside whose log it stands.
func samplePostgres() *Manifest {
	m := sampleManifest()
	m.Kind, m.Partial = "postgres", false
	m.Log = &LogPlace{Stream: strings.Repeat("0d", 16), Epoch: 1, Sequence: 7, Record: strings.Repeat("a", 64)}
	m.Postgres = &Postgres{
		System: 7412345678901234567, Version: "15.18 (Debian 15.18-0+deb12u1)", Timeline: 1, SegmentSize: 16 << 20, Start: 0x2000028, Stop: 0x16B374D848,
	}
	return m
}

func sampleManifest() *Manifest {
	report := sampleRef(11).JSON()
	hex64 := func(c string) string { return strings.Repeat(c, 64) }
	return &Manifest{
		Format: 1, Repository: strings.Repeat("0a", 16), Host: "web", Source: "etc", Kind: "files",
		Sequence: 42, Previous: hex64("b"), Type: Incremental, Parent: 41, Chain: strings.Repeat("0c", 16), ChainStart: 40,
		Started:  time.Date(2026, 3, 4, 5, 6, 7, 80, time.UTC),
		Finished: time.Date(2026, 3, 4, 5, 6, 9, 0, time.UTC),
		Tool:     "holdfast 1.0",
		Keys: []Key{{Key: hex64("d"), Wrapped: []Wrapped{
			{Type: "age", Recipient: "age1example", Wrapped: []byte("wrapped for one")},
			{Type: "age", Recipient: "age1other", Wrapped: []byte("wrapped for another")},
		}}},
		Lists:    []List{{List: hex64("e"), Size: 1000, Packs: 14, Bytes: 200_000_000}, {List: hex64("f"), Size: 70, Packs: 1, Bytes: 999}},
		Without:  [][2]uint64{{2, 2}, {5, 9}},
		NextPack: 16, Root: sampleRef(10).JSON(), Report: &report,
		Counts:  Counts{Files: 1, Directories: 2, Others: 3, Bytes: 4, NewFiles: 5, ChangedFiles: 6, ReadBytes: 7, AddedBytes: 8, AddedPacks: 9, Errors: 10, NotConsistent: 11},
		Partial: true, Tags: []string{"before upgrade", "übung"},
	}
}

func TestManifestGolden(t *testing.T) {
	testGolden(t, "manifest.json", sampleManifest())
	testGolden(t, "manifest-postgres.json", samplePostgres())
}

func testGolden(t *testing.T, name string, want *Manifest) {
	t.Helper()
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, '\n')
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(golden), string(b)); diff != "" {
		t.Fatal(diff)
	}
	got, err := ParseManifest(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	if got.ID().String() != "web/etc@42" {
		t.Fatal(got.ID())
	}
}

func TestManifestUnknownMembers(t *testing.T) {
	b, err := json.Marshal(sampleManifest())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseManifest(append([]byte(`{"of a later version":[1],`), b[1:]...)); err != nil {
		t.Fatal(err)
	}
}

// TestManifestTypes checks where snapshots of each type may stand.
func TestManifestTypes(t *testing.T) {
	for _, c := range []struct {
		typ                     SnapshotType
		sequence, parent, start uint64
		want                    bool
	}{
		{Full, 1, 0, 1, true},
		{Full, 42, 0, 42, true},
		{Full, 42, 41, 42, false},
		{Full, 42, 0, 41, false},
		{Differential, 42, 40, 40, true},
		{Differential, 42, 41, 40, false},
		{Differential, 42, 42, 42, false},
		{Incremental, 42, 40, 40, true},
		{Incremental, 42, 41, 40, true},
		{Incremental, 42, 39, 40, false},
		{Incremental, 42, 42, 40, false},
		{Incremental, 42, 0, 0, false},
		{"", 42, 0, 42, false},
		{"continuous", 42, 0, 42, false},
	} {
		m := sampleManifest()
		m.Type, m.Sequence, m.Parent, m.ChainStart = c.typ, c.sequence, c.parent, c.start
		if c.sequence == 1 {
			m.Previous = ""
		}
		if err := m.Check(); (err == nil) != c.want {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestManifestRefuses(t *testing.T) {
	local := time.FixedZone("", 3600)
	for name, change := range map[string]func(*Manifest){
		"postgres of files": func(m *Manifest) { m.Postgres = samplePostgres().Postgres },
		"unfinished, whole": func(m *Manifest) { m.Unfinished, m.Partial = true, false },
		"repository":        func(m *Manifest) { m.Repository = "" },
		"upper-case hex":    func(m *Manifest) { m.Repository = strings.ToUpper(m.Repository) },
		"host":              func(m *Manifest) { m.Host = "../x" },
		"reserved host":     func(m *Manifest) { m.Host = "access" },
		"source":            func(m *Manifest) { m.Source = "" },
		"kind":              func(m *Manifest) { m.Kind = "Files" },
		"sequence 0":        func(m *Manifest) { m.Sequence = 0 },
		"sequence too high": func(m *Manifest) { m.Sequence = MaxSequence + 1 },
		"no previous":       func(m *Manifest) { m.Previous = "" },
		"short previous":    func(m *Manifest) { m.Previous = "abc" },
		"previous of number 1": func(m *Manifest) {
			m.Sequence, m.Type, m.Parent, m.ChainStart = 1, Full, 0, 1
		},
		"chain":               func(m *Manifest) { m.Chain = "xyz" },
		"no start":            func(m *Manifest) { m.Started = time.Time{} },
		"local time":          func(m *Manifest) { m.Finished = m.Finished.In(local) },
		"no tool":             func(m *Manifest) { m.Tool = "" },
		"escape in the tool":  func(m *Manifest) { m.Tool = "x\x1b[2J" },
		"direction of a tag":  func(m *Manifest) { m.Tags = []string{"a\u202eb"} },
		"invisible in a tag":  func(m *Manifest) { m.Tags = []string{"a\u200bb"} },
		"newline in a tag":    func(m *Manifest) { m.Tags = []string{"a\nb"} },
		"long tag":            func(m *Manifest) { m.Tags = []string{strings.Repeat("x", 257)} },
		"tag twice":           func(m *Manifest) { m.Tags = []string{"a", "a"} },
		"no key":              func(m *Manifest) { m.Keys = nil },
		"key id":              func(m *Manifest) { m.Keys[0].Key = "abc" },
		"key twice":           func(m *Manifest) { m.Keys = append(m.Keys, m.Keys[0]) },
		"key for nobody":      func(m *Manifest) { m.Keys[0].Wrapped = nil },
		"nothing wrapped":     func(m *Manifest) { m.Keys[0].Wrapped[0].Wrapped = nil },
		"no list":             func(m *Manifest) { m.Lists = nil },
		"list id":             func(m *Manifest) { m.Lists[0].List = "../x" },
		"list twice":          func(m *Manifest) { m.Lists[1] = m.Lists[0] },
		"list size":           func(m *Manifest) { m.Lists[0].Size = -1 },
		"list packs":          func(m *Manifest) { m.Lists[0].Packs = -1 },
		"without from 0":      func(m *Manifest) { m.Without = [][2]uint64{{0, 1}} },
		"without touching":    func(m *Manifest) { m.Without = [][2]uint64{{1, 2}, {3, 3}} },
		"without reversed":    func(m *Manifest) { m.Without = [][2]uint64{{3, 2}} },
		"without past next":   func(m *Manifest) { m.Without = [][2]uint64{{16, 16}} },
		"high next pack":      func(m *Manifest) { m.NextPack = MaxPackNumber + 2 },
		"next pack":           func(m *Manifest) { m.NextPack = 0 },
		"root past next":      func(m *Manifest) { m.NextPack = 11 },
		"root in without":     func(m *Manifest) { m.Without = [][2]uint64{{11, 11}} },
		"report in without":   func(m *Manifest) { m.Without = [][2]uint64{{12, 12}} },
		"root id":             func(m *Manifest) { m.Root.ID = "" },
		"root in the header":  func(m *Manifest) { m.Root.Offset = 0 },
		"report without body": func(m *Manifest) { m.Report.Sealed = 1 },
	} {
		m := sampleManifest()
		change(m)
		if err := m.Check(); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzManifest(f *testing.F) {
	m := sampleManifest()
	m.Keys[0].Wrapped, m.Lists, m.Report, m.Tags = m.Keys[0].Wrapped[:1], m.Lists[:1], nil, m.Tags[:1]
	b, err := json.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseManifest(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrUnsupported) {
				t.Fatalf("%v is neither ErrFormat nor ErrUnsupported", err)
			}
			return
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		m2, err := ParseManifest(again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, m2, cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestManifestPostgresRefuses(t *testing.T) {
	for name, change := range map[string]func(*Postgres){
		"system":       func(p *Postgres) { p.System = 0 },
		"timeline":     func(p *Postgres) { p.Timeline = 0 },
		"version":      func(p *Postgres) { p.Version = "15\n" },
		"no version":   func(p *Postgres) { p.Version = "" },
		"segment size": func(p *Postgres) { p.SegmentSize = 3 << 20 },
		"no start":     func(p *Postgres) { p.Start = 0 },
		"stop":         func(p *Postgres) { p.Stop = p.Start - 1 },
	} {
		m := samplePostgres()
		change(m.Postgres)
		if err := m.Check(); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, change := range [][2]string{{`"7412345678901234567"`, "7412345678901234567"}, {"0/2000028", "0/2000028a"}, {"16/B374D848", "16/b374d848"}, {`"timeline":1`, `"timeline":-1`}} {
		b, err := json.Marshal(samplePostgres())
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.Replace(string(b), change[0], change[1], 1)
		if _, err := ParseManifest([]byte(changed)); err == nil || changed == string(b) {
			t.Errorf("%s passes", change[1])
		}
	}
}
