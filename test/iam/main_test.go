package iam_test

import (
	"os"
	"sync"
	"testing"

	"github.com/aws/jsii-runtime-go"

	"github.com/btcdecoded/holdfast/infra/settings"
	"github.com/btcdecoded/holdfast/test/cloud"
	"github.com/btcdecoded/holdfast/test/iam"
)

const (
	account = "123456789012"
	region  = "eu-central-1"
	second  = "eu-west-1"
	bucket  = "governance-backups"
	replica = "governance-backups-replica"
	glass   = "arn:aws:iam::123456789012:role/break-glass"
)

const policyText = `version: 1
repository:
  primary: s3://governance-backups?region=eu-central-1
  copies: ["s3://governance-backups-replica?region=eu-west-1"]
hosts:
  governance-1:
    sources:
      config:
        files: {roots: [/etc]}
        schedule: {incremental: "0 * * * *"}
        objectives: {tier: critical, rpo: 4h, verify: 20d}
        metrics: true
      logs:
        files: {roots: [/var/log]}
        objectives: {tier: low}
`

func TestMain(m *testing.M) {
	code := m.Run()
	jsii.Close()
	_ = os.RemoveAll(shared.dir)
	os.Exit(code)
}

// deployed synthesizes once for all tests: it takes seconds of CPU.
type deployed struct {
	once     sync.Once
	dir      string
	settings *settings.Settings
	account  *iam.Account
}

var shared deployed

func deployment(t *testing.T) *deployed {
	t.Helper()
	shared.once.Do(func() {
		s := cloud.Settings(t, policyText, map[string]string{
			"account": account, "cold-after": "60", "email": "a@example.org", "break-glass": glass,
			"trust-anchor": "arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/00000000-0000-0000-0000-000000000000",
		})
		dir, err := os.MkdirTemp("", "holdfast-synth")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(dir, os.DirFS(cloud.Synth(t, s))); err != nil {
			t.Fatal(err)
		}
		a, err := iam.Load(dir, account)
		if err != nil {
			t.Fatal(err)
		}
		shared.dir, shared.settings, shared.account = dir, s, a
	})
	if shared.account == nil {
		t.Fatal("the synthesis failed before")
	}
	return &shared
}
