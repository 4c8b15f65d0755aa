package approve

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/btcdecoded/holdfast/test/cloud"
	"github.com/btcdecoded/holdfast/test/program"
)

const region = "eu-central-1"

// TestKMS has two approvers whose keys are in KMS, one of each kind, and a host's policy that has their public keys.
func TestKMS(t *testing.T) {
	dir := t.TempDir()
	holdfast, err := program.Holdfast(dir)
	if err != nil {
		t.Fatal(err)
	}
	emulator := cloud.Start(t)
	client := kms.NewFromConfig(emulator.Config(region))
	env := emulator.Env(region)
	run := func(args ...string) string {
		t.Helper()
		return cloud.Run(t, dir, env, holdfast, args...)
	}
	// refused runs what must fail.
	refused := func(says string, args ...string) {
		t.Helper()
		out, err := cloud.Command(t.Context(), dir, env, holdfast, args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), says) {
			t.Errorf("%v: %v, want %q:\n%s", args, err, says, out)
		}
	}
	create := func(spec types.KeySpec, usage types.KeyUsageType) string {
		t.Helper()
		out, err := client.CreateKey(t.Context(), &kms.CreateKeyInput{KeySpec: spec, KeyUsage: usage})
		if err != nil {
			t.Fatal(err)
		}
		return aws.ToString(out.KeyMetadata.Arn)
	}
	p256, edwards := create(types.KeySpecEccNistP256, types.KeyUsageTypeSignVerify), create(types.KeySpecEccNistEdwards25519, types.KeyUsageTypeSignVerify)
	other := create(types.KeySpecEccNistP256, types.KeyUsageTypeSignVerify)
	line := func(arn string) string { return strings.TrimSpace(run("approve", "key", "--kms", arn)) }
	one, two := line(p256), line(edwards)
	if !strings.HasPrefix(one, "ecdsa-sha2-nistp256 AAAA") || !strings.HasPrefix(two, "ssh-ed25519 AAAA") {
		t.Fatalf("%s\n%s", one, two)
	}
	policy := fmt.Sprintf(`version: 1
approvers: [{name: one, key: %q}, {name: two, key: %q}]
hosts:
  web-1:
    restore: {targets: [/srv/restore]}
    sources: {app: {files: {roots: [/srv/app]}}}
`, one, two)
	if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	env = append(env, "HOLDFAST_POLICY="+filepath.Join(dir, "policy.yaml"))
	run("approve", "request", "web-1/app@42", "--to", "/srv/restore/app", "--out", "r.json")
	run("approve", "sign", "r.json", "--as", "one", "--kms", p256)
	if out := run("approve", "show", "r.json"); !strings.Contains(out, "signed by 1 of the 2") {
		t.Errorf("%s", out)
	}
	refused("another key", "approve", "sign", "r.json", "--as", "two", "--kms", other)
	refused("another key", "approve", "sign", "r.json", "--as", "two", "--kms", p256)
	refused("want one for SIGN_VERIFY", "approve", "key", "--kms", create(types.KeySpecEccNistP384, types.KeyUsageTypeSignVerify))
	refused("kms:Sign", "approve", "sign", "r.json", "--as", "two", "--kms", strings.Replace(p256, "key/", "key/0", 1))
	run("approve", "sign", "r.json", "--as", "two", "--kms", edwards)
	// The host checks offline: with nobody to ask.
	offline := []string{"HOLDFAST_POLICY=" + filepath.Join(dir, "policy.yaml"), "AWS_ENDPOINT_URL=http://127.0.0.1:1", "HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	if out := cloud.Run(t, dir, offline, holdfast, "approve", "show", "r.json"); !strings.Contains(out, "by the policy here it would run") || !strings.Contains(out, "one, two") {
		t.Errorf("%s", out)
	}
}
