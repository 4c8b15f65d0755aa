package policy

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Limits of a policy file.
const (
	MaxFile = 4 << 20 // bytes
	// Nesting is limited before the file is parsed, because the parser is recursive.
	maxNesting = 32
	maxIndent  = 256
)

// Parse reads a policy file, checks it and fills in the defaults. An error that concerns the file's content is of type
// [Errors] and names everything that is wrong.
func Parse(data []byte) (*Policy, error) {
	root, errs := syntax(data)
	if errs != nil {
		return nil, errs
	}
	d := &decoder{positions: map[string]*token.Token{}}
	p := d.policy(root)
	d.check(p)
	if len(d.errs) > 0 {
		return nil, d.errs.sorted()
	}
	p.fillDefaults()
	p.setApart()
	return p, nil
}

// syntax parses the bytes to the root of their syntax tree.
func syntax(data []byte) (root ast.Node, errs Errors) {
	fail := func(format string, args ...any) (ast.Node, Errors) {
		return nil, Errors{{Text: fmt.Sprintf(format, args...)}}
	}
	switch {
	case len(data) > MaxFile:
		return fail("the file has %d bytes, more than %d", len(data), MaxFile)
	case !utf8.Valid(data):
		return fail("the file is not UTF-8 text")
	}
	// The parser of YAML is foreign code with a history of panics on damaged input; a policy that it can't read is an
	// error of the policy, not of ours.
	defer func() {
		if r := recover(); r != nil {
			root, errs = fail("not YAML: the parser gave up (%v)", r)
		}
	}()
	tokens := lexer.Tokenize(strings.TrimPrefix(string(data), "\ufeff"))
	if err := nesting(tokens); err != nil {
		return nil, Errors{err}
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		e := &Error{Text: err.Error()}
		var syntax yaml.Error
		if errors.As(err, &syntax) {
			e.Text = "not YAML: " + syntax.GetMessage()
			if tok := syntax.GetToken(); tok != nil && tok.Position != nil {
				e.Line, e.Column = tok.Position.Line, tok.Position.Column
			}
		}
		return nil, Errors{e}
	}
	var bodies []ast.Node
	for _, doc := range file.Docs {
		if doc == nil || doc.Body == nil {
			continue
		}
		if _, directive := doc.Body.(*ast.DirectiveNode); !directive {
			bodies = append(bodies, doc.Body)
		}
	}
	switch len(bodies) {
	case 0:
		return fail("the policy is empty")
	case 1:
		return bodies[0], nil
	}
	return fail("want one YAML document, found %d", len(bodies))
}

// nesting refuses what would make the recursive parser deep.
func nesting(tokens token.Tokens) *Error {
	depth := 0
	for _, tok := range tokens {
		switch tok.Type {
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			depth--
		case token.SequenceEntryType, token.MappingKeyType, token.MappingValueType:
			// In block style every level is further to the right.
			if depth <= 0 && tok.Position.Column > maxIndent {
				depth = maxNesting + 1
			}
		case token.AnchorType, token.AliasType, token.TagType, token.MergeKeyType:
			return at(tok, "anchors, aliases, merge keys and tags are not used in policies")
		}
		if depth > maxNesting {
			return at(tok, "nested too deeply")
		}
	}
	return nil
}

func at(tok *token.Token, text string) *Error {
	return &Error{Line: tok.Position.Line, Column: tok.Position.Column, Text: text}
}

func (d *decoder) policy(root ast.Node) *Policy {
	p := &Policy{}
	d.mapping(
		root,
		field{"version", d.count(&p.Version, 1)},
		field{"repository", func(n ast.Node) { d.repository(n, &p.Repository) }},
		field{"approvers", func(n ast.Node) { d.approvers(n, &p.Approvers) }},
		field{"limits", func(n ast.Node) {
			d.mapping(
				n,
				field{"concurrent", d.count(&p.Limits.Concurrent, 1)},
				field{"reread", func(n ast.Node) { d.rereading(n, &p.Limits.Reread) }},
			)
		}},
		field{"hosts", func(n ast.Node) {
			p.Hosts = map[string]*Host{}
			d.each(n, func(name string, tok *token.Token, v ast.Node) {
				if err := (snapshot.Source{Host: name, Name: "x"}).Check(); err != nil {
					d.fail(tok, "", "%v", err)
				}
				h := &Host{}
				p.Hosts[name] = h
				d.host(v, h)
			})
		}},
	)
	return p
}

