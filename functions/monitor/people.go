package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	ebtypes "github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	snstypes "github.com/aws/aws-sdk-go-v2/service/sns/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/alert"
	"github.com/btcdecoded/holdfast/shared/control"
)

// snsAPI is what is needed of SNS.
type snsAPI interface {
	Publish(ctx context.Context, in *sns.PublishInput, opts ...func(*sns.Options)) (*sns.PublishOutput, error)
	ListSubscriptionsByTopic(ctx context.Context, in *sns.ListSubscriptionsByTopicInput, opts ...func(*sns.Options)) (*sns.ListSubscriptionsByTopicOutput, error)
}

// busAPI is what is needed of EventBridge.
type busAPI interface {
	PutEvents(ctx context.Context, in *eventbridge.PutEventsInput, opts ...func(*eventbridge.Options)) (*eventbridge.PutEventsOutput, error)
}

func snsClient(cfg aws.Config) snsAPI {
	return sns.NewFromConfig(cfg, func(o *sns.Options) {
		if at := invoke.Endpoint(os.Getenv, "SNS"); at != "" {
			o.BaseEndpoint = aws.String(at)
		}
	})
}

func busClient(cfg aws.Config) busAPI {
	return eventbridge.NewFromConfig(cfg, func(o *eventbridge.Options) {
		if at := invoke.Endpoint(os.Getenv, "EVENTBRIDGE"); at != "" {
			o.BaseEndpoint = aws.String(at)
		}
	})
}

// people is the way to those who get alerts: a topic for persons, a bus for programs.
type people struct {
	topic string
	bus   string // empty: no events are put
	sns   snsAPI
	eb    busAPI
}

func newPeople(topic, bus string, s snsAPI, b busAPI) *people {
	return &people{topic: topic, bus: bus, sns: s, eb: b}
}

// maxText is a little less than what SNS takes in a message, in bytes.
const maxText = 250 << 10

// send sends one message. It may be sent twice after a crash; its id is an attribute.
func (p *people) send(ctx context.Context, m *alert.Message) error {
	text := m.Text
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "\n…"
	}
	attributes := map[string]snstypes.MessageAttributeValue{}
	for name, value := range map[string]string{"id": m.ID, "kind": string(m.Kind), "code": string(m.Code), "tier": string(m.Tier)} {
		if value != "" {
			attributes[name] = snstypes.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(value)}
		}
	}
	_, err := p.sns.Publish(ctx, &sns.PublishInput{
		TopicArn: aws.String(p.topic), Subject: aws.String(m.Subject), Message: aws.String(text), MessageAttributes: attributes,
	})
	if err != nil {
		return fmt.Errorf("publish message %s: %w", m.ID, err)
	}
	return nil
}

// deliver sends messages, and calls sent after each that went. What can't be sent stays in the outbox for the next pass.
// An event that the bus does not take is an error, and is lost: the next pass's alerts say what is open.
func (p *people) deliver(ctx context.Context, outbox []alert.Message, sent func(id string) error) (int, error) {
	var troubles []error
	n := 0
	for i := range outbox {
		if err := p.send(ctx, &outbox[i]); err != nil {
			troubles = append(troubles, err)
			continue
		}
		n++
		// People have it. That programs do not is no reason to tell people again in every pass.
		troubles = append(troubles, sent(outbox[i].ID), p.put(ctx, &outbox[i]))
	}
	return n, errors.Join(troubles...)
}

// entriesAtOnce is the most that EventBridge takes in one request.
const entriesAtOnce = 10

// put puts an event for each alert of a message that opened or closed it.
func (p *people) put(ctx context.Context, m *alert.Message) error {
	if p.bus == "" || m.Kind != alert.Opened && m.Kind != alert.Closed {
		return nil
	}
	var entries []ebtypes.PutEventsRequestEntry
	for i := range m.Alerts {
		kind, detail := detailOf(m, &m.Alerts[i])
		body, err := json.Marshal(detail)
		if err != nil {
			return fmt.Errorf("encode alert %s: %w", m.Alerts[i].ID, err)
		}
		entries = append(entries, ebtypes.PutEventsRequestEntry{
			EventBusName: aws.String(p.bus), Source: aws.String(events.SourceControl), DetailType: aws.String(kind),
			Detail: aws.String(string(body)), Time: aws.Time(m.Time),
		})
	}
	for len(entries) > 0 {
		batch := entries[:min(len(entries), entriesAtOnce)]
		entries = entries[len(batch):]
		out, err := p.eb.PutEvents(ctx, &eventbridge.PutEventsInput{Entries: batch})
		if err != nil {
			return fmt.Errorf("put events of message %s: %w", m.ID, err)
		}
		if out.FailedEntryCount > 0 {
			return fmt.Errorf("put events of message %s: %d of %d were not taken", m.ID, out.FailedEntryCount, len(batch))
		}
	}
	return nil
}

