package policy

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxRecipient limits a recipient; post-quantum ones have some 2,000 characters.
const maxRecipient = 4096

// minContinuous is the shortest interval at which a log is flushed.
const minContinuous = 10 * time.Millisecond

const (
	// minVerification is the shortest time between two verifications of a source by its agent.
	minVerification = Duration(time.Hour)
	// minReread is the shortest period in which the control plane reads everything again.
	minReread = Duration(24 * time.Hour)
)

// maxJitter is the longest delay that a source may be given.
const maxJitter = Duration(time.Hour)

var (
	errAddress = errors.New(`want s3://bucket?region=…, gs://bucket, file:///path or an absolute path`)
	errSecret  = errors.New(`a policy holds no secrets; credentials come from the environment or the machine's role`)
)

// checkAddress checks the address of a repository. Its error never repeats the address, which may hold a secret.
func checkAddress(s string) error {
	if strings.HasPrefix(s, "/") {
		return checkPath(s)
	}
	u, err := url.Parse(s)
	if err != nil {
		return fmt.Errorf("address: %w", errAddress)
	}
	if u.User != nil {
		return fmt.Errorf("address with user information: %w", errSecret)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return fmt.Errorf("address: settings after '?' can't be read: %w", errAddress)
	}
	for _, name := range sortedKeys(query) {
		if secretName(name) {
			return fmt.Errorf("address with %q: %w", name, errSecret)
		}
	}
	switch u.Scheme {
	case "s3", "gs":
		if u.Host == "" {
			return fmt.Errorf("address: no bucket: %w", errAddress)
		}
	case "file":
		if u.Host != "" || !strings.HasPrefix(u.Path, "/") {
			return fmt.Errorf("address: want file:///path with three slashes: %w", errAddress)
		}
		return checkPath(u.Path)
	default:
		return fmt.Errorf("address: %w", errAddress)
	}
	if u.Fragment != "" {
		return fmt.Errorf("address: has a fragment (#…): %w", errAddress)
	}
	return nil
}

// secretName tells names of settings that carry credentials.
func secretName(name string) bool {
	folded := strings.NewReplacer("-", "", "_", "", ".", "").Replace(strings.ToLower(name))
	for _, word := range []string{"secret", "password", "passwd", "passphrase", "token", "accesskey", "credential", "signature", "privatekey"} {
		if strings.Contains(folded, word) {
			return true
		}
	}
	return false
}

var (
	agePattern = regexp.MustCompile(`^age1[0-9a-z]{10,}$`)
	kmsPattern = regexp.MustCompile(`^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/[A-Za-z0-9/_-]+$`)
)

func checkRecipient(s string) error {
	switch {
	case strings.HasPrefix(strings.ToUpper(s), "AGE-SECRET-KEY-"), strings.HasPrefix(strings.ToUpper(s), "HOLDFAST-SIGNER-"):
		return fmt.Errorf("recipient is a secret key: %w; take the recipient (age1…) that belongs to it", errSecret)
	case len(s) <= maxRecipient && (agePattern.MatchString(s) || kmsPattern.MatchString(s)):
		return nil
	}
	return fmt.Errorf("recipient %q: want age1… or arn:aws:kms:…", shorten(s))
}

func checkPath(s string) error {
	switch {
	case !strings.HasPrefix(s, "/"):
		return fmt.Errorf("path %q: want an absolute path", shorten(s))
	case path.Clean(s) != s:
		return fmt.Errorf("path %q: write it as %q", shorten(s), shorten(path.Clean(s)))
	}
	return nil
}

func checkPattern(s string) error {
	switch {
	case strings.TrimSpace(s) == "" || s == "!":
		return errors.New("pattern is empty")
	case strings.ContainsAny(s, "\n\r"):
		return errors.New("pattern has a line break; write one pattern per element")
	case strings.HasPrefix(s, "#"):
		return fmt.Errorf("pattern %q: begins with '#'; write \\# for a name that does", shorten(s))
	}
	return nil
}

// checkInclude checks a pattern that takes back what others leave out, which is what '!' in front would do.
func checkInclude(s string) error {
	if strings.HasPrefix(s, "!") {
		return fmt.Errorf("pattern %q: begins with '!', which include says already", shorten(s))
	}
	return checkPattern(s)
}

