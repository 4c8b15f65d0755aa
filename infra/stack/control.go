package stack

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsevents"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssqs"
	"github.com/aws/jsii-runtime-go"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/infra/rights"
	"github.com/btcdecoded/holdfast/infra/settings"
)

// The rules of this stack, by name.
const (
	ruleManifests = "holdfast-new-manifest"
	ruleReports   = "holdfast-agent-report"
	ruleRestores  = "holdfast-restore-report"
)

// control fills the stack of what works, and returns the functions that it made.
func (b *builder) control(st awscdk.Stack) []settings.Function {
	functions := settings.Functions(b.s.Second)
	var bus awsevents.CfnEventBus
	if !b.s.Second {
		bus = awsevents.NewCfnEventBus(st, jsii.String("Bus"), &awsevents.CfnEventBusProps{
			Name: jsii.String(events.BusName), Description: jsii.String("what agents report, and alerts"),
		})
		b.jobsDeadLetters(st)
	}
	scheduler := b.schedulerRole(st, functions)
	made := map[string]awslambda.CfnFunction{}
	for _, f := range functions {
		made[f.Verb] = b.function(st, f, scheduler)
	}
	if !b.s.Second {
		b.rules(st, bus, made[settings.Restore])
	}
	return functions
}

// jobsDeadLetters takes what no agent could read, from the queue of every host.
func (b *builder) jobsDeadLetters(st awscdk.Stack) {
	b.deadLetters(st, "JobsDeadLetters", events.DeadLetterName)
}

// rules bring what happens to the functions' queues, and what is about restores to their function.
func (b *builder) rules(st awscdk.Stack, bus awsevents.CfnEventBus, fn awslambda.CfnFunction) {
	s := b.s
	queue := func(verb string) string { return s.ARN("sqs", settings.QueuePrefix+verb) }
	dead := s.ARN("sqs", settings.QueuePrefix+"rules-dlq")
	rules := b.deadLetters(st, "RulesDeadLetters", settings.QueuePrefix+"rules-dlq", ruleManifests, ruleReports, ruleRestores)
	at := func(verb, arn string) *awsevents.CfnRule_TargetProperty {
		return &awsevents.CfnRule_TargetProperty{
			Id: jsii.String(verb), Arn: jsii.String(arn),
			DeadLetterConfig: &awsevents.CfnRule_DeadLetterConfigProperty{Arn: jsii.String(dead)},
			RetryPolicy:      &awsevents.CfnRule_RetryPolicyProperty{MaximumEventAgeInSeconds: jsii.Number(24 * 3600), MaximumRetryAttempts: jsii.Number(185)},
		}
	}
	target := func(verb string) *awsevents.CfnRule_TargetProperty { return at(verb, queue(verb)) }
	manifests := awsevents.NewCfnRule(st, jsii.String("NewManifest"), &awsevents.CfnRuleProps{
		Name: jsii.String(ruleManifests), Description: jsii.String("each new snapshot is checked when its manifest arrives"),
		EventPattern: map[string]any{
			"source": []any{"aws.s3"}, "detail-type": []any{"Object Created"},
			"detail": map[string]any{
				"bucket": map[string]any{"name": []any{s.Bucket}},
				"object": map[string]any{"key": []any{map[string]any{"wildcard": "v1/*/snapshots/*.json"}}},
			},
		},
		Targets: []any{target(settings.Verify)},
	})
	agents := []any{map[string]any{"prefix": events.SourceAgent}}
	reports := awsevents.NewCfnRule(st, jsii.String("AgentReport"), &awsevents.CfnRuleProps{
		Name: jsii.String(ruleReports), EventBusName: jsii.String(events.BusName),
		Description:  jsii.String("what agents say about their jobs, and that they live"),
		EventPattern: map[string]any{"source": agents},
		Targets:      []any{target(settings.Coordinate)},
	})
	restores := awsevents.NewCfnRule(st, jsii.String("RestoreReport"), &awsevents.CfnRuleProps{
		Name: jsii.String(ruleRestores), EventBusName: jsii.String(events.BusName),
		Description:  jsii.String("what agents say about restores"),
		EventPattern: map[string]any{"source": agents, "detail": map[string]any{"kind": []any{string(events.Restore)}}},
		Targets:      []any{at(settings.Restore, *fn.AttrArn())},
	})
	awslambda.NewCfnPermission(st, jsii.String("RestoreReportPermission"), &awslambda.CfnPermissionProps{
		Action: jsii.String("lambda:InvokeFunction"), FunctionName: fn.Ref(), Principal: jsii.String("events.amazonaws.com"),
		SourceArn: jsii.String(b.ruleARN(ruleRestores)),
	})
	// The bus is named, not referred to: CloudFormation has to be told.
	reports.AddResourceDependency(bus, nil)
	restores.AddResourceDependency(bus, nil)
	for _, r := range []awsevents.CfnRule{manifests, reports, restores} {
		r.AddResourceDependency(rules, nil)
	}
}

// ruleARN is the ARN of a rule, which has that of its bus in it unless it is the default one.
func (b *builder) ruleARN(name string) string {
	if name != ruleManifests {
		return b.s.ARN("events", "rule/"+events.BusName+"/"+name)
	}
	return b.s.ARN("events", "rule/"+name)
}

// deadLetters makes a queue for what failed; rules may send to it.
func (b *builder) deadLetters(st awscdk.Stack, id, name string, rules ...string) awssqs.CfnQueue {
	q := awssqs.NewCfnQueue(st, jsii.String(id), &awssqs.CfnQueueProps{
		QueueName: jsii.String(name), MessageRetentionPeriod: jsii.Number(14 * 24 * 3600), SqsManagedSseEnabled: jsii.Bool(true),
	})
	suppress(q, "AwsSolutions-SQS3", "this is a dead-letter queue")
	b.guardQueue(st, id+"Policy", q, name, rules...)
	return q
}

func (b *builder) guardQueue(st awscdk.Stack, id string, q awssqs.CfnQueue, name string, rules ...string) {
	arns := make([]string, 0, len(rules))
	for _, r := range rules {
		arns = append(arns, b.ruleARN(r))
	}
	awssqs.NewCfnQueuePolicy(st, jsii.String(id), &awssqs.CfnQueuePolicyProps{
		Queues: &[]*string{q.Ref()}, PolicyDocument: b.document(rights.Queue(b.s.ARN("sqs", name), arns...)),
	})
}
