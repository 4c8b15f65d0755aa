// Command confirmed fails as long as nobody would hear the alerts of a deployment: `make confirmed policy=FILE`, with which
// `make deploy` ends. In each region the topic of alerts must have a subscription, and none may wait for its confirmation. It
// needs the rights lambda:GetFunctionConfiguration and sns:ListSubscriptionsByTopic.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sns/types"

	"github.com/btcdecoded/holdfast/infra/settings"
	"github.com/btcdecoded/holdfast/shared/policy"
)

// pending is what SNS has in the place of an ARN.
const pending = "PendingConfirmation"

// between is the time between two looks.
const between = 5 * time.Second

func main() {
	name := flag.String("policy", "", "the policy file of the deployment")
	wait := flag.Duration("wait", 0, "how long to wait for people to confirm")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), *wait+2*time.Minute)
	defer cancel()
	if err := run(ctx, os.Stdout, *name, *wait); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, name string, wait time.Duration) error {
	text, err := os.ReadFile(name) //nolint:gosec // the file that the user names
	if err != nil {
		return fmt.Errorf("read policy: %w", err)
	}
	p, err := policy.Parse(text)
	if err != nil {
		return fmt.Errorf("read policy %s: %w", name, err)
	}
	regions, err := settings.Regions(p)
	if err != nil {
		return err
	}
	end, told := time.Now().Add(wait), false
	for {
		err := look(ctx, out, regions)
		var silent *silentError
		if err == nil || !errors.As(err, &silent) || !time.Now().Before(end) {
			return err
		}
		if !told {
			fmt.Fprintf(out, "%v\nwaiting for %s\n", err, wait)
			told = true
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(between):
		}
	}
}

// silentError says that nobody would hear an alert.
type silentError struct{ problems []string }

func (e *silentError) Error() string {
	return "nobody would hear the alerts of this deployment:\n  " + strings.Join(e.problems, "\n  ") +
		"\nhint: confirm by the link in each mail (look among the spam too), then `make confirmed policy=FILE`; an address is subscribed with `make deploy email=ADDRESS`"
}

// look asks each region. All that is wrong is in one error.
func look(ctx context.Context, out io.Writer, regions []string) error {
	silent := &silentError{}
	for i, region := range regions {
		verb := settings.Monitor
		if i > 0 {
			verb = settings.Watchdog
		}
		subscribed, problems, err := of(ctx, region, settings.FunctionName(verb))
		if err != nil {
			return err
		}
		if silent.problems = append(silent.problems, problems...); len(problems) == 0 {
			fmt.Fprintf(out, "%s: alerts go to %s\n", region, strings.Join(subscribed, ", "))
		}
	}
	if len(silent.problems) > 0 {
		return silent
	}
	return nil
}

// of tells who is subscribed in a region, and what is wrong. The function that sends the alerts knows the topic.
func of(ctx context.Context, region, function string) (subscribed, problems []string, err error) {
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion(region))
	if err != nil {
		return nil, nil, err
	}
	f, err := lambda.NewFromConfig(cfg).GetFunctionConfiguration(ctx, &lambda.GetFunctionConfigurationInput{FunctionName: &function})
	if err != nil {
		return nil, nil, fmt.Errorf("look at %s in %s: %w", function, region, err)
	}
	topic := ""
	if f.Environment != nil {
		topic = f.Environment.Variables["HOLDFAST_ALERT_TOPIC"]
	}
	if topic == "" {
		return nil, nil, fmt.Errorf("%s in %s is not told to which topic alerts go: deploy again", function, region)
	}
	var all []types.Subscription
	pages := sns.NewListSubscriptionsByTopicPaginator(sns.NewFromConfig(cfg), &sns.ListSubscriptionsByTopicInput{TopicArn: &topic})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("list subscriptions of %s: %w", topic, err)
		}
		all = append(all, page.Subscriptions...)
	}
	subscribed, problems = judge(region, all)
	return subscribed, problems, nil
}

// judge tells who hears alerts, and what is wrong.
func judge(region string, all []types.Subscription) (subscribed, problems []string) {
	for _, s := range all {
		who := aws.ToString(s.Protocol) + " " + aws.ToString(s.Endpoint)
		if arn := aws.ToString(s.SubscriptionArn); !strings.HasPrefix(arn, "arn:") {
			what := "is not confirmed"
			if arn != pending {
				what = "is " + arn
			}
			problems = append(problems, fmt.Sprintf("%s: %s %s", region, who, what))
			continue
		}
		subscribed = append(subscribed, who)
	}
	if len(all) == 0 {
		problems = []string{region + ": nobody is subscribed"}
	}
	return subscribed, problems
}
