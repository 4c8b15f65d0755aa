// Package granted puts the rights of a function's role around the stores that a test gives to the function: what the
// deployed role may not do fails here as it would in the cloud, and fails the test. So a function's own tests also show
// that its role is not too narrow; that it is not too wide is for test/iam.
//
// Use [Of], then [Role.Store] and [Role.State].
package granted

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/btcdecoded/holdfast/infra/rights"
	"github.com/btcdecoded/holdfast/infra/settings"
	"github.com/btcdecoded/holdfast/test/iam"
)

const account = "123456789012"

// Role is the role of one function.
type Role struct {
	t        testing.TB
	here     *settings.Settings
	first    *settings.Settings // of the first region; nil: here is it
	identity iam.Principal

	mu   sync.Mutex
	told map[string]bool // what was denied; guarded by mu
	may  map[string]bool // what was allowed; likewise
}

// Of is the role of the function with this verb; second is that of the replica's region.
func Of(t testing.TB, verb string, second bool) *Role {
	t.Helper()
	s := &settings.Settings{
		Partition: "aws", Account: account, Region: "eu-central-1", Bucket: "backups", Address: "s3://backups?region=eu-central-1",
		Replica: &settings.Replica{Account: account, Region: "eu-west-1", Bucket: "backups-replica", Address: "s3://backups-replica?region=eu-west-1"},
	}
	r := &Role{t: t, here: s, told: map[string]bool{}, may: map[string]bool{}}
	document := rights.Function(s, verb)
	if second {
		r.here, r.first = s.In(s.Replica), s
		document = append(rights.Function(r.here, verb), rights.First(s, verb)...)
	}
	raw, err := document.JSON()
	if err != nil {
		t.Fatal(err)
	}
	p, err := iam.Parse(verb, raw)
	if err != nil {
		t.Fatal(err)
	}
	r.identity = iam.Principal{ARN: r.here.FunctionRole(verb), Policies: []*iam.Policy{p}}
	return r
}

// allowed reports whether the role may do something; what it may not fails the test.
func (r *Role) allowed(ctx context.Context, action, bucket, key string, conditions map[string][]string) bool {
	if ctx.Err() != nil {
		return true // nothing is asked any more
	}
	arn := r.here.BucketARN(bucket)
	if key != "" {
		arn += "/" + key
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	request := fmt.Sprint(action, " ", arn, " ", conditions)
	if r.may[request] {
		return true
	}
	a := &iam.Account{ID: account}
	got, err := a.Decide(iam.Request{Principal: r.identity, Action: action, Resource: arn, Context: conditions})
	if err == nil && got.Allowed {
		r.may[request] = true
		return true
	}
	if what := fmt.Sprintf("%s may not %s %s", r.identity.ARN, action, arn); !r.told[what] {
		r.told[what] = true
		r.t.Errorf("%s: %s, %v", what, got.Reason, err)
	}
	return false
}
