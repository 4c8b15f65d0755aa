package stack

import (
	"fmt"
	"path"
	"time"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslogs"
	"github.com/aws/aws-cdk-go/awscdk/v2/awss3assets"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsscheduler"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssqs"
	"github.com/aws/jsii-runtime-go"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/infra/rights"
	"github.com/btcdecoded/holdfast/infra/settings"
)

// receives is how often a message is handed to a function before it counts as poison.
const receives = 5

// function makes a function with all that belongs to it: log, role, dead letters, queue, schedule.
func (b *builder) function(st awscdk.Stack, f settings.Function, scheduler awsiam.CfnRole) awslambda.CfnFunction {
	s := b.s
	name, id := settings.FunctionName(f.Verb), title(f.Verb)
	group := awslogs.NewCfnLogGroup(st, jsii.String(id+"Log"), &awslogs.CfnLogGroupProps{
		LogGroupName: jsii.String("/aws/lambda/" + name), RetentionInDays: jsii.Number(90),
	})
	group.ApplyRemovalPolicy(awscdk.RemovalPolicy_DESTROY, nil)
	dead := settings.QueuePrefix + f.Verb + "-dlq"
	deadLetters := b.deadLetters(st, id+"DeadLetters", dead)
	var queue awssqs.CfnQueue
	var queueARN string
	if f.Queue {
		queue = b.queue(st, f, deadLetters)
		queueARN = s.ARN("sqs", settings.QueuePrefix+f.Verb)
	}
	role := b.functionRole(st, f, rights.Machinery(s.ARN("logs", "log-group:/aws/lambda/"+name), s.ARN("sqs", dead), queueARN))
	asset := awss3assets.NewAsset(st, jsii.String(id+"Code"), &awss3assets.AssetProps{Path: jsii.String(path.Join(s.Assets, f.Program))})
	fn := awslambda.NewCfnFunction(st, jsii.String(id), &awslambda.CfnFunctionProps{
		FunctionName: jsii.String(name), Description: jsii.String(f.Description),
		Runtime: jsii.String("provided.al2023"), Handler: jsii.String("bootstrap"), Architectures: texts(s.Architecture),
		Code:       &awslambda.CfnFunction_CodeProperty{S3Bucket: asset.S3BucketName(), S3Key: asset.S3ObjectKey()},
		MemorySize: jsii.Number(f.Memory), Timeout: jsii.Number(f.Timeout),
		Role:             role.AttrArn(),
		Environment:      &awslambda.CfnFunction_EnvironmentProperty{Variables: b.variables(f)},
		DeadLetterConfig: &awslambda.CfnFunction_DeadLetterConfigProperty{TargetArn: deadLetters.AttrArn()},
	})
	fn.AddResourceDependency(group, nil)
	suppress(fn, "AwsSolutions-L1", "provided.al2023 is the newest runtime for compiled programs")
	awslambda.NewCfnEventInvokeConfig(st, jsii.String(id+"Invoke"), &awslambda.CfnEventInvokeConfigProps{
		FunctionName: fn.Ref(), Qualifier: jsii.String("$LATEST"), MaximumRetryAttempts: jsii.Number(1), MaximumEventAgeInSeconds: jsii.Number(3600),
	})
	if queue != nil {
		awslambda.NewCfnEventSourceMapping(st, jsii.String(id+"Source"), &awslambda.CfnEventSourceMappingProps{
			FunctionName: fn.Ref(), EventSourceArn: queue.AttrArn(), BatchSize: jsii.Number(f.Batch), Enabled: jsii.Bool(true),
			FunctionResponseTypes: texts("ReportBatchItemFailures"),
			ScalingConfig:         &awslambda.CfnEventSourceMapping_ScalingConfigProperty{MaximumConcurrency: jsii.Number(f.Concurrency)},
		})
	}
	if f.Every > 0 {
		b.schedule(st, f, fn, scheduler, deadLetters)
	}
	return fn
}

// title makes an id of a verb.
func title(verb string) string { return string(verb[0]-'a'+'A') + verb[1:] }

// queue feeds a function. A message stays invisible for six times the function's timeout, as Lambda wants it, and goes
// to the dead letters when it failed too often.
func (b *builder) queue(st awscdk.Stack, f settings.Function, deadLetters awssqs.CfnQueue) awssqs.CfnQueue {
	name := settings.QueuePrefix + f.Verb
	q := awssqs.NewCfnQueue(st, jsii.String(title(f.Verb)+"Queue"), &awssqs.CfnQueueProps{
		QueueName: jsii.String(name), SqsManagedSseEnabled: jsii.Bool(true), MessageRetentionPeriod: jsii.Number(4 * 24 * 3600),
		VisibilityTimeout: jsii.Number(6 * f.Timeout),
		RedrivePolicy:     map[string]any{"deadLetterTargetArn": deadLetters.AttrArn(), "maxReceiveCount": receives},
	})
	var rules []string
	switch {
	case f.Replica: // nothing arrives there that was not checked before it was copied
	case f.Verb == settings.Verify:
		rules = []string{ruleManifests}
	case f.Verb == settings.Coordinate:
		rules = []string{ruleReports}
	}
	b.guardQueue(st, title(f.Verb)+"QueuePolicy", q, name, rules...)
	return q
}

