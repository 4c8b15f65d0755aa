// Package settings says what is deployed: accounts, regions, names and choices, read from the policy file and the CDK
// context. Use [Load]. The package does no I/O and knows no CDK, so that everything else in infra can be tested with
// plain values.
//
// The policy file is the one that the agents read: its primary repository is the bucket that is made, its first copy in
// another region's bucket the replica. What a policy does not say stands in the context (`-c name=value` or cdk.json);
// [Keys] lists the names.
package settings

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/mail"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/shared/objstore/address"
	"github.com/btcdecoded/holdfast/shared/policy"
)

// The architectures of functions.
const (
	ARM64 = "arm64"
	X8664 = "x86_64"
)

// The modes of Object Lock.
const (
	Governance = "GOVERNANCE"
	Compliance = "COMPLIANCE"
)

// Defaults.
const (
	DefaultLockDays = 14
	// MaxRemainingDays is the longest that any retention may still run when it is set; lifecycle extends in steps of 30
	// days, so that more is a mistake or an attack that makes bytes undeletable.
	MaxRemainingDays = 120
)

// The class of chains that moved, and the tag by which the bucket's rule knows them; the tag is that of package tier.
// Colder classes would need a thaw before every restore and every verification.
const (
	ColdClass = "GLACIER_IR"
	ColdTag   = "holdfast-class"
	ColdValue = "cold"
	// LeastColdDays is the shortest age: cold classes charge for months whatever is in them.
	LeastColdDays = 30
)

// Settings is what is deployed.
type Settings struct {
	Partition    string
	Account      string
	Region       string
	Architecture string
	Assets       string // directory with a subdirectory for each function's binary
	LockMode     string
	LockDays     int
	ColdAfter    int      // days after which a proven, closed chain moves to [ColdClass]; 0: never
	Emails       []string // subscribed to the topic of alerts
	TrustAnchor  string   // ARN of IAM Roles Anywhere's trust anchor; empty: no role for hosts outside AWS
	BreakGlass   string   // ARN of the role that may disable the key and delete locked objects; empty: nobody
	Ping         string   // SSM parameter with the URL of a dead man's switch outside AWS; empty: none
	Runbook      string   // where docs/runbook.md can be read
	Key          string   // ARN of a key that an earlier deployment left; empty: one is made
	Bucket       string   // of the repository
	Address      string   // of the repository, as the policy writes it
	Replica      *Replica // nil: none
	Policy       *policy.Policy
	Second       bool // these are the settings of the replica's region
}

// Replica is the second region.
type Replica struct {
	Account string
	Region  string
	Bucket  string
	Address string // as the policy writes it
	Key     string // ARN of a key that an earlier deployment left; empty: one is made
}

// Keys returns the names of the context, with what each is for.
func Keys() map[string]string {
	return map[string]string{
		"policy":             "path of the policy file (needed)",
		"account":            "the account; default: that of the credentials",
		"partition":          "aws, aws-cn or aws-us-gov; default: aws",
		"architecture":       "arm64 (default) or x86_64",
		"assets":             "directory of the functions' binaries; default: bin/functions",
		"lock":               "GOVERNANCE (default) or COMPLIANCE",
		"lock-days":          "default retention of the bucket in days; default: 14",
		"confirm-compliance": "with lock=COMPLIANCE: the sentence that the error asks for",
		"cold-after":         "age in days at which proven, closed chains move to S3 Glacier Instant Retrieval; default: never",
		"email":              "addresses that get the alerts, with commas between",
		"trust-anchor":       "ARN of a trust anchor of IAM Roles Anywhere, for hosts outside AWS",
		"break-glass":        "ARN of the role that may disable the key; default: nobody",
		"ping":               "name of an SSM parameter with a URL that is fetched after each pass of monitor",
		"runbook":            "where messages send people: the address of docs/runbook.md",
		"key":                "ARN of a key that an earlier deployment left in the first region",
		"replica-key":        "the same in the replica's region",
		"replica-account":    "account of the replica; default: the same",
	}
}

