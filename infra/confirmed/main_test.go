package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// regions answers for Lambda and SNS as they do.
type regions struct {
	first, second string // ARN of the one subscription there; empty: there is none
	confirmAfter  int32  // answers of SNS
	asked         atomic.Int32
}

func (f *regions) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	region := strings.Split(r.Header.Get("Authorization"), "/")[2]
	if strings.HasPrefix(r.URL.Path, "/2015-03-31/functions/") {
		want := map[string]string{"eu-central-1": "holdfast-monitor", "eu-west-1": "holdfast-watchdog"}[region]
		if !strings.Contains(r.URL.Path, want) {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		fmt.Fprintf(w, `{"Environment":{"Variables":{"HOLDFAST_ALERT_TOPIC":"arn:aws:sns:%s:1:holdfast-alerts"}}}`, region)
		return
	}
	arn := map[string]string{"eu-central-1": f.first, "eu-west-1": f.second}[region]
	if n := f.asked.Add(1); f.confirmAfter > 0 && n > f.confirmAfter {
		arn = "arn:aws:sns:x"
	}
	member := ""
	if arn != "" {
		member = "<member><SubscriptionArn>" + arn + "</SubscriptionArn><Protocol>email</Protocol><Endpoint>a@example.org</Endpoint></member>"
	}
	fmt.Fprintf(w, `<ListSubscriptionsByTopicResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><ListSubscriptionsByTopicResult><Subscriptions>%s</Subscriptions></ListSubscriptionsByTopicResult></ListSubscriptionsByTopicResponse>`, member)
}

func TestConfirmed(t *testing.T) {
	const confirmed = "arn:aws:sns:eu-central-1:1:holdfast-alerts:x"
	name := filepath.Join(t.TempDir(), "policy.yaml")
	text := "version: 1\nrepository: {primary: \"s3://b?region=eu-central-1\", copies: [\"s3://c?region=eu-west-1\"]}\nhosts: {h: {sources: {s: {files: {roots: [/etc]}}}}}\n"
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
	} {
		t.Setenv(key, value)
	}
	for _, tt := range []struct {
		what string
		f    *regions
		wait time.Duration
		want []string // parts of the error; none: it is confirmed
	}{
		{"both", &regions{first: confirmed, second: confirmed}, 0, nil},
		{"none in the second", &regions{first: confirmed}, 0, []string{"eu-west-1: nobody is subscribed"}},
		{"waiting in both", &regions{first: pending, second: pending}, 0, []string{"eu-central-1: email a@example.org is not confirmed", "eu-west-1: email", "make confirmed"}},
		{"removed", &regions{first: "Deleted", second: confirmed}, 0, []string{"is Deleted"}},
		{"confirmed while it waits", &regions{first: pending, second: pending, confirmAfter: 2}, time.Hour, nil},
	} {
		server := httptest.NewServer(tt.f)
		t.Setenv("AWS_ENDPOINT_URL", server.URL)
		out := &bytes.Buffer{}
		err := run(t.Context(), out, name, tt.wait)
		server.Close()
		if (err == nil) != (len(tt.want) == 0) {
			t.Errorf("%s: %v\n%s", tt.what, err, out)
		}
		for _, part := range tt.want {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v does not say %q", tt.what, err, part)
			}
		}
	}
}