func (b *builder) functionRole(st awscdk.Stack, f settings.Function, machinery rights.Document) awsiam.CfnRole {
	work := rights.Function(b.s, f.Verb)
	if f.Replica && f.Verb != settings.Verify && b.first != nil {
		work = append(work, rights.First(b.first, f.Verb)...)
	}
	role := awsiam.NewCfnRole(st, jsii.String(title(f.Verb)+"Role"), &awsiam.CfnRoleProps{
		RoleName: jsii.String(b.s.RoleName(f.Verb)), Path: jsii.String(settings.ControlPath),
		Description:              jsii.String("Holdfast " + f.Verb + ": " + f.Description),
		AssumeRolePolicyDocument: b.document(rights.TrustPlain("lambda.amazonaws.com")),
		Policies:                 []any{b.inline("machinery", machinery), b.inline("work", work)},
	})
	patterns(role, machinery, work)
	return role
}

// schedulerRole lets the schedules of this stack invoke its functions.
func (b *builder) schedulerRole(st awscdk.Stack, functions []settings.Function) awsiam.CfnRole {
	var invoked, dead []string
	for _, f := range functions {
		if f.Every > 0 {
			invoked = append(invoked, b.s.ARN("lambda", "function:"+settings.FunctionName(f.Verb)))
			dead = append(dead, b.s.ARN("sqs", settings.QueuePrefix+f.Verb+"-dlq"))
		}
	}
	return awsiam.NewCfnRole(st, jsii.String("SchedulerRole"), &awsiam.CfnRoleProps{
		RoleName: jsii.String(b.s.RoleName("scheduler")), Path: jsii.String(settings.ControlPath),
		Description:              jsii.String("Holdfast: EventBridge Scheduler invokes the functions"),
		AssumeRolePolicyDocument: b.document(rights.Trust("scheduler.amazonaws.com", b.s.Account)),
		Policies:                 []any{b.inline("invoke", rights.Schedule(invoked, dead))},
	})
}

func (b *builder) schedule(st awscdk.Stack, f settings.Function, fn awslambda.CfnFunction, role awsiam.CfnRole, dead awssqs.CfnQueue) {
	awsscheduler.NewCfnSchedule(st, jsii.String(title(f.Verb)+"Schedule"), &awsscheduler.CfnScheduleProps{
		Name: jsii.String(settings.FunctionName(f.Verb)), Description: jsii.String(f.Description), ScheduleExpression: jsii.String(f.Schedule()),
		FlexibleTimeWindow: &awsscheduler.CfnSchedule_FlexibleTimeWindowProperty{Mode: jsii.String("OFF")},
		Target: &awsscheduler.CfnSchedule_TargetProperty{
			Arn: fn.AttrArn(), RoleArn: role.AttrArn(), Input: jsii.String(f.Input),
			DeadLetterConfig: &awsscheduler.CfnSchedule_DeadLetterConfigProperty{Arn: dead.AttrArn()},
			RetryPolicy:      &awsscheduler.CfnSchedule_RetryPolicyProperty{MaximumEventAgeInSeconds: jsii.Number(600), MaximumRetryAttempts: jsii.Number(3)},
		},
	})
}

// variables is the environment of a function, written by the struct that it reads.
func (b *builder) variables(f settings.Function) map[string]any {
	v, err := Environment(b.s, b.first, f.Verb)
	var vars map[string]string
	if err == nil {
		vars, err = environment.Map(v)
	}
	if err != nil {
		b.errs = append(b.errs, fmt.Errorf("environment of %s: %w", f.Verb, err))
	}
	out := map[string]any{}
	for name, value := range vars {
		out[name] = value
	}
	return out
}

// queueURL is the address of a function's own queue.
func queueURL(s *settings.Settings, verb string) string {
	return fmt.Sprintf("https://sqs.%s.amazonaws.com/%s/%s%s", s.Region, s.Account, settings.QueuePrefix, verb)
}

// Environment is what a function is told. first is nil in the first region.
func Environment(s, first *settings.Settings, verb string) (any, error) {
	cloud := environment.Cloud{
		State: s.StateBucket(), Trust: settings.TrustParameter, Repository: s.Address,
	}
	signed := cloud
	signed.Signer = settings.SignerParameter + verb
	topic := s.ARN("sns", settings.TopicName)
	const day = 24 * time.Hour
	switch verb {
	case settings.Coordinate:
		return environment.Coordinate{
			Cloud: cloud, Queue: queueURL(s, verb),
		}, nil
	case settings.Verify:
		e := s.Reread()
		e.Cloud, e.Queue = signed, queueURL(s, verb)
		return e, nil
	case settings.Lifecycle:
		e := environment.Lifecycle{Cloud: signed, Lock: s.LockMode, Default: day * time.Duration(s.LockDays), Cold: day * time.Duration(s.ColdAfter)}
		e.Queue = fmt.Sprintf("https://sqs.%s.amazonaws.com/%s/%s%s", s.Region, s.Account, settings.QueuePrefix, verb)
		if first != nil {
			e.Primary, e.PrimaryState, e.PrimaryRegion, e.Cold = first.Address, first.StateBucket(), first.Region, 0
		}
		return e, nil
	case settings.Monitor:
		return environment.Monitor{Cloud: cloud, Topic: topic, Bus: events.BusName, Ping: s.Ping, Runbook: s.Runbook}, nil
	case settings.Watchdog:
		return environment.Watchdog{
			Cloud: cloud, Mode: environment.ModeWatchdog, Topic: topic, Primary: first.StateBucket(), PrimaryRegion: first.Region, Runbook: s.Runbook,
		}, nil
	case settings.Restore:
		return environment.Restore{Cloud: cloud}, nil
	}
	return nil, fmt.Errorf("function %q is not known", verb)
}
