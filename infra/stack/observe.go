package stack

import (
	"fmt"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsevents"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssns"
	"github.com/aws/jsii-runtime-go"

	"github.com/btcdecoded/holdfast/infra/rights"
	"github.com/btcdecoded/holdfast/infra/settings"
)

// observe fills the stack of what people see.
func (b *builder) observe(st awscdk.Stack, functions []settings.Function) {
	s := b.s
	topic := awssns.NewCfnTopic(st, jsii.String("Alerts"), &awssns.CfnTopicProps{
		TopicName: jsii.String(settings.TopicName), DisplayName: jsii.String("Holdfast"),
	})
	awssns.NewCfnTopicPolicy(st, jsii.String("AlertsPolicy"), &awssns.CfnTopicPolicyProps{
		Topics: &[]*string{topic.Ref()}, PolicyDocument: b.document(rights.Topic(s)),
	})
	for i, address := range s.Emails {
		awssns.NewCfnSubscription(st, jsii.String(fmt.Sprintf("Email%d", i)), &awssns.CfnSubscriptionProps{
			TopicArn: topic.Ref(), Protocol: jsii.String("email"), Endpoint: jsii.String(address),
		})
	}
	if len(s.Emails) == 0 {
		awscdk.Annotations_Of(st).AddWarningV2(jsii.String("holdfast:nobody"), jsii.String("nobody is subscribed to the alerts: add -c email=…"))
	}
	b.keyRule(st, topic)
	var machinery, objectives []awscloudwatch.CfnAlarm
	for _, a := range s.Alarms() {
		alarm := b.alarm(st, a, topic)
		if a.Machinery {
			machinery = append(machinery, alarm)
		} else {
			objectives = append(objectives, alarm)
		}
	}
	b.composite(st, "machinery", "the control plane itself is in trouble: what it says, and does not say, can't be relied on", machinery)
	b.composite(st, "objectives", "at least one objective is not met", objectives)
	b.dashboard(st, functions)
}

// keyRule sees whoever disables the key or schedules its end. CloudTrail must be on: EventBridge hears of calls from it.
func (b *builder) keyRule(st awscdk.Stack, topic awssns.CfnTopic) {
	awsevents.NewCfnRule(st, jsii.String("KeyState"), &awsevents.CfnRuleProps{
		Name: jsii.String(settings.KeyRule), Description: jsii.String("somebody disables the key or schedules its end"),
		EventPattern: map[string]any{
			"source": []any{"aws.kms"}, "detail-type": []any{"AWS API Call via CloudTrail"},
			"detail": map[string]any{"eventName": []any{"DisableKey", "ScheduleKeyDeletion", "PutKeyPolicy", "DeleteAlias", "UpdateAlias"}},
		},
		Targets: []any{&awsevents.CfnRule_TargetProperty{Id: jsii.String("alerts"), Arn: topic.Ref()}},
	})
}

func (b *builder) alarm(st awscdk.Stack, a settings.Alarm, topic awssns.CfnTopic) awscloudwatch.CfnAlarm {
	props := &awscloudwatch.CfnAlarmProps{
		AlarmName: jsii.String(settings.AlarmName(a)), AlarmDescription: jsii.String(a.Description + ". " + b.s.Runbook + "#" + a.Anchor),
		Namespace: jsii.String(a.Namespace), MetricName: jsii.String(a.Metric), Statistic: jsii.String(a.Statistic),
		ComparisonOperator: jsii.String(a.Operator), Threshold: jsii.Number(a.Threshold), Period: jsii.Number(a.Period),
		EvaluationPeriods: jsii.Number(a.Periods), TreatMissingData: jsii.String(a.Missing),
	}
	if len(a.Dimensions) > 0 {
		list := make([]any, 0, len(a.Dimensions))
		for _, d := range a.Dimensions {
			list = append(list, &awscloudwatch.CfnAlarm_DimensionProperty{Name: jsii.String(d[0]), Value: jsii.String(d[1])})
		}
		props.Dimensions = list
	}
	if a.Machinery {
		props.AlarmActions, props.OkActions = &[]any{topic.Ref()}, &[]any{topic.Ref()}
	}
	return awscloudwatch.NewCfnAlarm(st, jsii.String(id(a.Name)), props)
}

// id makes an id for CloudFormation of a name.
func id(name string) string {
	var out strings.Builder
	for _, word := range strings.FieldsFunc(name, func(r rune) bool { return r == '-' || r == '/' || r == '.' || r == '_' }) {
		out.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return "Alarm" + out.String()
}

// mostChildren is how many alarms one composite alarm may name.
const mostChildren = 100

func (b *builder) composite(st awscdk.Stack, name, description string, children []awscloudwatch.CfnAlarm) {
	if len(children) == 0 {
		return
	}
	rule := make([]string, 0, len(children))
	for _, c := range children[:min(len(children), mostChildren)] {
		rule = append(rule, fmt.Sprintf("ALARM(%q)", *c.AlarmName()))
	}
	all := awscloudwatch.NewCfnCompositeAlarm(st, jsii.String(id(name)), &awscloudwatch.CfnCompositeAlarmProps{
		AlarmName: jsii.String("holdfast-" + name), AlarmDescription: jsii.String(description), AlarmRule: jsii.String(strings.Join(rule, " OR ")),
	})
	for _, c := range children {
		all.AddResourceDependency(c, nil)
	}
}