func (d *decoder) rereading(n ast.Node, r *Rereading) {
	d.mapping(
		n,
		field{"period", d.duration(&r.Period, minReread)},
		field{"bytes", d.size(&r.Bytes)},
		field{"replica_period", d.duration(&r.ReplicaPeriod, minReread)},
		field{"replica_bytes", d.size(&r.ReplicaBytes)},
	)
}

func (d *decoder) repository(n ast.Node, r *Repository) {
	d.mapping(
		n,
		field{"primary", d.str(&r.Primary, checkAddress)},
		field{"copies", d.strs(&r.Copies, checkAddress)},
		field{"recipients", d.strs(&r.Recipients, checkRecipient)},
	)
}

func (d *decoder) host(n ast.Node, h *Host) {
	d.mapping(
		n,
		field{"max_size", d.size(&h.MaxSize)},
		field{"restore", func(n ast.Node) { d.restore(n, &h.Restore) }},
		field{"sources", func(n ast.Node) {
			h.Sources = map[string]*Source{}
			d.each(n, func(name string, tok *token.Token, v ast.Node) {
				if err := (snapshot.Source{Host: "x", Name: name}).Check(); err != nil {
					d.fail(tok, "", "%v", err)
				}
				s := &Source{}
				h.Sources[name] = s
				d.source(v, s)
			})
		}},
	)
}

func (d *decoder) source(n ast.Node, s *Source) {
	var metrics *bool
	d.mapping(
		n,
		field{KindFiles, func(n ast.Node) { s.Files = &Files{}; d.files(n, s.Files) }},
		field{KindSQLite, func(n ast.Node) {
			s.SQLite = &SQLite{}
			d.sqlite(n, s.SQLite)
		}},
		field{KindPostgres, func(n ast.Node) {
			s.Postgres = &Postgres{}
			d.postgres(n, s.Postgres)
		}},
		field{KindDocker, func(n ast.Node) {
			s.Docker = &Docker{}
			d.mapping(
				n,
				field{"images", d.strs(&s.Docker.Images, checkReference)},
				field{"volumes", d.strs(&s.Docker.Volumes, checkReference)},
				field{"containers", d.strs(&s.Docker.Containers, checkReference)},
			)
		}},
		field{"schedule", func(n ast.Node) { d.schedule(n, &s.Schedule) }},
		field{"objectives", func(n ast.Node) { d.objectives(n, &s.Objectives) }},
		field{"retention", func(n ast.Node) { d.retention(n, &s.Retention) }},
		field{"verification", func(n ast.Node) {
			d.mapping(
				n,
				field{"content", d.duration(&s.Verification.Content, minVerification)},
				field{"restore", d.duration(&s.Verification.Restore, minVerification)},
			)
		}},
		field{"checks", func(n ast.Node) { d.checks(n, s) }},
		field{"hooks", func(n ast.Node) {
			d.mapping(
				n,
				field{"before", func(n ast.Node) { d.hooks(n, &s.Hooks.Before) }},
				field{"after", func(n ast.Node) { d.hooks(n, &s.Hooks.After) }},
				field{"stop", func(n ast.Node) { d.hooks(n, &s.Hooks.Stop) }},
				field{"start", func(n ast.Node) { d.hooks(n, &s.Hooks.Start) }},
				field{"health", func(n ast.Node) { d.hooks(n, &s.Hooks.Health) }},
			)
		}},
		field{"metrics", func(n ast.Node) { metrics = new(bool); d.boolean(metrics)(n) }},
	)
	s.Metrics = s.Objectives.Tier == Critical
	if metrics != nil {
		s.Metrics = *metrics
	}
}

