// Package stack has the CDK stacks. Use [Deployment], which adds to an app what the settings ask for:
//
//	holdfast-storage   what must outlive everything: buckets, key, the agents' roles. Kept when it is destroyed
//	holdfast-control   bus, queues, schedules, rules and functions
//	holdfast-observe   topic, alarms, dashboard
//
// and the same three with holdfast-replica- in the second region, where there is one. All names are fixed and all ARNs
// are made of them, so that no stack exports anything to another and each can be deployed, destroyed and deployed again
// by itself. Policies come from package rights, everything else that can be decided without the CDK from package
// settings.
package stack

import (
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
	"github.com/cdklabs/cdk-nag-go/cdknag/v2"

	"github.com/btcdecoded/holdfast/infra/rights"
	"github.com/btcdecoded/holdfast/infra/settings"
)

// Deployment adds the stacks to the app, with the checks of cdk-nag over them.
func Deployment(app awscdk.App, s *settings.Settings) error {
	b := &builder{app: app, s: s}
	var replica awscdk.Stack
	if s.Replica != nil {
		second := &builder{app: app, s: s.In(s.Replica), first: s}
		replica = second.region()
		b.errs = append(b.errs, second.errs...)
	}
	storage := b.region()
	if replica != nil {
		// S3 refuses to replicate into a bucket that is not there.
		storage.AddStackDependency(replica, jsii.String("the bucket must be there before the first replicates into it"))
	}
	awscdk.Aspects_Of(app).Add(cdknag.NewAwsSolutionsChecks(&cdknag.NagPackProps{Verbose: jsii.Bool(true)}), nil)
	awscdk.Tags_Of(app).Add(jsii.String("application"), jsii.String("holdfast"), nil)
	return errors.Join(b.errs...)
}

// builder makes the stacks of one region.
type builder struct {
	app   awscdk.App
	s     *settings.Settings
	first *settings.Settings // of the first region; nil: this is it
	errs  []error
}

// region adds the region's stacks and returns that of the storage.
func (b *builder) region() awscdk.Stack {
	storage := b.stack("storage", "buckets, key and roles of agents; kept when it is destroyed", true)
	b.storage(storage)
	control := b.stack("control", "bus, queues, schedules, rules and functions", false)
	functions := b.control(control)
	observe := b.stack("observe", "topic, alarms and dashboard", false)
	b.observe(observe, functions)
	control.AddStackDependency(storage, nil)
	observe.AddStackDependency(control, nil)
	return storage
}

func (b *builder) stack(name, description string, protect bool) awscdk.Stack {
	id := "holdfast-" + name
	if b.s.Second {
		id = "holdfast-replica-" + name
	}
	return awscdk.NewStack(b.app, jsii.String(id), &awscdk.StackProps{
		Description:           jsii.String("Holdfast: " + description),
		Env:                   &awscdk.Environment{Account: jsii.String(b.s.Account), Region: jsii.String(b.s.Region)},
		TerminationProtection: jsii.Bool(protect),
		AnalyticsReporting:    jsii.Bool(false),
	})
}

// document turns a policy into what the CDK takes.
func (b *builder) document(d rights.Document) map[string]any {
	out, err := d.JSON()
	if err != nil {
		b.errs = append(b.errs, fmt.Errorf("write policy: %w", err))
	}
	return out
}

// retained is a resource that stays when its stack goes or its definition changes.
type retained interface {
	ApplyRemovalPolicy(policy awscdk.RemovalPolicy, options *awscdk.RemovalPolicyOptions)
}

func keep(resources ...retained) {
	for _, r := range resources {
		r.ApplyRemovalPolicy(awscdk.RemovalPolicy_RETAIN, nil)
	}
}

func texts(list ...string) *[]*string {
	out := make([]*string, 0, len(list))
	for _, s := range list {
		out = append(out, jsii.String(s))
	}
	return &out
}

// suppress takes one rule of cdk-nag back for one resource. about is the finding that is meant; empty where the rule has
// only one.
func suppress(c constructs.IConstruct, rule, reason string, about ...string) {
	s := &cdknag.NagPackSuppression{Id: jsii.String(rule), Reason: jsii.String(reason)}
	if len(about) > 0 {
		list := make([]any, 0, len(about))
		for _, a := range about {
			list = append(list, a)
		}
		s.AppliesTo = &list
	}
	cdknag.NagSuppressions_AddResourceSuppressions(c, &[]*cdknag.NagPackSuppression{s}, nil)
}

// patterns takes back, for one resource, each finding about a wildcard that package rights has a reason for. One that
// it has none for stays an error.
func patterns(c constructs.IConstruct, documents ...rights.Document) {
	for _, d := range documents {
		for _, resource := range d.Wildcards() {
			if reason, ok := rights.WildcardReason(resource); ok {
				// cdk-nag spells policy variables like references to resources.
				suppress(c, "AwsSolutions-IAM5", reason, "Resource::"+strings.NewReplacer("${", "<", "}", ">").Replace(resource))
			}
		}
	}
}
