// Command infra synthesizes the CloudFormation templates of the control plane. The CDK's command line runs it, as
// cdk.json says: `make synth policy=FILE`. It reads the policy file and the context and talks to nobody.
package main

import (
	"fmt"
	"os"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/jsii-runtime-go"

	"github.com/btcdecoded/holdfast/infra/settings"
	"github.com/btcdecoded/holdfast/infra/stack"
	"github.com/btcdecoded/holdfast/shared/policy"
)

func main() {
	if err := run(os.ReadFile, os.Getenv); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1)
	}
}

func run(read func(string) ([]byte, error), getenv func(string) string) error {
	defer jsii.Close()
	app := awscdk.NewApp(nil)
	context := func(key string) string {
		// Values of cdk.json may be numbers; those of the command line are text.
		if v := app.Node().TryGetContext(jsii.String(key)); v != nil && v != "" {
			return fmt.Sprint(v)
		}
		if key == "account" {
			return getenv("CDK_DEFAULT_ACCOUNT")
		}
		return ""
	}
	name := context("policy")
	if name == "" {
		return fmt.Errorf("no policy: add policy=FILE to make, or -c policy=FILE to cdk")
	}
	text, err := read(name)
	if err != nil {
		return fmt.Errorf("read policy: %w", err)
	}
	p, err := policy.Parse(text)
	if err != nil {
		return fmt.Errorf("read policy %s: %w", name, err)
	}
	s, err := settings.Load(p, context)
	if err != nil {
		return err
	}
	if err := stack.Deployment(app, s); err != nil {
		return err
	}
	app.Synth(nil)
	return nil
}