var (
	accountPattern = regexp.MustCompile(`^[0-9]{12}$`)
	regionPattern  = regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-[0-9]$`)
	rolePattern    = regexp.MustCompile(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]+$`)
	keyPattern     = regexp.MustCompile(`^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$`)
	anchorPattern  = regexp.MustCompile(`^arn:aws[a-z-]*:rolesanywhere:[a-z0-9-]+:[0-9]{12}:trust-anchor/[a-z0-9-]+$`)
)

// Load makes settings of a policy and the context. All that is wrong is in one error.
func Load(p *policy.Policy, context func(key string) string) (*Settings, error) {
	s := &Settings{
		Policy:       p,
		Partition:    or(context("partition"), "aws"),
		Account:      context("account"),
		Architecture: or(context("architecture"), ARM64),
		Assets:       or(context("assets"), "bin/functions"),
		LockMode:     or(context("lock"), Governance),
		LockDays:     DefaultLockDays,
		TrustAnchor:  context("trust-anchor"),
		BreakGlass:   context("break-glass"),
		Ping:         context("ping"),
		Runbook:      or(context("runbook"), "docs/runbook.md"),
		Key:          context("key"),
	}
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !accountPattern.MatchString(s.Account) {
		fail("account %q: want twelve digits (-c account=…, or credentials of the account)", s.Account)
	}
	if s.Architecture != ARM64 && s.Architecture != X8664 {
		fail("architecture %q: want %s or %s", s.Architecture, ARM64, X8664)
	}
	if text := context("lock-days"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > MaxRemainingDays {
			fail("lock-days %q: want 1 to %d", text, MaxRemainingDays)
		}
		s.LockDays = n
	}
	if text := context("cold-after"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < LeastColdDays {
			fail("cold-after %q: want days, at least %d", text, LeastColdDays)
		}
		s.ColdAfter = n
	}
	for what, arn := range map[string]struct {
		text    string
		pattern *regexp.Regexp
	}{
		"trust-anchor": {s.TrustAnchor, anchorPattern}, "break-glass": {s.BreakGlass, rolePattern},
		"key": {s.Key, keyPattern}, "replica-key": {context("replica-key"), keyPattern},
	} {
		if arn.text != "" && !arn.pattern.MatchString(arn.text) {
			fail("%s %q: not the ARN that is wanted", what, arn.text)
		}
	}
	if err := s.emails(context("email")); err != nil {
		errs = append(errs, err)
	}
	for _, host := range slices.Sorted(maps.Keys(p.Hosts)) {
		// Otherwise it shows when the host's queue can't be made, and no job ever reaches it.
		if _, err := events.QueueName(host); err != nil {
			errs = append(errs, fmt.Errorf("policy: %w", err))
		}
	}
	if err := s.places(p, context); err != nil {
		errs = append(errs, err)
	} else if err := s.confirm(context("confirm-compliance")); err != nil {
		errs = append(errs, err)
	}
	return s, errors.Join(errs...)
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (s *Settings) emails(text string) error {
	for _, a := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		parsed, err := mail.ParseAddress(a)
		if err != nil || parsed.Address != a {
			return fmt.Errorf("email %q: not an address", a)
		}
		s.Emails = append(s.Emails, a)
	}
	slices.Sort(s.Emails)
	s.Emails = slices.Compact(s.Emails)
	return nil
}

// places takes the buckets and regions from the policy's addresses.
func (s *Settings) places(p *policy.Policy, context func(string) string) error {
	primary, err := place(p.Repository.Primary)
	if err != nil {
		return fmt.Errorf("primary repository of the policy: %w", err)
	}
	if primary == nil {
		return errors.New("primary repository of the policy: the control plane works on a bucket: write s3://bucket?region=…")
	}
	s.Bucket, s.Region, s.Address = primary.Bucket, primary.Region, p.Repository.Primary
	for i, c := range p.Repository.Copies {
		at, err := place(c)
		if err != nil {
			return fmt.Errorf("copy %d of the policy: %w", i+1, err)
		}
		if at == nil || s.Replica != nil {
			continue
		}
		if at.Region == s.Region {
			return fmt.Errorf("copy %d of the policy: the bucket is in %s like the primary: name another region", i+1, at.Region)
		}
		s.Replica = &Replica{
			Account: or(context("replica-account"), s.Account), Region: at.Region, Bucket: at.Bucket, Address: c,
			Key: context("replica-key"),
		}
		if !accountPattern.MatchString(s.Replica.Account) {
			return fmt.Errorf("replica-account %q: want twelve digits", s.Replica.Account)
		}
	}
	return nil
}

