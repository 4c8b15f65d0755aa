package policy

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
)

// The modes of a postgres source.
const (
	Physical = "physical" // base backups and WAL
	Logical  = "logical"  // pg_dump
)

// Postgres is a source of kind postgres: a cluster (physical) or databases of one (logical).
type Postgres struct {
	Service string `json:"service"`          // name in the host's pg_service.conf, where the address and user stand
	Mode    string `json:"mode"`             // Physical or Logical
	Bin     string `json:"bin,omitempty"`    // directory of PostgreSQL's programs; empty: looked for, see docs/postgres.md
	RunAs   string `json:"run_as,omitempty"` // user as whom servers are started that restores and drills need; empty: the owner of the data

	// Logical only.
	Databases []string `json:"databases,omitempty"` // which are dumped; empty: all that can be connected to, but no templates
	Globals   *bool    `json:"globals,omitempty"`   // dump roles and tablespaces too; nil: yes

	// Physical only.
	Slot      string `json:"slot,omitempty"`       // the replication slot that the agent streams from; empty: named after the source
	Amcheck   *bool  `json:"amcheck,omitempty"`    // a restored cluster's indexes are looked through where amcheck is installed; nil: yes
	DumpCheck bool   `json:"dump_check,omitempty"` // a restored cluster is also dumped to nowhere, which reads every row

	Preload []string `json:"preload,omitempty"` // libraries that servers load at their start which restores and drills need
}

// SlotOf is the name of the replication slot of a source of this name.
func (p *Postgres) SlotOf(source string) string {
	if p.Slot != "" {
		return p.Slot
	}
	folded := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, strings.ToLower("holdfast_"+source))
	return folded[:min(len(folded), maxIdentifier)]
}

// WithGlobals reports whether roles and tablespaces are dumped.
func (p *Postgres) WithGlobals() bool { return p.Globals == nil || *p.Globals }

// maxIdentifier is the longest name that PostgreSQL has for databases and slots, in bytes.
const maxIdentifier = 63

var (
	slotPattern    = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)
	libraryPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$`)

	userPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,31}$`)
)

func (d *decoder) postgres(n ast.Node, p *Postgres) {
	d.mapping(
		n,
		field{"service", d.str(&p.Service, checkService)},
		field{"mode", d.str(&p.Mode, oneOf("mode", Physical, Logical))},
		field{"bin", d.str(&p.Bin, checkPath)},
		field{"run_as", d.str(&p.RunAs, checkUser)},
		field{"databases", d.strs(&p.Databases, checkDatabase)},
		field{"globals", func(n ast.Node) { p.Globals = new(bool); d.boolean(p.Globals)(n) }},
		field{"slot", d.str(&p.Slot, checkSlot)},
		field{"amcheck", func(n ast.Node) { p.Amcheck = new(bool); d.boolean(p.Amcheck)(n) }},
		field{"dump_check", d.boolean(&p.DumpCheck)},
		field{"preload", d.strs(&p.Preload, checkLibrary)},
	)
}

// checkPostgres looks at what single values do not show.
func (d *decoder) checkPostgres(at string, p *Postgres) {
	wrong := map[string]bool{}
	switch p.Mode {
	case Logical:
		wrong = map[string]bool{"slot": p.Slot != "", "amcheck": p.Amcheck != nil, "dump_check": p.DumpCheck, "preload": len(p.Preload) > 0}
	case Physical:
		wrong = map[string]bool{"databases": len(p.Databases) > 0, "globals": p.Globals != nil}
	}
	for _, key := range sortedKeys(wrong) {
		if wrong[key] {
			d.failAt(at+".postgres."+key, "", "%s has no meaning in mode %s", key, p.Mode)
		}
	}
}

// checkDatabase checks the name of a database, which may have almost any character.
func checkDatabase(s string) error {
	switch {
	case s == "" || len(s) > maxIdentifier || !utf8.ValidString(s):
		return fmt.Errorf("database %q: want 1 to %d bytes of UTF-8", shorten(s), maxIdentifier)
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("database %q: has a character that can not be shown", shorten(s))
	}
	return nil
}

func checkSlot(s string) error {
	if !slotPattern.MatchString(s) {
		return fmt.Errorf("slot %q: want 1 to 63 of a-z, 0-9 and _", shorten(s))
	}
	return nil
}

func checkLibrary(s string) error {
	if !libraryPattern.MatchString(s) {
		return fmt.Errorf("library %q: want its name as shared_preload_libraries has it, such as timescaledb", shorten(s))
	}
	return nil
}

func checkUser(s string) error {
	if !userPattern.MatchString(s) || s == "root" {
		return fmt.Errorf("user %q: want the name of a user of this host other than root, as whom PostgreSQL refuses to run", shorten(s))
	}
	return nil
}