func detailOf(m *alert.Message, a *alert.Open) (kind string, detail any) {
	host, source, _ := strings.Cut(a.Source, "/")
	if m.Kind == alert.Closed {
		return events.TypeAlertClosed, events.AlertClosed{
			Version: events.Version, ID: a.ID, Cause: string(a.Code), Tier: string(a.Tier), Host: host, Source: source, Since: a.Since, Time: m.Time,
		}
	}
	summary := a.Cause
	if r := []rune(summary); len(r) > 500 {
		summary = string(r[:500]) + "…"
	}
	return events.TypeAlertOpened, events.AlertOpened{
		Version: events.Version, ID: a.ID, Cause: string(a.Code), Tier: string(a.Tier), Host: host, Source: source, Summary: summary, Since: a.Since, Time: m.Time,
	}
}

// pendingARN is what SNS says instead of the ARN of a subscription that nobody confirmed.
const pendingARN = "PendingConfirmation"

// subscriptions looks who gets the messages.
func (p *people) subscriptions(ctx context.Context, old *control.Subscriptions, now time.Time) (*control.Subscriptions, error) {
	s := &control.Subscriptions{Checked: now.UTC()}
	in := &sns.ListSubscriptionsByTopicInput{TopicArn: aws.String(p.topic)}
	for {
		out, err := p.sns.ListSubscriptionsByTopic(ctx, in)
		if err != nil {
			return nil, fmt.Errorf("list the subscriptions to the topic of alerts: %w", err)
		}
		for _, one := range out.Subscriptions {
			if arn := aws.ToString(one.SubscriptionArn); arn == pendingARN || arn == "" {
				s.Pending = append(s.Pending, aws.ToString(one.Protocol))
				continue
			}
			s.Confirmed++
		}
		if aws.ToString(out.NextToken) == "" {
			break
		}
		in.NextToken = out.NextToken
	}
	if unconfirmed(s) > 0 {
		s.Since = now.UTC()
		if old != nil && !old.Since.IsZero() {
			s.Since = old.Since
		}
	}
	return s, nil
}

// unconfirmed counts what is wrong: subscriptions that wait for their confirmation, or that there is none at all.
func unconfirmed(s *control.Subscriptions) int {
	if s == nil {
		return 0
	}
	if s.Confirmed == 0 {
		return max(1, len(s.Pending))
	}
	return len(s.Pending)
}

// pinger fetches the URL that a parameter holds: a service elsewhere that raises the alarm when it is not fetched. The
// URL is a secret (who knows it can keep the service quiet) and stands in no error.
func pinger(cfg aws.Config, parameter string) func(context.Context) error {
	client := ssm.NewFromConfig(cfg, func(o *ssm.Options) {
		if at := invoke.Endpoint(os.Getenv, "SSM"); at != "" {
			o.BaseEndpoint = aws.String(at)
		}
	})
	var mu sync.Mutex
	var address string // guarded by mu
	return func(ctx context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		if address == "" {
			out, err := client.GetParameters(ctx, &ssm.GetParametersInput{Names: []string{parameter}, WithDecryption: aws.Bool(true)})
			if err != nil {
				return fmt.Errorf("read parameter %s: %w", parameter, err)
			}
			if len(out.Parameters) != 1 {
				return fmt.Errorf("read parameter %s: it is not there", parameter)
			}
			address = strings.TrimSpace(aws.ToString(out.Parameters[0].Value))
		}
		return fetch(ctx, http.DefaultClient, address)
	}
}

func fetch(ctx context.Context, client *http.Client, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Hostname() != "127.0.0.1" {
		return errors.New("ping: the parameter holds no https URL")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return errors.New("ping: the parameter holds no URL")
	}
	resp, err := client.Do(req)
	if err != nil {
		if inner := new(url.Error); errors.As(err, &inner) {
			err = inner.Err // without the URL
		}
		return fmt.Errorf("ping: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16))
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("ping: answer %d", resp.StatusCode)
	}
	return nil
}