var (
	servicePattern   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	referencePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}$`)
	tagPattern       = regexp.MustCompile(`^[^\s,]{1,128}$`)
	expectPattern    = regexp.MustCompile(`^(==?|!=|<|<=|>|>=)?\s*[^\s=!<>].*$`)
)

func checkService(s string) error {
	if !servicePattern.MatchString(s) {
		return errors.New("service: want the name of an entry in pg_service.conf (address, user and password stand there)")
	}
	return nil
}

func checkReference(s string) error {
	if !referencePattern.MatchString(s) {
		return fmt.Errorf("name %q: not the name of an image, volume or container", shorten(s))
	}
	return nil
}

func checkTag(s string) error {
	if !tagPattern.MatchString(s) {
		return fmt.Errorf("tag %q: want 1 to 128 characters without spaces and commas", shorten(s))
	}
	return nil
}

func checkExpect(s string) error {
	if !expectPattern.MatchString(s) {
		return fmt.Errorf("expectation %q: want a value, or an operator (=, !=, <, <=, >, >=) and a value", shorten(s))
	}
	return nil
}

func checkZone(s string) error {
	if s == "" {
		return errors.New("time zone is empty; leave the key out for UTC")
	}
	_, err := loadZone(s)
	return err
}

func notEmpty(what string) func(string) error {
	return func(s string) error {
		if strings.TrimSpace(s) == "" {
			return fmt.Errorf("%s is empty", what)
		}
		return nil
	}
}

func oneOf(what string, values ...string) func(string) error {
	return func(s string) error {
		if slices.Contains(values, s) {
			return nil
		}
		return fmt.Errorf("%s %q: want %s%s", what, shorten(s), strings.Join(values, ", "), didYouMean(nearest(s, values)))
	}
}

// check looks at what single values do not show. It passes over the parts in which errors were found already, so that
// one mistake is reported once.
func (d *decoder) check(p *Policy) {
	switch {
	case d.wrong("version"):
	case p.Version == 0 && d.wrong(""):
	case p.Version == 0:
		d.fail(nil, "begin the file with “version: 1”", "the version is missing")
	case p.Version != Version:
		d.failAt("version", "this is version 1; a newer holdfast may be needed", "version %d is not known", p.Version)
	}
	if len(p.Hosts) == 0 && !d.wrong("hosts") && !d.wrong("") {
		d.fail(d.positions["hosts"], "", "the policy has no hosts")
	}
	if !d.wrong("repository") {
		if p.Repository.Primary == "" && len(p.Repository.Copies) > 0 {
			d.failAt("repository.copies", "", "copies without a primary repository")
		}
		if i := slices.Index(p.Repository.Copies, p.Repository.Primary); i >= 0 {
			d.failAt("repository.copies."+strconv.Itoa(i), "", "a copy is the primary repository itself")
		}
	}
	d.checkApprovers(p.Approvers)
	for _, host := range sortedKeys(p.Hosts) {
		if at := "hosts." + host; len(p.Hosts[host].Sources) == 0 && !d.wrong(at) {
			d.failAt(at, "", "host %q has no sources", host)
		}
	}
	p.Each(func(host, name string, s *Source) {
		if at := "hosts." + host + ".sources." + name; !d.wrong(at) {
			d.checkSource(at, s)
		}
	})
}

// wrong reports whether an error was found at the path or below it; "" is the file's top level alone.
func (d *decoder) wrong(path string) bool {
	return slices.ContainsFunc(d.errs, func(e *Error) bool {
		return e.Path == path || (path != "" && strings.HasPrefix(e.Path, path+"."))
	})
}

func (d *decoder) checkSource(at string, s *Source) {
	kinds := 0
	for _, set := range []bool{s.Files != nil, s.SQLite != nil, s.Postgres != nil, s.Docker != nil} {
		if set {
			kinds++
		}
	}
	switch {
	case kinds == 0:
		d.failAt(at, "", "say what is backed up: one of files, sqlite, postgres, docker")
		return
	case kinds > 1:
		d.failAt(at, "make a source of each", "a source has exactly one of files, sqlite, postgres, docker")
		return
	}
	if what := s.missing(); what != "" {
		d.failAt(at+"."+s.Kind(), "", "%s is missing", what)
	}
	if s.SQLite != nil {
		d.checkSQLite(at, s.SQLite)
	}
	if s.Postgres != nil {
		d.checkPostgres(at, s.Postgres)
	}
	if s.Schedule.Continuous > 0 && !s.hasLog() {
		d.failAt(at+".schedule.continuous", "files have “watch: true” instead", "only sqlite and physical postgres have a log")
	}
	if s.Schedule.Jitter != nil && *s.Schedule.Jitter > maxJitter {
		d.failAt(at+".schedule.jitter", "", "more than %s", maxJitter)
	}
	// A week without a free minute is one every week: that of the reference holds no change of clocks.
	if _, ok := s.Schedule.Open(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)); !ok {
		d.failAt(at+".schedule.blackout", "", "the windows leave no time in which a backup may begin")
	}
	d.checkProofs(at, s)
	s.Hooks.each(func(key string, hooks []Hook) { d.checkHooks(at+".hooks."+key, hooks) })
	if s.SQLite == nil && s.Postgres == nil && len(s.Hooks.Stop)+len(s.Hooks.Start)+len(s.Hooks.Health) > 0 {
		d.failAt(at+".hooks", "before and after run around a backup", "stop, start and health are for restores in place of a sqlite or postgres source")
	}
}

// checkProofs checks what is asked of restores for proof.
func (d *decoder) checkProofs(at string, s *Source) {
	if s.Verification.Restore > 0 && s.Docker != nil {
		d.failAt(at+".verification.restore", "", "sources of kind docker can't be restored by this version")
	}
	if len(s.Checks) > 0 && s.SQLite == nil && s.Postgres == nil {
		d.failAt(at+".checks", "", "only sqlite and postgres answer queries")
	}
	for i, c := range s.Checks {
		if c.Query == "" || c.Expect == "" {
			d.failAt(fmt.Sprintf("%s.checks.%d", at, i), "", "a check has a query and an expect")
		}
		if c.Database != "" && s.Postgres == nil {
			d.failAt(fmt.Sprintf("%s.checks.%d.database", at, i), "", "only postgres has several databases")
		}
	}
}

// missing names the first required key of the source's kind that is not given.
func (s *Source) missing() string {
	switch {
	case s.Files != nil && len(s.Files.Roots) == 0:
		return "roots"
	case s.SQLite != nil && s.SQLite.Path == "" && s.SQLite.Glob == "":
		return "path"
	case s.Postgres != nil && s.Postgres.Service == "":
		return "service"
	case s.Postgres != nil && s.Postgres.Mode == "":
		return "mode"
	case s.Docker != nil && len(s.Docker.Images)+len(s.Docker.Volumes)+len(s.Docker.Containers) == 0:
		return "one of images, volumes and containers"
	}
	return ""
}

// hasLog reports whether the source can be captured continuously.
func (s *Source) hasLog() bool {
	return s.SQLite != nil || (s.Postgres != nil && s.Postgres.Mode == Physical)
}

func (d *decoder) checkHooks(at string, hooks []Hook) {
	for i, h := range hooks {
		if len(h.Command) == 0 || strings.TrimSpace(h.Command[0]) == "" {
			d.failAt(at+"."+strconv.Itoa(i), "", "a hook has a command")
		}
	}
}

func (p *Policy) fillDefaults() {
	p.Each(func(_, _ string, s *Source) {
		o := &s.Objectives
		if o.Tier == "" {
			o.Tier = DefaultTier
		}
		if o.RPO == 0 {
			o.RPO = DefaultRPO
		}
		if o.Copies == 0 {
			o.Copies = DefaultCopies
		}
		if o.KeyCheck == 0 {
			o.KeyCheck = DefaultKeyCheck
		}
		if o.Verify == 0 {
			o.Verify = DefaultVerify
		}
		s.Hooks.each(func(_ string, hooks []Hook) {
			for i := range hooks {
				if hooks[i].Timeout == 0 {
					hooks[i].Timeout = DefaultHookTimeout
				}
			}
		})
	})
}