func (d *decoder) files(n ast.Node, f *Files) {
	d.mapping(
		n,
		field{"roots", d.strs(&f.Roots, checkPath)},
		field{"include", d.strs(&f.Include, checkInclude)},
		field{"exclude", d.strs(&f.Exclude, checkPattern)},
		field{"one_file_system", d.boolean(&f.OneFileSystem)},
		field{"exclude_caches", d.boolean(&f.ExcludeCaches)},
		field{"max_file_size", d.size(&f.MaxFileSize)},
		field{"watch", d.boolean(&f.Watch)},
	)
}

func (d *decoder) schedule(n ast.Node, s *Schedule) {
	d.mapping(
		n,
		field{"full", d.cron(&s.Full)},
		field{"differential", d.cron(&s.Differential)},
		field{"incremental", d.cron(&s.Incremental)},
		field{"continuous", d.duration(&s.Continuous, Duration(minContinuous))},
		field{"jitter", func(n ast.Node) { s.Jitter = new(Duration); d.duration(s.Jitter, 0)(n) }},
		field{"blackout", d.windows(&s.Blackout)},
	)
}

func (d *decoder) objectives(n ast.Node, o *Objectives) {
	var tier string
	d.mapping(
		n,
		field{"tier", d.str(&tier, oneOf("tier", string(Critical), string(High), string(Standard), string(Low)))},
		field{"rpo", d.duration(&o.RPO, 1)},
		field{"rto", d.duration(&o.RTO, 1)},
		field{"max_size", d.size(&o.MaxSize)},
		field{"copies", d.count(&o.Copies, 1)},
		field{"key_check", d.duration(&o.KeyCheck, 1)},
		field{"verify", d.duration(&o.Verify, 1)},
	)
	o.Tier = Tier(tier)
}

func (d *decoder) retention(n ast.Node, r *Retention) {
	d.mapping(
		n,
		field{"keep_last", d.count(&r.KeepLast, 0)},
		field{"keep_within", d.duration(&r.KeepWithin, 0)},
		field{"hourly", d.count(&r.Hourly, 0)},
		field{"daily", d.count(&r.Daily, 0)},
		field{"weekly", d.count(&r.Weekly, 0)},
		field{"monthly", d.count(&r.Monthly, 0)},
		field{"yearly", d.count(&r.Yearly, 0)},
		field{"keep_tags", d.strs(&r.KeepTags, checkTag)},
		field{"time_zone", d.str(&r.TimeZone, checkZone)},
	)
}

func (d *decoder) checks(n ast.Node, s *Source) {
	d.list(n, func(_ int, v ast.Node) {
		var c Check
		d.mapping(
			v,
			field{"query", d.str(&c.Query, notEmpty("query"))},
			field{"expect", func(n ast.Node) {
				d.parsed(n, true, func(s string) error { return store(&c.Expect, s, checkExpect) })
			}},
			field{"database", d.str(&c.Database, checkDatabase)},
		)
		s.Checks = append(s.Checks, c)
	})
}

func (d *decoder) hooks(n ast.Node, hooks *[]Hook) {
	d.list(n, func(_ int, v ast.Node) {
		h := Hook{}
		d.mapping(
			v,
			field{"command", func(n ast.Node) { d.command(n, &h.Command) }},
			field{"timeout", d.duration(&h.Timeout, 1)},
		)
		*hooks = append(*hooks, h)
	})
}

// command reads a list of words, or a text that a shell interprets.
func (d *decoder) command(n ast.Node, command *[]string) {
	if seq, ok := n.(*ast.SequenceNode); ok {
		d.list(seq, func(_ int, v ast.Node) {
			d.parsed(v, false, func(s string) error { *command = append(*command, s); return nil })
		})
		return
	}
	d.parsed(n, false, func(s string) error {
		if err := notEmpty("command")(s); err != nil {
			return err
		}
		*command = []string{"/bin/sh", "-c", s}
		return nil
	})
}