// Regions are those of the policy's deployment: that of the primary repository and, where there is one, the replica's.
func Regions(p *policy.Policy) ([]string, error) {
	s := &Settings{Account: "000000000000"} // no region depends on it
	if err := s.places(p, func(string) string { return "" }); err != nil {
		return nil, err
	}
	out := []string{s.Region}
	if s.Replica != nil {
		out = append(out, s.Replica.Region)
	}
	return out, nil
}

// place is the bucket that an address names; nil if it names none of S3.
func place(text string) (*address.S3, error) {
	if text == "" {
		return nil, nil
	}
	l, err := address.Parse(text)
	switch {
	case err != nil:
		return nil, err
	case l.Scheme != "s3":
		return nil, nil
	case l.S3.Prefix != "":
		return nil, fmt.Errorf("bucket %s: the control plane wants a bucket of its own: leave out the prefix %s", l.S3.Bucket, l.S3.Prefix)
	case !regionPattern.MatchString(l.S3.Region):
		return nil, fmt.Errorf("bucket %s: no region in the address: add ?region=…", l.S3.Bucket)
	}
	return &l.S3, nil
}

// Confirmation is the sentence that must be typed before retention becomes one that nobody can shorten.
func (s *Settings) Confirmation() string {
	return fmt.Sprintf("nobody can delete from %s for %d days", s.Bucket, s.LockDays)
}

func (s *Settings) confirm(typed string) error {
	switch s.LockMode {
	case Governance:
		return nil
	case Compliance:
		if typed == s.Confirmation() {
			return nil
		}
		return fmt.Errorf("lock=%s: until it runs out not even the account's root user can delete an object or shorten its retention; "+
			"if that is meant, add -c confirm-compliance=%q", Compliance, s.Confirmation())
	}
	return fmt.Errorf("lock %q: want %s or %s", s.LockMode, Governance, Compliance)
}

// Reread is how the function verify of this region is told to read all bytes again: what the policy's limits.reread says of
// the repository, or of its replica.
func (s *Settings) Reread() environment.Verify {
	l := s.Policy.Limits.Reread
	if s.Second {
		return environment.Verify{
			Copy: s.Address, Period: cmp.Or(l.ReplicaPeriod, policy.DefaultReplicaReread).Std(), Bytes: int(l.ReplicaBytes),
		}
	}
	return environment.Verify{Period: cmp.Or(l.Period, policy.DefaultReread).Std(), Bytes: int(l.Bytes)}
}

// RereadDays is the period, in days, in which the bytes of this region are read again.
func (s *Settings) RereadDays() int { return int(math.Ceil(s.Reread().Period.Hours() / 24)) }

// VerifyDays is the longest period, in days, in which the policy wants something verified again.
func (s *Settings) VerifyDays() int {
	longest := policy.DefaultVerify.Std()
	s.Policy.Each(func(_, _ string, src *policy.Source) { longest = max(longest, src.Objectives.Verify.Std()) })
	days := int(longest.Hours()/24) + 1
	return days
}

// ownSources are the sources whose policy says metrics: true, critical ones first, so that a limit cuts the others.
func ownSources(p *policy.Policy) []string {
	var critical, others []string
	p.Each(func(host, name string, src *policy.Source) {
		switch {
		case !src.Metrics:
		case src.Objectives.Tier == policy.Critical:
			critical = append(critical, host+"/"+name)
		default:
			others = append(others, host+"/"+name)
		}
	})
	return append(critical, others...)
}
